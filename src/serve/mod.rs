//! The serve config: what tailscaled serves, as a document that a person wrote and as one that the daemon has.

pub mod go;
