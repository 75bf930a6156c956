//! `tailpod proxy check`: whether a config file is one.

use std::path::PathBuf;

use clap::ValueHint;
use serde::Serialize;

use crate::causes::chain;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::proxy::config_source::{LoadError, read_once};

/// Which file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  tailpod proxy check config.hujson         Exit code 0 when k8s-proxy can use it, else 2 with line and column
  tailpod proxy check --json config.hujson  The same for programs")]
pub(super) struct Args {
    /// The config file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

/// What is found. Field names are contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Checked {
    file: String,
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    warnings: Vec<String>,
}

/// Checks it.
pub(super) fn run(args: &Args, out: &Output) -> anyhow::Result<ExitStatus> {
    let file = args.file.display().to_string();
    let mut checked = Checked { file, valid: true, line: None, column: None, error: None, warnings: Vec::new() };
    match read_once(&args.file) {
        Ok(loaded) => checked.warnings = loaded.warnings,
        Err(error) => {
            checked.valid = false;
            checked.error = Some(match &error {
                LoadError::Bad { source, .. } => {
                    (checked.line, checked.column) = (Some(source.place.line), Some(source.place.column));
                    source.reason.clone()
                }
                error => chain(error),
            });
        }
    }
    if out.is_json() {
        out.json(&checked)?;
    } else {
        tell(&checked, out)?;
    }
    Ok(if checked.valid { ExitStatus::Done } else { ExitStatus::Usage })
}

fn tell(checked: &Checked, out: &Output) -> anyhow::Result<()> {
    for warning in &checked.warnings {
        out.warning(format!("{}: {warning}", checked.file));
    }
    match (&checked.error, checked.line, checked.column) {
        (None, ..) => out.data(format!("{} is a config for k8s-proxy", checked.file)),
        (Some(error), Some(line), Some(column)) => {
            // The form that editors and CI systems turn into a link.
            out.error(format!("{}:{line}:{column}: {error}", checked.file));
            Ok(())
        }
        (Some(error), ..) => {
            out.error(error);
            Ok(())
        }
    }
}
