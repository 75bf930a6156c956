//! TLS certificates: which names need one, when to ask for it, what a failure means, which replica asks.
//!
//! tailscaled is the client of the certificate authority; what is here decides when to poke it. Everything that decides
//! is pure; [`loops`] performs it, one loop for each name, in a [`world`] that is a node's ([`local`]) or made up.
//! Upstream's manager is `kube/certs/certs.go`; where ours differs, the file says so.

pub mod allowed;
pub mod awaited;
pub mod book;
pub mod budget;
pub mod chain;
pub mod cluster;
pub mod failure;
pub mod handshake;
pub mod hold_back;
pub mod keep;
pub mod lease;
pub mod listing;
pub mod local;
pub mod loops;
pub mod manager;
pub mod metrics;
pub mod names;
pub mod office;
pub mod places;
pub mod promotion;
pub mod record;
pub mod renewed;
pub mod replicas;
pub mod schedule;
pub mod served;
pub mod stale;
pub mod standing;
pub mod status;
pub mod storage;
pub mod verify;
pub mod work;
pub mod world;
pub mod writer;
