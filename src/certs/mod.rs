//! Certificates: who is due when. The loops that ask tailscaled for them are their users' for now.

pub mod schedule;
