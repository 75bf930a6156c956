//! A question to the person at the terminal. Whoever is not at one is told the flag that answers it.

use std::io::IsTerminal;

use anyhow::{Context, anyhow};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::exit::ExitStatus;
use super::output::Output;
use super::report::Advise;

/// Asks a question that `y` or `yes` agrees to; anything else, and the end of input, declines. Cancelling this future
/// leaves the terminal as it is.
///
/// # Errors
/// Exit code 2 when standard input or standard error is not a terminal: then `--yes` has to answer.
pub async fn confirm(out: &Output, question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() || !out.may_ask() {
        let error = anyhow!("there is nobody to ask: standard input or standard error is not a terminal");
        return Err(error.hint("`--yes` goes on without asking").exit_with(ExitStatus::Usage));
    }
    out.prompt(format!("{question} [y/N]"));
    let mut answer = String::new();
    BufReader::new(tokio::io::stdin()).read_line(&mut answer).await.context("cannot read the answer")?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for yes in ["y\n", "Y", " yes \r\n", "YES\n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "no", "yess", "ye"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
