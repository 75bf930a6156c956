//! tailscaled as a child of ours: started, watched from its first moment, restarted within limits, stopped by name.
//!
//! What every applet that runs a daemon of its own needs, and nothing of why it does: [`program`] says what to start,
//! [`tailscaled`] owns the process, [`socket`] knows when it answers, [`restart`] (pure) whether a death is worth
//! another try, [`exit`] how it ended in words, [`reaper`] collects what it leaves behind,
//! [`lines`] (pure) are what it says.

pub mod exit;
pub mod kept;
pub mod lines;
pub mod program;
pub mod reaper;
pub mod restart;
pub mod socket;
pub mod tailscaled;
