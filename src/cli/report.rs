//! An error chain and its hints -> text.
//!
//! An applet attaches remedies and an exit status to an error with [`Advise`]; nothing else about the error changes.
//! [`Report`] collects what a person needs from the whole chain: one line that says what failed and why, the hints in
//! the order they were learnt, and the status of the outermost layer that named one.

use std::error::Error;
use std::fmt;

use super::exit::ExitStatus;
use super::output::ReaderGone;

/// An error with what to do about it. Transparent: it displays as the error it wraps.
struct Advice {
    error: anyhow::Error,
    hint: Option<String>,
    status: Option<ExitStatus>,
}

impl fmt::Debug for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl Error for Advice {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

/// Attaches remedies and exit codes to errors.
pub trait Advise: Sized {
    /// Adds what to do about it, printed as `hint: …`. Concrete: the RBAC verb, the variable, the command.
    #[must_use]
    fn hint(self, text: impl Into<String>) -> Self;

    /// Says how the process shall end because of it. Without one it is [`ExitStatus::Failed`].
    #[must_use]
    fn exit_with(self, status: ExitStatus) -> Self;
}

impl Advise for anyhow::Error {
    fn hint(self, text: impl Into<String>) -> Self {
        Self::new(Advice { error: self, hint: Some(text.into()), status: None })
    }

    fn exit_with(self, status: ExitStatus) -> Self {
        Self::new(Advice { error: self, hint: None, status: Some(status) })
    }
}

impl<T> Advise for anyhow::Result<T> {
    fn hint(self, text: impl Into<String>) -> Self {
        self.map_err(|error| error.hint(text))
    }

    fn exit_with(self, status: ExitStatus) -> Self {
        self.map_err(|error| error.exit_with(status))
    }
}

/// What a person needs to know of an error.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// The chain on one line, outermost first: `what failed: why: why that`.
    pub message: String,
    /// What to do, in the order the layers added it, innermost first.
    pub hints: Vec<String>,
    /// How the process ends.
    pub status: ExitStatus,
}

impl Report {
    /// Reads the whole chain. `None` means that whoever read our output went away, which is not a failure.
    pub fn of(error: &anyhow::Error) -> Option<Self> {
        if error.chain().any(<dyn Error>::is::<ReaderGone>) {
            return None;
        }
        let mut gathered = Gathered::default();
        gathered.walk(error);
        let Gathered { messages, mut hints, status } = gathered;
        hints.reverse();
        Some(Self { message: messages.join(": "), hints, status: status.unwrap_or(ExitStatus::Failed) })
    }
}

#[derive(Default)]
struct Gathered {
    messages: Vec<String>,
    hints: Vec<String>,
    status: Option<ExitStatus>,
}

impl Gathered {
    fn walk(&mut self, error: &anyhow::Error) {
        for cause in error.chain() {
            if let Some(advice) = cause.downcast_ref::<Advice>() {
                self.hints.extend(advice.hint.clone());
                self.status = self.status.or(advice.status);
                // The rest of this chain is the wrapped error's own.
                return self.walk(&advice.error);
            }
            let message = cause.to_string();
            // Foreign errors often repeat their source in their own message; saying it twice helps nobody.
            if !self.messages.last().is_some_and(|outer| outer.ends_with(&message)) {
                self.messages.push(message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    fn report(error: &anyhow::Error) -> Report {
        Report::of(error).expect("a failure")
    }

    #[test]
    fn a_chain_is_one_line_and_fails_with_1() {
        let error = anyhow!("connection refused").context("cannot reach LocalAPI").context("while waiting");
        let expected = "while waiting: cannot reach LocalAPI: connection refused";
        assert_eq!(report(&error), Report { message: expected.into(), hints: Vec::new(), status: ExitStatus::Failed });
    }

    #[test]
    fn hints_and_status_survive_every_layer() {
        let error = anyhow!("denied")
            .hint("grant `patch`")
            .context("cannot store device id")
            .hint("or set TS_KUBE_SECRET=")
            .exit_with(ExitStatus::Usage)
            .context("boot");
        assert_eq!(
            report(&error),
            Report {
                message: "boot: cannot store device id: denied".into(),
                hints: vec!["grant `patch`".into(), "or set TS_KUBE_SECRET=".into()],
                status: ExitStatus::Usage,
            }
        );
        assert_eq!(format!("{error:#}"), "boot: cannot store device id: denied", "other printers see the same chain");
    }

    #[test]
    fn the_outermost_status_wins() {
        let error = anyhow!("x").exit_with(ExitStatus::No).exit_with(ExitStatus::Usage);
        assert_eq!(report(&error).status, ExitStatus::Usage);
    }

    #[test]
    fn a_message_that_repeats_its_source_is_said_once() {
        let source = std::io::Error::other("disk full");
        let error: anyhow::Error = Err::<(), _>(source).context("write failed: disk full").expect_err("is an error");
        assert_eq!(report(&error).message, "write failed: disk full");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let error = anyhow::Error::new(ReaderGone).context("printing the table");
        assert_eq!(Report::of(&error), None);
        let other = anyhow::Error::new(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(Report::of(&other).is_some(), "a broken pipe elsewhere is a failure");
    }
}
