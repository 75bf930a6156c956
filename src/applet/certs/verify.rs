//! `tailpod certs verify`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use serde::Serialize;

use super::around::Around;
use super::document::Format;
use super::{Common, name};
use crate::certs::names::Name;
use crate::certs::replicas::{self, HTTPS, Replica};
use crate::certs::verify::{Outcome, Tailnet, Verdict, Way, compare, look};
use crate::cli::cluster::{ClusterArgs, SecretRef, advised};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::cli::table::{Column, Table};
use crate::settings::Vars;

/// Which names, and where.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Shake hands with every replica and compare the certificate that it serves with the one that is kept.\n\n\
        Replicas are the addresses that tailscaled knows for the name: the node's own, or those of the Tailscale \
        Service, which lead to one replica at a time, and on a replica to itself. More are given with --address, or with \
        --service as the endpoints of a Kubernetes Service. Without a kept certificate, replicas are compared with the \
        newest that one of them serves. No private key is read. Exit code 0 when all serve the same, 3 when one serves \
        another, 1 when one cannot be reached.",
    after_long_help = "\
Examples:
  tailpod certs verify                                       Every name that is served
  tailpod certs verify shop.tail1.ts.net                     One of them
  tailpod certs verify shop.tail1.ts.net --address 10.0.0.7:8443 --address 10.0.0.8:8443
  tailpod certs verify shop.tail1.ts.net --service web/shop  Each endpoint of a Kubernetes Service"
)]
pub(super) struct Args {
    /// The name; without one, all that are served
    #[arg(value_name = "DOMAIN", value_parser = name)]
    domain: Option<Name>,

    /// An address where it is served, in place of those that tailscaled knows; may be given more than once
    #[arg(long = "address", value_name = "IP[:PORT]", value_parser = address)]
    addresses: Vec<SocketAddr>,

    /// A Kubernetes Service behind which it is served, in place of what tailscaled knows
    #[arg(long, value_name = "[NS/]NAME", conflicts_with = "addresses")]
    service: Option<SecretRef>,

    /// The serial number that ought to be served, in hex, in place of that of the kept certificate
    #[arg(long, value_name = "HEX", value_parser = serial, requires = "domain")]
    serial: Option<String>,
}

/// The `--json` contract.
#[derive(Serialize)]
struct Document<'a> {
    domains: &'a [Verdict],
    /// Names whose replicas are not known.
    unknown: &'a [Name],
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
    let names: Vec<Name> = match &args.domain {
        Some(domain) => vec![domain.clone()],
        None => around.seen.found.wanted.names.keys().filter(|name| !name.is_wildcard()).cloned().collect(),
    };
    if names.is_empty() {
        out.note("nothing that is served needs a certificate");
    }
    let tailnet = match &around.places.api {
        Some(api) => Tailnet::ask(api, common.limit()).await,
        None => None,
    };
    let way = match (&around.places.api, &tailnet) {
        (Some(api), Some(tailnet)) => tailnet.way(api),
        _ => Way::Kernel,
    };
    let given = given(args, &around).await?;
    let (mut verdicts, mut unknown) = (Vec::new(), Vec::new());
    for name in names {
        let replicas = given.clone().unwrap_or_else(|| {
            tailnet.as_ref().map(|known| known.replicas(&name, around.seen.config.as_ref())).unwrap_or_default()
        });
        if replicas.is_empty() {
            unknown.push(name);
            continue;
        }
        let kept = around.seen.found.kept.get(&name).and_then(|kept| kept.certificate.as_ref()?.as_ref().ok());
        let answers = look(&name, replicas, &way, common.limit()).await;
        let wanted = args.serial.as_deref().or(kept.map(|kept| kept.serial.as_str()));
        verdicts.push(compare(&name, wanted, kept, answers, Timestamp::now()));
    }
    if !format.write(&Document { domains: &verdicts, unknown: &unknown }, out)? && !verdicts.is_empty() {
        out.data(table(&verdicts).render())?;
    }
    advise(&verdicts, out);
    finish(args, &verdicts, &unknown)
}

fn finish(args: &Args, verdicts: &[Verdict], unknown: &[Name]) -> anyhow::Result<ExitStatus> {
    if verdicts.iter().any(Verdict::has_mismatch) {
        return Ok(ExitStatus::No);
    }
    if !unknown.is_empty() {
        let names = unknown.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
        let error = anyhow!("it is not known where {names} is served");
        let hint = if args.service.is_some() {
            "the Service has no endpoints: kubectl get endpointslices"
        } else {
            "name the replicas: `--address IP[:PORT]` for each, or `--service [NAMESPACE/]NAME`"
        };
        return Err(error.hint(hint));
    }
    Ok(if verdicts.iter().any(Verdict::has_gap) { ExitStatus::Failed } else { ExitStatus::Done })
}

fn advise(verdicts: &[Verdict], out: &Output) {
    let all = || verdicts.iter().flat_map(|verdict| &verdict.replicas);
    if all().any(|one| matches!(one.outcome, Outcome::Old | Outcome::Expired)) {
        out.hint("a replica that only reads looks for a new certificate once a day; starting its tailscaled anew makes it look now");
    }
    for one in all().filter(|one| one.outcome == Outcome::Unreachable) {
        out.warning(format!("{}: {}", one.address, one.error.as_deref().unwrap_or("no answer")));
    }
}

/// The replicas that the flags name.
async fn given(args: &Args, around: &Around) -> anyhow::Result<Option<Vec<Replica>>> {
    if !args.addresses.is_empty() {
        return Ok(Some(args.addresses.iter().map(|address| Replica { address: *address, host: None }).collect()));
    }
    let Some(service) = &args.service else { return Ok(None) };
    let cluster = around.places.cluster.as_ref().context("no way leads to a cluster that has the Service")?;
    let cluster = match &service.namespace {
        Some(namespace) => cluster.in_namespace(namespace),
        None => cluster.clone(),
    };
    let endpoints = cluster.endpoints(&service.name).await.map_err(advised);
    let endpoints = endpoints.with_context(|| format!("cannot find the endpoints of Service `{}`", service.name))?;
    Ok(Some(replicas::in_cluster(endpoints)))
}

fn table(verdicts: &[Verdict]) -> Table {
    let columns = ["domain", "address", "replica", "serial", "not-after", "result"].map(Column::Text);
    let mut table = Table::new(&columns);
    for verdict in verdicts {
        for one in &verdict.replicas {
            let dash = || "-".to_owned();
            table.row([
                verdict.domain.to_string(),
                one.address.to_string(),
                one.replica.clone().unwrap_or_else(dash),
                one.serial.clone().unwrap_or_else(dash),
                one.not_after.map_or_else(dash, |at| at.to_string()),
                one.outcome.as_str().to_owned(),
            ]);
        }
    }
    table
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, HTTPS));
    ip.or_else(|_| text.parse()).map_err(|_| "an address is `IP` or `IP:PORT`, IPv6 with a port in brackets".to_owned())
}

/// As certificates are read here: whole bytes without colons, and none that is zero in front.
fn serial(text: &str) -> Result<String, String> {
    let hex: String = text.chars().filter(|c| *c != ':').map(|c| c.to_ascii_lowercase()).collect();
    let bare = hex.trim_start_matches('0');
    if bare.is_empty() || !bare.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("a serial number is hexadecimal, with or without colons".to_owned());
    }
    Ok(if bare.len().is_multiple_of(2) { bare.to_owned() } else { format!("0{bare}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_port_443_unless_they_say() {
        let shown = |text: &str| address(text).map(|address| address.to_string());
        assert_eq!(shown("10.0.0.1"), Ok("10.0.0.1:443".to_owned()));
        assert_eq!(shown("10.0.0.1:8443"), Ok("10.0.0.1:8443".to_owned()));
        assert_eq!(shown("fd00::1"), Ok("[fd00::1]:443".to_owned()));
        assert_eq!(shown("[fd00::1]"), Ok("[fd00::1]:443".to_owned()));
        assert_eq!(shown("[fd00::1]:1"), Ok("[fd00::1]:1".to_owned()));
        assert!(address("host:443").is_err());
    }

    #[test]
    fn serial_numbers_are_read_as_others_print_them() {
        assert_eq!(serial("00:AB:01").as_deref(), Ok("ab01"));
        assert_eq!(serial("00:0A:B1").as_deref(), Ok("0ab1"));
        assert!(serial("").is_err() && serial("xyz").is_err() && serial("0").is_err());
    }
}
