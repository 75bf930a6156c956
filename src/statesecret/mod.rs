//! The state Secret as a person looks at it: what it says, what is wrong with it, what would mend it.
//!
//! Everything here is pure. [`inspect()`] turns a Secret and what is known around it into an [`Inspection`],
//! [`findings()`] judges that, [`repair`] turns a finding into a patch, [`diff`] compares two Secrets. What may be shown
//! of a value is decided in one place, [`Glimpse`]: the keys that hold secrets come out as length and fingerprint, and
//! only `--reveal` goes around it.

pub mod code;
pub mod diff;
pub mod document;
pub mod findings;
pub mod glimpse;
pub mod inspect;
mod owners;
mod profiles;
pub mod proxied;
pub mod repair;
#[cfg(test)]
mod testing;

pub use self::code::{Code, Severity};
pub use self::findings::{Finding, Problem, findings};
pub use self::glimpse::Glimpse;
pub use self::inspect::{Inspection, Known, inspect};

/// Which Secret, as commands take it: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for FullName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
