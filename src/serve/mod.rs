//! The serve config: what tailscaled serves, as a document that a person wrote and as one that the daemon has.
//!
//! [`document`] reads the file of `TS_SERVE_CONFIG`, [`change`] compares, [`apply`] brings it to the daemon, [`follow`]
//! does so again whenever the file or the node changes. Which of its Services the node advertises is [`advertise`]'s,
//! kept by [`advertiser`] and taken back by [`withdraw`]. Follows upstream's `cmd/containerboot/serve.go`; what it dies
//! of, this reports while the last good config stays.

pub mod advertise;
pub mod advertiser;
pub mod apply;
pub mod change;
pub mod document;
pub mod follow;
pub mod go;
mod reading;
mod services;
pub mod withdraw;
