//! `tailpod certs budget`.

use jiff::Timestamp;
use serde::Serialize;

use super::around::Around;
use super::document::Format;
use super::list::Unreadable;
use super::{Common, name};
use crate::certs::budget::{Entry, Kind, Left};
use crate::certs::names::Name;
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::table::{Column, Table};
use crate::settings::Vars;

/// Whose limits.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Show what is left of Let's Encrypt's published limits, and when there is more.\n\n\
        Counted are the orders that were made through tailpod here; what others ordered for the same tailnet nobody but \
        the authority knows, so it may be less. A renewal does not count against the registered domain. An order that was \
        broken off counts as one, and as no certificate, although the authority may have issued it.",
    after_long_help = "\
Examples:
  tailpod certs budget                              For every name that is served or was ordered lately
  tailpod certs budget --domain shop.tail1.ts.net   For one more
  tailpod certs budget --exit-code -q || echo wait  Whether anything is used up"
)]
pub(super) struct Args {
    /// A name to add to those that are served or were ordered lately; may be given more than once
    #[arg(long = "domain", value_name = "DOMAIN", value_parser = name)]
    domains: Vec<Name>,

    /// End with 3 when a limit is used up, with 1 when the notes cannot be read
    #[arg(long)]
    exit_code: bool,
}

/// The `--json` contract.
#[derive(Serialize)]
struct Document<'a> {
    limits: &'a [Left],
    orders: &'a [Entry],
    unreadable: Vec<Unreadable<'a>>,
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
    around.say(out);
    let ledger = &around.seen.ledger;
    let names = around.seen.found.wanted.names.keys().chain(&args.domains);
    let limits = ledger.left(names, Timestamp::now());
    let unreadable = Unreadable::of(&around.seen.troubles);
    if !format.write(&Document { limits: &limits, orders: ledger.entries(), unreadable }, out)? {
        out.data(table(&limits).render())?;
        if ledger.entries().is_empty() {
            out.note("no order is noted: what was ordered otherwise counts at the authority all the same");
        }
        let broken_off = ledger.entries().iter().filter(|order| order.kind == Kind::BrokenOff).count();
        if broken_off > 0 {
            out.note(format!(
                "orders that were broken off, so that there may be a certificate that nobody has: {broken_off}"
            ));
        }
    }
    let used_up = limits.iter().any(|limit| limit.left == 0);
    Ok(match (args.exit_code, used_up, around.seen.troubles.is_empty()) {
        (true, true, _) => ExitStatus::No,
        (true, false, false) => ExitStatus::Failed,
        (true, false, true) | (false, ..) => ExitStatus::Done,
    })
}

fn table(limits: &[Left]) -> Table {
    let (text, number) = (Column::Text, Column::Number);
    let mut table = Table::new(&[text("limit"), text("subject"), number("left"), number("of"), text("one-more-at")]);
    for limit in limits {
        table.row([
            limit.limit.to_owned(),
            limit.subject.clone().unwrap_or_else(|| "-".to_owned()),
            limit.left.to_string(),
            limit.of.to_string(),
            limit.next_at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}")),
        ]);
    }
    table
}
