//! What is wrong with the environment, said in the words of the persona.
//!
//! [`Problems`] is never empty, keeps upstream's order, and renders one line for each problem: the first line is
//! the one upstream would have stopped at.

use std::fmt;

use super::{Note, Persona};
use crate::secret::redact;

/// The words every line about settings starts with.
const PREFIX: &str = "invalid configuration: ";

/// One thing that is wrong. Its words quote what the variables hold, and a key may be in the wrong one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    wrapped: Wrapped,
    contract: String,
    precise: Option<String>,
    hint: Option<String>,
}

/// How often upstream prints [`PREFIX`] before a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrapped {
    /// Never: it stops before validation.
    None,
    /// Rule 0, and problems that only we find.
    Once,
    /// Rules 1 to 27: upstream's wrapping doubles it.
    Twice,
}

impl Problem {
    /// Upstream's rule 1 to 27 with this text.
    pub fn rule(text: impl Into<String>) -> Self {
        Self::new(Wrapped::Twice, &text.into())
    }

    /// Upstream's rule 0, or a problem that only we find.
    pub fn once(text: impl Into<String>) -> Self {
        Self::new(Wrapped::Once, &text.into())
    }

    /// A failure that upstream reports before it validates anything.
    pub fn bare(text: impl Into<String>) -> Self {
        Self::new(Wrapped::None, &text.into())
    }

    fn new(wrapped: Wrapped, contract: &str) -> Self {
        Self { wrapped, contract: redact(contract), precise: None, hint: None }
    }

    /// What `tailpod boot` says instead of upstream's text.
    #[must_use]
    pub fn precisely(mut self, text: impl Into<String>) -> Self {
        self.precise = Some(redact(&text.into()));
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(redact(&text.into()));
        self
    }

    /// The line to print.
    pub fn line(&self, persona: Persona) -> String {
        match (persona, self.wrapped) {
            (Persona::Containerboot, Wrapped::None) => self.contract.clone(),
            (Persona::Containerboot, Wrapped::Once) => format!("{PREFIX}{}", self.contract),
            (Persona::Containerboot, Wrapped::Twice) => format!("{PREFIX}{PREFIX}{}", self.contract),
            (Persona::Tailpod, _) => format!("{PREFIX}{}", self.precise.as_ref().unwrap_or(&self.contract)),
        }
    }

    /// What to do about it, when there is something to say.
    pub fn remedy(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// All problems of one environment; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    persona: Persona,
    /// Not empty.
    list: Vec<Problem>,
    notes: Vec<Note>,
}

impl Problems {
    /// `None` when the list is empty.
    pub(super) fn new(persona: Persona, list: Vec<Problem>, notes: Vec<Note>) -> Option<Self> {
        (!list.is_empty()).then_some(Self { persona, list, notes })
    }

    /// The problems, in upstream's order.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// One line for each problem, in the persona's words.
    pub fn lines(&self) -> Vec<String> {
        self.iter().map(|problem| problem.line(self.persona)).collect()
    }

    /// The remedies, without repetition.
    pub fn hints(&self) -> Vec<&str> {
        let mut hints = Vec::new();
        for hint in self.iter().filter_map(Problem::remedy) {
            if !hints.contains(&hint) {
                hints.push(hint);
            }
        }
        hints
    }

    /// What was noticed before the first problem stopped the reading: log it first.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

impl fmt::Display for Problems {
    /// The lines; as `tailpod boot`, then a blank line and the hints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))?;
        let hints = self.hints();
        if self.persona == Persona::Tailpod && !hints.is_empty() {
            f.write_str("\n")?;
            for hint in hints {
                write!(f, "\nhint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_persona_has_its_words() {
        let rule = Problem::rule("A and B").precisely("A and C").hint("keep A");
        assert_eq!(rule.line(Persona::Containerboot), "invalid configuration: invalid configuration: A and B");
        assert_eq!(rule.line(Persona::Tailpod), "invalid configuration: A and C");
        assert_eq!(Problem::once("x").line(Persona::Containerboot), "invalid configuration: x");
        assert_eq!(Problem::bare("x").line(Persona::Containerboot), "x");
        assert_eq!(Problem::bare("x").line(Persona::Tailpod), "invalid configuration: x");
    }

    #[test]
    fn all_lines_then_each_hint_once() {
        let list = vec![Problem::rule("a").hint("mend it"), Problem::rule("b").hint("mend it")];
        let problems = Problems::new(Persona::Tailpod, list, Vec::new()).expect("two problems");
        assert_eq!(problems.to_string(), "invalid configuration: a\ninvalid configuration: b\n\nhint: mend it");
        assert!(Problems::new(Persona::Tailpod, Vec::new(), Vec::new()).is_none());
    }
}
