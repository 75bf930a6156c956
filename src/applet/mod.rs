//! One file per applet: an `Args` struct and `run`. Wiring, no logic.
//!
//! An applet is where features meet: it reads settings, builds the adapters, hands them to the features, and turns
//! their errors into a message, hints and an exit status. To add one, write its file, name it in
//! [`cli::Applet`](crate::cli::Applet) and give it a line in the dispatch below that.

pub mod authkey;
pub mod boot;
pub mod complete;
pub mod doctor;
pub mod generate;
pub mod healthcheck;
pub mod install_links;
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod secret;

use anyhow::anyhow;

use crate::cli::exit::ExitStatus;
use crate::cli::report::Advise;

/// The arguments of an applet that is not built yet: any, all ignored.
#[derive(Debug, clap::Args)]
pub struct Unbuilt {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    not_built_yet: Vec<std::ffi::OsString>,
}

impl Unbuilt {
    /// Whether `applet` is one.
    pub fn marks(applet: &clap::Command) -> bool {
        applet.get_arguments().any(|argument| argument.get_id() == "not_built_yet")
    }

    /// Says so.
    pub fn run(self, applet: &str) -> anyhow::Result<ExitStatus> {
        Err(anyhow!("`{applet}` is not built yet in this version").exit_with(ExitStatus::Usage))
    }
}
