//! `tailpod certs show`.

use std::fmt::Write as _;

use anyhow::anyhow;
use jiff::Timestamp;
use serde::Serialize;

use super::around::Around;
use super::document::Format;
use super::list::Unreadable;
use super::{Common, Judging, name};
use crate::certs::chain::certificates_only;
use crate::certs::listing::Row;
use crate::certs::names::{Name, nearest};
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::settings::Vars;

/// Column of the values, as `kubectl describe` has one.
const INDENT: usize = 14;

/// Which one, and how much of it.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Show everything that is known of one name's certificate.\n\n\
        The private key is never shown. Exit code 3 when nobody knows the name.",
    after_long_help = "\
Examples:
  tailpod certs show shop.tail1.ts.net
  tailpod certs show shop.tail1.ts.net --pem | openssl x509 -noout -text
  tailpod certs show shop.tail1.ts.net --json | jq .status"
)]
pub(super) struct Args {
    /// The name
    #[arg(value_name = "DOMAIN", value_parser = name)]
    domain: Name,

    /// The certificate chain as well
    #[arg(long)]
    pem: bool,

    #[command(flatten)]
    judging: Judging,
}

/// The `--json` contract.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    row: &'a Row,
    #[serde(skip_serializing_if = "Option::is_none")]
    pem: Option<&'a str>,
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
    let found = &around.seen.found;
    let names = found.names();
    if !names.contains(&args.domain) {
        let error = anyhow!("nobody knows `{}`: it is not served, not allowed, and has no certificate", args.domain);
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let hint = match nearest(args.domain.as_str(), &names) {
            Some(other) => format!("is it `{other}`?"),
            None => "`tailpod certs list` shows what there is".to_owned(),
        };
        return Err(error.hint(hint).exit_with(ExitStatus::No));
    }
    let row = found.row(args.domain.clone(), args.judging.critical(), Timestamp::now());
    let pem =
        found.kept.get(&args.domain).and_then(|kept| kept.chain.as_deref()).filter(|_| args.pem).map(certificates_only);
    let unreadable = Unreadable::of(&around.seen.troubles);
    if !format.write(&Document { row: &row, pem: pem.as_deref(), unreadable }, out)? {
        out.data(text(&row))?;
        if let Some(pem) = pem.filter(|pem| !pem.is_empty()) {
            out.data(format_args!("\n{pem}"))?;
        }
    }
    Ok(ExitStatus::Done)
}

fn text(row: &Row) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            // A value is one line, whatever is in it; writing to a String cannot fail.
            let value = value.replace('\n', "\\n").replace('\t', "\\t");
            let _ = writeln!(text, "{:INDENT$}{value}", format!("{label}:"));
        }
    };
    let or_nothing = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let yes_no = |value: Option<bool>, yes: &str, no: &str| match value {
        None => String::new(),
        Some(true) => yes.to_owned(),
        Some(false) => no.to_owned(),
    };
    let problem = row.problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
    line("Domain", row.domain.as_str());
    line("Status", &format!("{}{problem}", row.status.as_str()));
    line("Used by", &row.used_by.join(", "));
    line("Allowed", &yes_no(row.allowed, "yes", "no: the tailnet does not let this node have it"));
    line("Source", row.source.as_str());
    line("Issuer", &or_nothing(row.issuer.as_deref()));
    line("Serial", &or_nothing(row.serial.as_deref()));
    line("SHA-256", &or_nothing(row.fingerprint_sha256.as_deref()));
    line("Not before", &row.not_before.map(|at| at.to_string()).unwrap_or_default());
    let days = row.days.map(|days| format!(" ({days} days left)")).unwrap_or_default();
    line("Not after", &row.not_after.map(|at| format!("{at}{days}")).unwrap_or_default());
    line("Names", &row.sans.join(", "));
    line("Chain", &row.chain_length.map(|count| format!("{count} certificates")).unwrap_or_default());
    line("Key", &yes_no(row.key_matches, "matches", "another one's"));
    line("Account", &yes_no(row.account_matches, "the present one", "not the present one"));
    line("Next attempt", &row.next_attempt.map(|at| format!("{at:.0}")).unwrap_or_default());
    if row.failures > 0 {
        line("Failures", &row.failures.to_string());
    }
    line("Last error", &or_nothing(row.last_error.as_deref()));
    text
}
