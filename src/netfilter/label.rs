//! The comment at a rule, whatever a user called the thing behind it. Pure.
//!
//! netfilter.md 8, rule 7: everything in a rule is typed but its comment, so this is where invalid input would get to
//! the kernel. nft takes 128 bytes and refuses the whole script when there are more.

use std::fmt;

use crate::digest::sha256_hex;

/// What nft takes.
pub const LONGEST: usize = 128;

/// A comment of at most [`LONGEST`] bytes of `[A-Za-z0-9 ._:/>=-]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// Every other character becomes `_`; what is too long ends in a digest of the whole, so that two names stay two.
    pub fn new(text: &str) -> Self {
        let plain = |c: char| if c.is_ascii_alphanumeric() || " ._:/>=-".contains(c) { c } else { '_' };
        let mut label: String = text.chars().map(plain).collect();
        if label.len() > LONGEST {
            let digest = &sha256_hex(text.as_bytes())[..8];
            label.truncate(LONGEST - digest.len() - 1);
            label.push('-');
            label.push_str(digest);
        }
        Self(label)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_the_comment_it_stands_in() {
        assert_eq!(Label::new("default-web:TCP:10001 -> TCP:80").as_str(), "default-web:TCP:10001 -> TCP:80");
        assert_eq!(Label::new("a\"b\nc;d\\e'ü{}").as_str(), "a_b_c_d_e____");
    }

    #[test]
    fn long_names_stay_apart() {
        let (a, b) = (Label::new(&"x".repeat(200)), Label::new(&format!("{}y", "x".repeat(199))));
        assert_eq!((a.as_str().len(), b.as_str().len()), (LONGEST, LONGEST));
        assert_ne!(a, b);
        assert_eq!(Label::new(&"x".repeat(128)).as_str(), "x".repeat(128));
    }
}
