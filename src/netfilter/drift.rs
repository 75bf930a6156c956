//! How a table differs from what it should be, in the words of those who program it. Pure.

use std::collections::BTreeMap;

/// What is there, and what differs. Nothing does when there is nothing to mend.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// What is there, in a few words for each family.
    pub held: Vec<String>,
    /// What should be there and is not.
    pub missing: Vec<String>,
    /// What is there and should not be.
    pub unwanted: Vec<String>,
    /// Commands for a shell that bring the one to the other.
    pub mend: String,
}

impl Drift {
    /// Whether the table is as it should be.
    pub fn is_none(&self) -> bool {
        self.mend.is_empty()
    }

    /// What is there, as part of a sentence.
    pub fn holds(&self) -> String {
        if self.held.is_empty() { "nothing".to_owned() } else { self.held.join(", ") }
    }

    /// Notes how the lines at one place differ.
    pub(super) fn note(&mut self, place: &str, held: &[String], wanted: &[String]) {
        if held == wanted {
            return;
        }
        let before = self.missing.len() + self.unwanted.len();
        self.unwanted.extend(without(held, wanted).map(|line| format!("{place} {line}")));
        self.missing.extend(without(wanted, held).map(|line| format!("{place} {line}")));
        if self.missing.len() + self.unwanted.len() == before {
            self.unwanted.push(format!("{place}: the order of its rules"));
        }
    }
}

/// The lines of one list that the other has not, or not as often.
fn without<'l>(lines: &'l [String], others: &'l [String]) -> impl Iterator<Item = &'l str> {
    let mut left = BTreeMap::<&str, usize>::new();
    for line in others {
        *left.entry(line).or_default() += 1;
    }
    lines.iter().map(String::as_str).filter(move |line| match left.get_mut(*line) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_copy_is_unwanted_and_so_is_another_order() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let noted = |held: &str, wanted: &str| {
            let mut drift = Drift::default();
            drift.note("at", &lines(held), &lines(wanted));
            (drift.missing.join(","), drift.unwanted.join(","))
        };
        let said = |missing: &str, unwanted: &str| (missing.to_owned(), unwanted.to_owned());
        assert_eq!(noted("a b", "a b"), said("", ""));
        assert_eq!(noted("a b b", "a b"), said("", "at b"));
        assert_eq!(noted("a c", "a b"), said("at b", "at c"));
        assert_eq!(noted("b a", "a b"), said("", "at: the order of its rules"));
    }
}
