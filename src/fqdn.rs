//! A fully qualified domain name as tailnets use it: compared without case, written with a trailing dot. Pure.
//!
//! Follows upstream's `util/dnsname`: labels are measured, not judged by what is in them.

use std::fmt;
use std::str::FromStr;

/// Bytes of a name with its trailing dot.
const LONGEST_NAME: usize = 254;
/// Bytes of a label.
const LONGEST_LABEL: usize = 63;

/// A name such as `db.tail1234.ts.net.`, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fqdn(String);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FqdnError {
    /// There is nothing in it.
    #[error("a domain name must not be empty")]
    Empty,
    /// More than DNS takes.
    #[error("{0:?} is too long to be a domain name")]
    TooLong(String),
    /// Two dots in a row, or more than 63 bytes between two.
    #[error("{label:?} is not a valid label of {name:?}")]
    Label {
        /// The label.
        label: String,
        /// The whole.
        name: String,
    },
}

impl Fqdn {
    /// The name, with its trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as people write it.
    pub fn without_dot(&self) -> &str {
        self.0.trim_end_matches('.')
    }

    /// Whether a name that somebody else wrote is this one.
    pub fn is(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        name.eq_ignore_ascii_case(self.without_dot())
    }

    /// The first label and what follows it, without the trailing dot.
    pub fn split(&self) -> (&str, &str) {
        self.without_dot().split_once('.').unwrap_or((self.without_dot(), ""))
    }
}

impl FromStr for Fqdn {
    type Err = FqdnError;

    /// One leading dot is dropped, as upstream does.
    fn from_str(text: &str) -> Result<Self, FqdnError> {
        let name = text.strip_prefix('.').unwrap_or(text);
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(FqdnError::Empty);
        }
        if name.len() + 1 > LONGEST_NAME {
            return Err(FqdnError::TooLong(text.to_owned()));
        }
        if let Some(label) = name.split('.').find(|label| label.is_empty() || label.len() > LONGEST_LABEL) {
            return Err(FqdnError::Label { label: label.to_owned(), name: text.to_owned() });
        }
        Ok(Self(format!("{}.", name.to_ascii_lowercase())))
    }
}

impl fmt::Display for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_whatever_their_case_and_dots() {
        for text in ["Db.Tail.ts.net", "db.tail.ts.net.", ".db.tail.ts.net"] {
            let name: Fqdn = text.parse().unwrap();
            assert_eq!(name.as_str(), "db.tail.ts.net.", "{text}");
            assert!(name.is("DB.tail.ts.net.") && name.is("db.tail.ts.net") && !name.is("db.tail.ts"), "{text}");
            assert_eq!(name.split(), ("db", "tail.ts.net"));
        }
        assert_eq!("single".parse::<Fqdn>().unwrap().split(), ("single", ""));
    }

    #[test]
    fn what_dns_does_not_take_is_no_name() {
        let long = "a".repeat(64);
        for text in ["", ".", "a..b", &long, &format!("{}a", "a.".repeat(127))] {
            assert!(text.parse::<Fqdn>().is_err(), "{text:?}");
        }
        assert!(format!("{}a", "a.".repeat(126)).parse::<Fqdn>().is_ok());
    }
}
