//! The arguments of an applet that this version does not have yet.

use anyhow::anyhow;

use super::exit::ExitStatus;
use super::report::Advise;

/// Any arguments, all ignored. An applet with these is listed, but says what it is and ends with exit code 2.
#[derive(Debug, clap::Args)]
pub struct Unbuilt {
    #[arg(id = MARK, hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _ignored: Vec<std::ffi::OsString>,
}

/// The id by which such an applet is recognised in the definition, so that no second list is needed.
const MARK: &str = "not-built-yet";

impl Unbuilt {
    /// Whether `applet` is one.
    pub fn marks(applet: &clap::Command) -> bool {
        applet.get_arguments().any(|argument| argument.get_id() == MARK)
    }

    /// Says so, in one line.
    ///
    /// # Errors
    /// Always.
    pub fn run(&self, applet: &str) -> anyhow::Result<ExitStatus> {
        Err(anyhow!("`{applet}` is not built yet in this version").exit_with(ExitStatus::Usage))
    }
}
