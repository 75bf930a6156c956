//! `tailpod certs issue`: one certificate, now, with every check that the manager makes.

use std::cell::Cell;
use std::convert::Infallible;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::ValueHint;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Common;
use super::around::Around;
use super::document::Format;
use super::place::{Place, Storage};
use crate::applet::healthcheck::limit;
use crate::certs::book::Book;
use crate::certs::budget::Kind;
use crate::certs::chain::{Certificate, split_pair};
use crate::certs::failure::{Class, Failure};
use crate::certs::names::{Name, nearest};
use crate::certs::schedule::{Growth, Schedule, check_min_validity};
use crate::certs::world::{Role, World};
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::progress;
use crate::cli::report::Advise;
use crate::localapi::follow::{Wants, follow};
use crate::localapi::model::Model;
use crate::localapi::types::TLS_CERT_PENDING;
use crate::localapi::{BusEvent, Error, LocalApi};
use crate::secret::Secret;
use crate::settings::Vars;
use crate::shutdown::Signals;

/// tailscaled may work on an order for so long.
const ORDER: Duration = Duration::from_secs(30 * 60);
/// For what has to be noted of an order that was broken off.
const NOTE: Duration = Duration::from_secs(3);
/// Between looks at what the tailnet allows.
const LOOK: Duration = Duration::from_secs(5);

/// Which name, and how.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Have tailscaled get or renew one certificate.\n\n\
        Checks first what would make the order futile: whether the tailnet allows the name, whether the result could be \
        stored, whether the authority's limits leave room, and whether the manager has reasons to wait. Then tailscaled \
        is asked, and what it gives is compared with what was there. Interrupted, the order is given up. The private key \
        is written nowhere but to --write-key.",
    after_long_help = "\
Examples:
  tailpod certs issue shop.tail1.ts.net --dry-run     All checks, no order
  tailpod certs issue shop.tail1.ts.net --wait        Wait until the tailnet allows the name
  tailpod certs issue shop.tail1.ts.net --min-validity 720h
                                                      Renew it if less than 30 days are left"
)]
pub(super) struct Args {
    /// The name
    #[arg(value_name = "DOMAIN", value_parser = super::name)]
    domain: Name,

    /// Renew what is valid for less than this, as a Go duration [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    min_validity: Option<Duration>,

    /// Wait until the tailnet allows the name
    #[arg(long)]
    wait: bool,

    /// Ask although earlier failures say to wait
    #[arg(long)]
    force: bool,

    /// Make all checks and ask nobody for a certificate
    #[arg(long)]
    dry_run: bool,

    /// Write the chain to FILE
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    write_cert: Option<PathBuf>,

    /// Write the private key to FILE, for its owner alone
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    write_key: Option<PathBuf>,
}

/// What became of it: a `--json` contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    domain: &'a Name,
    /// `checked`, `issued`, `renewed`, `unchanged` or `renewing`.
    outcome: &'static str,
    old_serial: Option<String>,
    old_not_after: Option<Timestamp>,
    serial: Option<String>,
    not_after: Option<Timestamp>,
}

/// Runs it.
pub(super) async fn run(
    args: &Args,
    common: &Common,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    signals: &mut Signals,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let look = async {
        Ok::<_, anyhow::Error>((Around::look(common, cluster, vars).await?, Place::find(common, cluster, vars).await?))
    };
    let (around, place) = tokio::select! {
        biased;
        found = look => found?,
        signal = signals.next() => return super::interrupted(signal),
    };
    let kept = around.seen.found.kept.get(&args.domain);
    let old = kept.and_then(|kept| kept.certificate.as_ref()?.as_ref().ok()).cloned();
    if place.role == Role::Reader {
        return Err(anyhow!(
            "this replica is not the writer: by POD_NAME and TAILPOD_CERT_WRITER it only reads \
                            certificates"
        ));
    }
    match &place.storage {
        Storage::Shared(world) => until_stopped(args, common, &place.api, world, old, signals, out).await,
        Storage::Own(world) => until_stopped(args, common, &place.api, world, old, signals, out).await,
    }
}

/// A signal breaks the order off, which is noted.
async fn until_stopped<W: World>(
    args: &Args,
    common: &Common,
    api: &LocalApi,
    world: &W,
    old: Option<Certificate>,
    signals: &mut Signals,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let is_ordering = Cell::new(false);
    let signal = tokio::select! {
        biased;
        done = with(args, common, api, world, old, &is_ordering, out) => return done,
        signal = signals.next() => signal,
    };
    let note = async {
        let ledger = Mutex::new(world.load_ledger().await);
        Book { world, ledger: &ledger, name: &args.domain }.break_off().await;
    };
    if is_ordering.get() && timeout(NOTE, note).await.is_err() {
        out.warning("what was claimed for the order is left to expire");
    }
    super::interrupted(signal)
}

async fn with<W: World>(
    args: &Args,
    common: &Common,
    api: &LocalApi,
    world: &W,
    old: Option<Certificate>,
    is_ordering: &Cell<bool>,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let name = &args.domain;
    let min_validity = args.min_validity.unwrap_or_default();
    check_min_validity(min_validity, old.as_ref().map(|old| old.period))
        .map_err(|error| anyhow!(error).exit_with(ExitStatus::Usage))?;
    let limit = common.timeout.unwrap_or(ORDER);
    wait_until_allowed(args, api, Instant::now() + limit, out).await?;
    world.check_storage(name).await.context("the certificate could not be stored, so it is not ordered")?;
    let now = world.now();
    let (record, _) = world.load(name).await;
    if let Some(until) = record.next_attempt.filter(|until| record.failures > 0 && now < *until && !args.force) {
        let error = anyhow!(
            "{} attempts have failed, and the next one is due at {until:.0}: {}",
            record.failures,
            record.last_error.unwrap_or_default()
        );
        return Err(error.hint("`--force` asks all the same"));
    }
    let ledger = Mutex::new(world.load_ledger().await);
    let book = Book { world, ledger: &ledger, name };
    let kind = if old.is_some() { Kind::Renewed } else { Kind::Issued };
    if !args.force {
        let checked = book.ledger(|ledger| ledger.check(name, kind, now));
        checked.map_err(|exhausted| anyhow!(exhausted).hint("`--force` asks all the same"))?;
    }
    if args.dry_run {
        return say(args, common, "checked", old.as_ref(), None, out);
    }
    if let Some(at) = world.claim(name).await.context("another replica is at it")? {
        book.enter(Kind::BrokenOff, at, None).await;
    }
    is_ordering.set(true);
    out.note(format!("asking tailscaled for {name}; an order takes up to some minutes"));
    let answer = Box::pin(told_meanwhile(name, api, out, ask(args, api, min_validity, limit))).await;
    let mut schedule = Schedule::resumed(Growth::Steps, record.failures);
    let new = match answer {
        Ok(new) => new,
        Err(Unissued::Here(error)) => {
            world.give_up(name).await;
            return Err(error);
        }
        Err(Unissued::There(error)) => {
            // What it cost is known to the manager, and to who asks next.
            let failure = Failure::of(&error, world.now());
            book.failed(&mut schedule, &failure, world.now()).await;
            return Err(explained(error, &failure));
        }
    };
    let now = world.now();
    let is_new = book.is_ordered(old.as_ref().map(|old| old.serial.as_str()), &new, now);
    book.succeeded(&mut schedule, &new, is_new.then_some(kind), now).await;
    let outcome = match (&old, is_new) {
        (None, true) => "issued",
        (None, false) => "unchanged",
        (Some(_), true) => "renewed",
        (Some(_), false) if now > new.period.renew_at() => "renewing",
        (Some(_), false) => "unchanged",
    };
    say(args, common, outcome, old.as_ref(), Some(&new), out)
}

/// Waits, if that was asked for, until the tailnet allows the name.
async fn wait_until_allowed(args: &Args, api: &LocalApi, deadline: Instant, out: &Output) -> anyhow::Result<()> {
    let mut said = false;
    loop {
        let allowed = api.cert_domains().await.context("cannot ask tailscaled for the names it may have")?;
        if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(args.domain.as_str())) {
            return Ok(());
        }
        if !args.wait || Instant::now() + LOOK > deadline {
            let list = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
            let error = anyhow!("the tailnet does not allow a certificate for `{}`; it allows {list}", args.domain);
            return Err(match nearest(args.domain.as_str(), &allowed) {
                Some(near) => error.hint(format!("is it `{near}`?")),
                None if allowed.is_empty() => {
                    error.hint("enable HTTPS certificates on the DNS page of the admin console")
                }
                None => error.hint("a Service has to be approved first; `--wait` waits for that"),
            });
        }
        if !std::mem::replace(&mut said, true) {
            out.note(format!("waiting until the tailnet allows {}", args.domain));
        }
        sleep(LOOK).await;
    }
}

/// Why there is no certificate.
enum Unissued {
    /// tailscaled, or whom it asked, said so.
    There(Error),
    /// What it gave is of no use here.
    Here(anyhow::Error),
}

/// Asks, and writes what was asked for.
async fn ask(args: &Args, api: &LocalApi, min_validity: Duration, limit: Duration) -> Result<Certificate, Unissued> {
    let name = args.domain.as_str();
    let (chain, key) = if args.write_key.is_some() {
        let pair = api.certificate_pair(name, min_validity, limit).await.map_err(Unissued::There)?;
        let pair =
            split_pair(&pair).context("tailscaled's answer is no key and certificate").map_err(Unissued::Here)?;
        (pair.chain, Some(pair.key))
    } else {
        (api.certificate(name, min_validity, limit).await.map_err(Unissued::There)?, None)
    };
    keep(args, &chain, key.as_ref()).map_err(Unissued::Here)
}

fn keep(args: &Args, chain: &str, key: Option<&Secret<String>>) -> anyhow::Result<Certificate> {
    if let (Some(file), Some(key)) = (&args.write_key, key) {
        write(file, key.expose(), 0o600)?;
    }
    let certificate = Certificate::read(chain).context("tailscaled's answer is no certificate")?;
    if let Some(file) = &args.write_cert {
        write(file, chain, 0o644)?;
    }
    Ok(certificate)
}

/// Awaits `asking`, and says meanwhile what tailscaled says that it is doing.
async fn told_meanwhile<T, E>(
    name: &Name,
    api: &LocalApi,
    out: &Output,
    asking: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let (mut bus, follow) = follow(api.clone(), Wants::default(), CancellationToken::new());
    let tell = async {
        let mut said: Option<String> = None;
        while let Some(event) = bus.next().await {
            let BusEvent::Changed(change) = event else { continue };
            let now = pending(&change.model, name);
            if let Some(text) = now.as_ref().filter(|now| said.as_ref() != Some(now)) {
                out.note(format!("tailscaled: {text}"));
            }
            said = now;
        }
    };
    let telling = async {
        tokio::join!(follow, tell);
        std::future::pending::<Infallible>().await
    };
    let what = format!("the certificate of {name}");
    tokio::select! {
        answer = progress::wait_for(out, &what, asking) => answer,
        never = telling => match never {},
    }
}

/// tailscaled's words for an order of `name` that is under way (1.100 and newer).
fn pending(model: &Model, name: &Name) -> Option<String> {
    let warning = model.health.as_ref()?.warnings.get(TLS_CERT_PENDING)?;
    let of_it = |names: &String| names.split([',', ' ']).any(|pending| pending == name.as_str());
    warning.args.get("domains").is_none_or(of_it).then(|| warning.text.clone())
}

/// With what to do about it.
fn explained(error: Error, failure: &Failure) -> anyhow::Error {
    let error = anyhow!(error);
    match failure.class {
        Class::NotWriter => error.context("this node is not the writer: its tailscaled only reads certificates"),
        Class::RateLimited => {
            let after = failure.hint.map(|hint| format!(" in {}", crate::goduration::format_seconds(hint)));
            error.hint(format!("the authority's limits are used up; try again{}", after.unwrap_or_default()))
        }
        Class::Storage => {
            error.hint("the authority did issue, and the result is lost: see `tailpod certs check` first")
        }
        Class::Rights => error.hint("tailscaled gives certificates to root and to TS_PERMIT_CERT_UID"),
        Class::Transient | Class::NotAllowed | Class::Authority => error,
    }
    .context("no certificate")
}

fn write(file: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let is_terminal = std::fs::metadata(file).is_ok_and(|known| !known.is_file());
    if is_terminal {
        return Err(anyhow!("`{}` is not a regular file", file.display()).exit_with(ExitStatus::Usage));
    }
    // Removed first: a file that others can read keeps its rights when it is written over.
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace `{}`", file.display()));
        }
        _ => {}
    }
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    opened
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write `{}`", file.display()))
}

fn say(
    args: &Args,
    common: &Common,
    outcome: &'static str,
    old: Option<&Certificate>,
    new: Option<&Certificate>,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let report = Report {
        domain: &args.domain,
        outcome,
        old_serial: old.map(|old| old.serial.clone()),
        old_not_after: old.map(|old| old.period.not_after),
        serial: new.map(|new| new.serial.clone()),
        not_after: new.map(|new| new.period.not_after),
    };
    if Format::of(common, out)?.write(&report, out)? {
        return Ok(ExitStatus::Done);
    }
    let what = match outcome {
        "checked" => "nothing speaks against an order".to_owned(),
        "unchanged" => "unchanged".to_owned(),
        "renewing" => "due and unchanged: a renewal was started in the background".to_owned(),
        other => other.to_owned(),
    };
    out.data(format!("{}: {what}", args.domain))?;
    for (label, certificate) in [("old", old), ("new", new)] {
        if let Some(certificate) = certificate {
            out.data(format!("{label}: serial {}, until {:.0}", certificate.serial, certificate.period.not_after))?;
        }
    }
    Ok(ExitStatus::Done)
}
