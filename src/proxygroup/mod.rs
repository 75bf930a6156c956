//! The Services of a ProxyGroup: a replica's part in an HA egress or ingress group of the operator.
//!
//! The operator writes what it wants into a file; [`egress`] and [`ingress`] make of it what the packet filter shall hold
//! and what the operator reads back (both pure, behind [`plan`]); [`follow`] watches the inputs and performs it, rules
//! first, report after; [`once`] only looks. [`drain`] is the hook that holds up the end of an egress replica until
//! nobody is routed to it.
//! Follows upstream's `cmd/containerboot/{egressservices,ingressservices}.go`; ha-services.md 8 is the design.

pub mod drain;
pub mod egress;
pub mod entries;
pub mod follow;
pub mod ingress;
pub mod metrics;
pub mod once;
pub mod plan;
