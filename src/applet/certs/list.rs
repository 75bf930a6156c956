//! `tailpod certs list`.

use jiff::Timestamp;
use serde::Serialize;

use super::around::Around;
use super::document::Format;
use super::{Common, Judging};
use crate::certs::listing::{Row, Source};
use crate::certs::places::Trouble;
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::table::{Column, Table};
use crate::settings::Vars;

/// What counts as bad.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "List every name that needs, may have or has a certificate, and how that stands.\n\n\
        STATUS is the first that holds of invalid, missing, expired, not-yet-valid, critical, renewal-due, not-allowed \
        and ok. Nothing is asked of the authority. With --exit-code the run ends with 0 when every certificate is ok or \
        renewal-due, 3 when one is worse, and 1 when a place cannot be read and nothing worse is known for sure.",
    after_long_help = "\
Examples:
  tailpod certs list                                      In a Pod, or beside a tailscaled
  tailpod certs list -n tailscale --proxy-group ingress   The shared certificates of a proxy group, from outside
  tailpod certs list --exit-code --crit-days 14 -q        For monitoring
  tailpod certs list --output yaml                        One document with everything that is known"
)]
pub(super) struct Args {
    #[command(flatten)]
    judging: Judging,

    /// Say by the exit code whether a certificate is worse than renewal-due
    #[arg(long)]
    exit_code: bool,
}

/// The `--json` contract.
#[derive(Serialize)]
struct Document<'a> {
    certificates: &'a [Row],
    warnings: &'a [String],
    unreadable: Vec<Unreadable<'a>>,
}

/// A place that could not be read.
#[derive(Serialize)]
pub(super) struct Unreadable<'a> {
    place: &'a str,
    error: &'a str,
}

impl<'a> Unreadable<'a> {
    pub(super) fn of(troubles: &'a [Trouble]) -> Vec<Self> {
        troubles.iter().map(|trouble| Self { place: &trouble.place, error: &trouble.error }).collect()
    }
}

/// Runs it.
pub(super) async fn run(
    args: &Args,
    common: &Common,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let format = Format::of(common, out)?;
    let around = Around::look(common, cluster, vars).await?;
    let rows = around.seen.found.rows(args.judging.critical(), Timestamp::now());
    around.say(out);
    let unreadable = Unreadable::of(&around.seen.troubles);
    let document = Document { certificates: &rows, warnings: &around.warnings, unreadable };
    if !format.write(&document, out)? {
        if rows.is_empty() {
            out.note("no name needs a certificate, and there are none");
        } else {
            out.data(table(&rows).render())?;
        }
    }
    Ok(if args.exit_code { status(&rows, !around.seen.troubles.is_empty()) } else { ExitStatus::Done })
}

fn status(rows: &[Row], has_gaps: bool) -> ExitStatus {
    let worse = || rows.iter().filter(|row| !row.status.is_fine());
    // What is not there may be in the place that could not be read.
    if worse().any(|row| row.source != Source::None) {
        ExitStatus::No
    } else if has_gaps {
        ExitStatus::Failed
    } else if worse().next().is_some() {
        ExitStatus::No
    } else {
        ExitStatus::Done
    }
}

fn table(rows: &[Row]) -> Table {
    let text = Column::Text;
    let mut table = Table::new(&[
        text("domain"),
        text("used-by"),
        text("source"),
        text("issuer"),
        text("not-after"),
        Column::Number("days"),
        text("status"),
        text("next-attempt"),
    ]);
    for row in rows {
        let dash = || "-".to_owned();
        table.row([
            row.domain.to_string(),
            if row.used_by.is_empty() { dash() } else { row.used_by.join(",") },
            row.source.as_str().to_owned(),
            row.issuer.clone().filter(|issuer| !issuer.is_empty()).unwrap_or_else(dash),
            row.not_after.map_or_else(dash, |at| at.to_string()),
            row.days.map_or_else(dash, |days| days.to_string()),
            row.status.as_str().to_owned(),
            row.next_attempt.map_or_else(dash, |at| format!("{at:.0}")),
        ]);
    }
    table
}
