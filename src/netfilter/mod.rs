//! The packet filter of the Pod's network namespace, as desired state.
//!
//! [`ruleset`] is what a table shall hold, as a value; [`script`] puts it into nft's words. A [`firewall`] brings a
//! table of ours to a ruleset in one transaction and touches nobody else's; a [`keeper`] does so for as long as the
//! node runs. Takes the place of upstream's `util/linuxfw`; what packets see is netfilter.md part I, how it is done
//! part II.

pub mod conntrack;
pub mod drift;
mod fake;
pub mod firewall;
pub mod iptables;
pub mod keeper;
pub mod label;
pub mod netlink;
pub mod nft;
pub mod probe;
pub mod ruleset;
pub mod script;
mod terms;
