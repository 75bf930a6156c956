//! The only writer to stdout and stderr besides the log.
//!
//! [`Output`] is built once from the flags and the terminal, and passed down: stdout is data, stderr is conversation.
//! A reader that goes away ends the run quietly ([`ReaderGone`]); text from outside is escaped before it reaches a
//! person, never in `--json`, where the encoding does it.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::exit::ExitStatus;
use super::report::Report;
use crate::escape::escape;

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Even through a pipe.
    Always,
    /// Never.
    Never,
}

/// What the surroundings say about the streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings {
    /// Whether stdout is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether stderr is a terminal.
    pub stderr_is_terminal: bool,
    /// Whether `NO_COLOR` is set to something, or the terminal is `dumb`.
    pub plain: bool,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let plain = std::env::vars_os()
            .any(|(name, value)| (name == "NO_COLOR" && !value.is_empty()) || (name == "TERM" && value == "dumb"));
        Self { stdout_is_terminal: io::stdout().is_terminal(), stderr_is_terminal: io::stderr().is_terminal(), plain }
    }

    fn color_on(self, color: Color, is_terminal: bool) -> bool {
        match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => is_terminal && !self.plain,
        }
    }
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For people: tables and sentences.
    Text,
    /// One JSON document, or one object per line.
    Json,
}

/// How much is said on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    /// Errors and hints only.
    Quiet,
    /// Everything.
    Normal,
}

/// Whoever read our output went away. The run is over, and it is a success.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the reader of the output went away")]
pub struct ReaderGone;

/// The streams, with every decision about them already made.
pub struct Output {
    style: Style,
    talk: Talk,
    stdout_color: bool,
    stderr_color: bool,
    surroundings: Surroundings,
}

/// The few colours there are. Understandable without them: each only repeats what the words say.
#[derive(Clone, Copy, Debug)]
pub enum Ink {
    /// Errors.
    Red,
    /// Warnings.
    Yellow,
    /// Hints and names.
    Cyan,
    /// Done.
    Green,
    /// Headings.
    Bold,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Red => "\x1b[1;31m",
            Self::Yellow => "\x1b[1;33m",
            Self::Cyan => "\x1b[36m",
            Self::Green => "\x1b[32m",
            Self::Bold => "\x1b[1m",
        }
    }
}

// === impl Output ===

impl Output {
    /// Decides everything once.
    pub fn new(color: Color, style: Style, talk: Talk, surroundings: Surroundings) -> Self {
        let json = style == Style::Json;
        Self {
            style,
            talk,
            stdout_color: !json && surroundings.color_on(color, surroundings.stdout_is_terminal),
            stderr_color: surroundings.color_on(color, surroundings.stderr_is_terminal),
            surroundings,
        }
    }

    /// Whether results are JSON.
    pub fn is_json(&self) -> bool {
        self.style == Style::Json
    }

    /// Whether a person may watch something move on stderr.
    pub fn shows_progress(&self) -> bool {
        self.surroundings.stderr_is_terminal
            && !self.surroundings.plain
            && self.talk == Talk::Normal
            && self.style == Style::Text
    }

    /// Whether stdout goes to a person's terminal, as opposed to a pipe or file.
    pub fn is_terminal(&self) -> bool {
        self.surroundings.stdout_is_terminal
    }

    /// Whether a person sees what is said on stderr, and so can be asked something.
    pub fn may_ask(&self) -> bool {
        self.surroundings.stderr_is_terminal
    }

    /// Writes lines of data for people to stdout, escaped.
    ///
    /// # Errors
    /// [`ReaderGone`] when the pipe is closed; other I/O errors as they are.
    pub fn data(&self, text: impl Display) -> anyhow::Result<()> {
        to_stdout(&line(&escape(&text.to_string())))
    }

    /// Writes ready-made text to stdout byte by byte: generated files, help. It must not hold text from outside.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn raw(&self, text: &str) -> anyhow::Result<()> {
        to_stdout(text)
    }

    /// Writes bytes as they are to stdout, which is a pipe or a file.
    ///
    /// # Errors
    /// As [`Output::data`].
    pub fn bytes(&self, bytes: &[u8]) -> anyhow::Result<()> {
        bytes_to_stdout(bytes)
    }

    /// Writes one JSON document to stdout: indented on a terminal, one line in a pipe.
    ///
    /// # Errors
    /// As [`Output::data`]; also when `document` cannot be encoded.
    pub fn json(&self, document: &impl Serialize) -> anyhow::Result<()> {
        let encoded = if self.surroundings.stdout_is_terminal {
            serde_json::to_string_pretty(document)?
        } else {
            serde_json::to_string(document)?
        };
        to_stdout(&line(&encoded))
    }

    /// Writes one JSON object of a stream to stdout: always one line.
    ///
    /// # Errors
    /// As [`Output::json`].
    pub fn json_line(&self, object: &impl Serialize) -> anyhow::Result<()> {
        to_stdout(&line(&serde_json::to_string(object)?))
    }

    /// Asks something on stderr; the cursor stays behind it.
    pub fn prompt(&self, question: impl Display) {
        to_stderr(&format!("{} ", escape(&question.to_string())));
    }

    /// Says something in passing on stderr.
    pub fn note(&self, text: impl Display) {
        if self.talk == Talk::Normal {
            to_stderr(&line(&escape(&text.to_string())));
        }
    }

    /// Says on stderr that something is done.
    pub fn done(&self, text: impl Display) {
        if self.talk == Talk::Normal {
            let text = text.to_string();
            to_stderr(&line(&paint(self.stderr_color, Ink::Green, &escape(&text))));
        }
    }

    /// Warns on stderr.
    pub fn warning(&self, text: impl Display) {
        if self.talk == Talk::Normal {
            self.labelled(Ink::Yellow, "warning:", &text.to_string());
        }
    }

    /// Says on stderr what to do.
    pub fn hint(&self, text: impl Display) {
        self.labelled(Ink::Cyan, "hint:", &text.to_string());
    }

    /// Says on stderr what is wrong. For failures that end the run, return an error instead.
    pub fn error(&self, text: impl Display) {
        self.labelled(Ink::Red, "error:", &text.to_string());
    }

    /// Says on stderr what failed, why, and what to do, and returns how the process ends.
    pub fn report(&self, error: &anyhow::Error) -> ExitStatus {
        let Some(report) = Report::of(error) else { return ExitStatus::Done };
        self.error(&report.message);
        for hint in &report.hints {
            self.hint(hint);
        }
        report.status
    }

    /// Says on stderr how the command line is wrong. `text` starts with `error: `.
    pub fn usage_error(&self, text: &str) {
        self.labelled(Ink::Red, "error:", text.strip_prefix("error: ").unwrap_or(text));
    }

    /// Shows help on stderr, because nothing was asked for.
    pub fn help_instead(&self, text: &str) {
        to_stderr(&line(text));
    }

    /// Whether stdout has colours.
    pub fn has_color(&self) -> bool {
        self.stdout_color
    }

    /// `text` in colour when stdout has colours. The text is escaped first.
    pub fn ink(&self, ink: Ink, text: &str) -> String {
        paint(self.stdout_color, ink, &escape(text))
    }

    fn labelled(&self, ink: Ink, label: &str, text: &str) {
        to_stderr(&line(&format!("{} {}", paint(self.stderr_color, ink, label), escape(text))));
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("style", &self.style).field("talk", &self.talk).finish_non_exhaustive()
    }
}

fn paint(color: bool, ink: Ink, text: &str) -> String {
    if color { format!("{}{text}\x1b[0m", ink.code()) } else { text.to_owned() }
}

fn line(text: &str) -> String {
    let mut line = text.to_owned();
    if !line.ends_with('\n') {
        line.push('\n');
    }
    line
}

fn to_stdout(text: &str) -> anyhow::Result<()> {
    bytes_to_stdout(text.as_bytes())
}

fn bytes_to_stdout(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

fn to_stderr(text: &str) {
    // There is nowhere left to say that stderr is gone.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_follows_flag_then_environment_then_terminal() {
        let terminal = Surroundings { stdout_is_terminal: true, stderr_is_terminal: true, plain: false };
        let pipe = Surroundings::default();
        let plain = Surroundings { plain: true, ..terminal };
        let color = |color, surroundings| Output::new(color, Style::Text, Talk::Normal, surroundings).stdout_color;
        assert!(color(Color::Auto, terminal));
        assert!(!color(Color::Auto, pipe));
        assert!(!color(Color::Auto, plain));
        assert!(color(Color::Always, plain));
        assert!(!color(Color::Never, terminal));
    }

    #[test]
    fn json_is_never_coloured_and_never_moves() {
        let terminal = Surroundings { stdout_is_terminal: true, stderr_is_terminal: true, plain: false };
        let output = Output::new(Color::Always, Style::Json, Talk::Normal, terminal);
        assert_eq!(output.ink(Ink::Red, "x"), "x");
        assert!(!output.shows_progress());
    }

    #[test]
    fn progress_needs_a_terminal_on_stderr_and_a_listener() {
        let shows = |stderr_is_terminal, plain, talk| {
            let surroundings = Surroundings { stdout_is_terminal: false, stderr_is_terminal, plain };
            Output::new(Color::Auto, Style::Text, talk, surroundings).shows_progress()
        };
        assert!(shows(true, false, Talk::Normal));
        assert!(!shows(false, false, Talk::Normal));
        assert!(!shows(true, true, Talk::Normal));
        assert!(!shows(true, false, Talk::Quiet));
    }

    #[test]
    fn ink_escapes_what_it_paints() {
        let output = Output::new(Color::Always, Style::Text, Talk::Normal, Surroundings::default());
        assert_eq!(output.ink(Ink::Cyan, "a\x1b[2Jb"), "\x1b[36ma\\u{1b}[2Jb\x1b[0m");
    }
}
