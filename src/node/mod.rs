//! A running node, as whoever keeps one up sees it: what a bus message says about it, and its metrics.
//!
//! Boot and the proxy live by the same messages. [`BusUpdate`] is what of one decides something; [`bus`] follows the
//! stream, [`metrics`] asks the daemon for its own; [`reissue`] is the way to a new auth key;
//! [`resolve`] looks names of the tailnet up.

pub mod bus;
pub mod metrics;
pub mod reissue;
pub mod resolve;
pub mod update;

pub use update::{BusUpdate, Device, LoginHealth, News};
