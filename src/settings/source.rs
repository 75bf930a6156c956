//! Where variables come from: the process environment, or a map in tests.
//!
//! The process environment is taken in [`ProcessEnv::capture`] and nowhere else.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// A source of environment variables.
pub trait Vars {
    /// The value of a variable; `None` when unset.
    ///
    /// # Errors
    /// [`NotUnicode`] when the value is not UTF-8.
    fn get(&self, name: &str) -> Result<Option<String>, NotUnicode>;

    /// The names of all variables, in any order; names that are not UTF-8 are left out.
    fn names(&self) -> Vec<String>;
}

/// A variable's value is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is not UTF-8")]
pub struct NotUnicode;

impl Vars for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Result<Option<String>, NotUnicode> {
        Ok(BTreeMap::get(self, name).cloned())
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

impl Vars for BTreeMap<&str, &str> {
    fn get(&self, name: &str) -> Result<Option<String>, NotUnicode> {
        Ok(BTreeMap::get(self, name).map(|value| (*value).to_owned()))
    }

    fn names(&self) -> Vec<String> {
        self.keys().map(|name| (*name).to_owned()).collect()
    }
}

/// The environment of this process at one moment. It holds secrets: drop it once settings are read.
pub struct ProcessEnv(BTreeMap<OsString, OsString>);

impl ProcessEnv {
    /// Reads the environment.
    pub fn capture() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// All of it, for the children to inherit from.
    pub fn into_variables(self) -> BTreeMap<OsString, OsString> {
        self.0
    }
}

impl FromIterator<(OsString, OsString)> for ProcessEnv {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Vars for ProcessEnv {
    fn get(&self, name: &str) -> Result<Option<String>, NotUnicode> {
        self.0.get(std::ffi::OsStr::new(name)).cloned().map(OsString::into_string).transpose().map_err(|_| NotUnicode)
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().filter_map(|name| name.to_str().map(str::to_owned)).collect()
    }
}
