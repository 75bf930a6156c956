//! Collects problems instead of stopping at the first.
//!
//! A value that could not be read is a [`Reported`], which exists only because a problem was recorded: `?` cannot
//! lose one, and [`Reader::finish`] cannot succeed with one recorded.

use std::time::Duration;

use super::problem::{Problem, Problems};
use super::source::Vars;
use super::vars::{self, Rule, Var};
use super::{Note, NoteLevel, Persona, parse};
use crate::secret::redact;

/// Proof that a problem was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported(());

/// Reads variables, and remembers what is wrong with them.
pub struct Reader<'v> {
    vars: &'v dyn Vars,
    persona: Persona,
    notes: Vec<Note>,
    problems: Vec<Problem>,
    /// Problems that upstream does not know; they stand after its own.
    late: Vec<Problem>,
}

impl<'v> Reader<'v> {
    /// A reader with nothing recorded.
    pub fn new(vars: &'v dyn Vars, persona: Persona) -> Self {
        Self { vars, persona, notes: Vec::new(), problems: Vec::new(), late: Vec::new() }
    }

    /// Which words apply.
    pub fn persona(&self) -> Persona {
        self.persona
    }

    /// Records a problem.
    pub fn report(&mut self, problem: Problem) -> Reported {
        self.problems.push(problem);
        Reported(())
    }

    /// Records a problem that stands after all of upstream's.
    pub fn report_late(&mut self, problem: Problem) -> Reported {
        self.late.push(problem);
        Reported(())
    }

    /// Whether a problem has been recorded.
    pub fn has_problems(&self) -> bool {
        !self.problems.is_empty() || !self.late.is_empty()
    }

    /// Remembers a line to log.
    pub fn note(&mut self, level: NoteLevel, text: impl Into<String>) {
        self.notes.push(Note { level, text: redact(&text.into()) });
    }

    /// The value; unset and empty differ. A value that is not UTF-8 is a problem and reads as unset.
    pub fn text_or_unset(&mut self, var: &Var) -> Option<String> {
        if let Ok(value) = self.vars.get(var.name) {
            return value;
        }
        let problem = Problem::once(format!("the value of {} is not UTF-8", var.name));
        if !self.late.contains(&problem) {
            self.report_late(problem);
        }
        None
    }

    /// The value; `None` when unset or empty.
    pub fn text(&mut self, var: &Var) -> Option<String> {
        self.text_or_unset(var).filter(|text| !text.is_empty())
    }

    /// The value; the default of the table when unset or empty.
    pub fn text_or_default(&mut self, var: &Var) -> String {
        self.text(var).unwrap_or_else(|| var.default.to_owned())
    }

    /// A boolean; the table's default when unset, empty or not a boolean ([`Self::doubts`] speaks of the last).
    pub fn boolean(&mut self, var: &Var) -> bool {
        self.boolean_or_unset(var).unwrap_or(var.default == "true")
    }

    /// A boolean; `None` when unset, empty or not a boolean.
    pub fn boolean_or_unset(&mut self, var: &Var) -> Option<bool> {
        self.text(var).as_deref().and_then(parse::boolean)
    }

    /// A duration; the table's default when unset or empty, `ZERO` (an expired deadline) when zero or negative.
    ///
    /// `problem` makes the problem from the text and the reason.
    pub fn duration(
        &mut self,
        var: &Var,
        problem: impl FnOnce(&str, &parse::DurationError) -> Problem,
    ) -> Result<Duration, Reported> {
        let text = self.text_or_default(var);
        parse::duration(&text).map(parse::GoDuration::deadline).map_err(|error| self.report(problem(&text, &error)))
    }

    /// A number; `None` when unset or empty.
    pub fn number(&mut self, var: &Var) -> Result<Option<u32>, Reported> {
        let Some(text) = self.text(var) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| self.report_late(Problem::once(format!("{}={text:?}: not a whole number", var.name))))
    }

    /// One of the texts of the variable's rule; the default when unset or empty.
    pub fn one_of(&mut self, var: &'static Var) -> Result<&'static str, Reported> {
        let Rule::OneOf(texts) = var.rule else { return Ok(var.default) };
        let Some(text) = self.text(var) else { return Ok(var.default) };
        texts.iter().find(|known| **known == text).copied().ok_or_else(|| {
            self.report_late(Problem::once(format!("{}={text:?}: expected {}", var.name, texts.join(" or "))))
        })
    }

    /// Speaks of every boolean that is none and every name that looks mistyped (W24): as warnings, or, with
    /// `TAILPOD_STRICT=true` as `tailpod boot`, as problems.
    pub fn doubts(&mut self) {
        let strict = self.boolean(vars::TAILPOD_STRICT) && self.persona == Persona::Tailpod;
        let mut doubts = Vec::new();
        for var in vars::VARS {
            let Ok(Some(value)) = self.vars.get(var.name) else { continue };
            doubts.extend(doubt(var, &value));
        }
        let mut names = self.vars.names();
        names.sort_unstable();
        for name in names {
            if let Some(meant) = vars::meant(&name) {
                doubts.push(format!("{name} is not a known variable; the nearest name is {meant}"));
            }
        }
        for doubt in doubts {
            if strict {
                self.report_late(Problem::once(doubt));
            } else {
                self.note(NoteLevel::Warning, doubt);
            }
        }
    }

    /// The value and the notes, or all problems. `build` may return a [`Reported`] it was given.
    ///
    /// # Panics
    /// Never: a `Reported` exists only when a problem was recorded.
    pub fn finish<T>(mut self, build: impl FnOnce(Vec<Note>) -> Result<T, Reported>) -> Result<T, Problems> {
        self.problems.append(&mut self.late);
        if let Some(problems) = Problems::new(self.persona, self.problems, self.notes.clone()) {
            return Err(problems);
        }
        Ok(build(self.notes).expect("a Reported exists only when a problem was recorded"))
    }
}

/// What is doubtful about a value that the contract nevertheless accepts.
fn doubt(var: &Var, value: &str) -> Option<String> {
    match var.rule {
        Rule::Bool | Rule::BoolOrUnset if !value.is_empty() && parse::boolean(value).is_none() => Some(format!(
            "{}={value:?} is not a boolean and counts as {}; accepted are {}",
            var.name,
            var.default,
            parse::BOOLEANS.map(|(text, _)| text).join(" ")
        )),
        Rule::Exactly(only) if value != only && !value.is_empty() && parse::boolean(value) != Some(false) => {
            Some(format!("{}={value:?} has no effect; only the exact text {only:?} counts", var.name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_reported_problem_makes_finish_fail() {
        let vars = BTreeMap::from([("TAILPOD_CAPVER", "many")]);
        let mut read = Reader::new(&vars, Persona::Tailpod);
        let number = read.number(vars::TAILPOD_CAPVER);
        assert!(number.is_err());
        let problems = read.finish(|_| number.map(|_| ())).expect_err("a problem was recorded");
        assert_eq!(problems.lines(), [r#"invalid configuration: TAILPOD_CAPVER="many": not a whole number"#]);
    }

    #[test]
    fn late_problems_stand_behind_upstreams() {
        let vars: BTreeMap<&str, &str> = BTreeMap::new();
        let mut read = Reader::new(&vars, Persona::Tailpod);
        read.report_late(Problem::once("ours"));
        read.report(Problem::rule("theirs"));
        let problems = read.finish(|_| Ok(())).expect_err("two problems");
        assert_eq!(problems.lines(), ["invalid configuration: theirs", "invalid configuration: ours"]);
    }

    #[test]
    fn a_value_that_is_not_utf8_is_a_problem_once() {
        use std::os::unix::ffi::OsStringExt as _;
        let env: super::super::ProcessEnv =
            [("TS_HOSTNAME".into(), std::ffi::OsString::from_vec(vec![b'a', 0xff]))].into_iter().collect();
        let mut read = Reader::new(&env, Persona::Containerboot);
        assert_eq!(read.text(vars::TS_HOSTNAME), None);
        assert_eq!(read.text(vars::TS_HOSTNAME), None);
        let problems = read.finish(|_| Ok(())).expect_err("one problem");
        assert_eq!(problems.lines(), ["invalid configuration: the value of TS_HOSTNAME is not UTF-8"]);
    }
}
