//! `tailpod certs watch`: what boot does with `TS_SERVE_CONFIG`, for a tailscaled that somebody else keeps.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use clap::ValueHint;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Common;
use super::around::value;
use crate::applet::socket;
use crate::causes::chain;
use crate::certs::allowed::{Told, keep_told};
use crate::certs::hold_back::{HeldBack, HoldBack, News, Sight};
use crate::certs::keep::Start;
use crate::certs::local::{self, LocalWorld};
use crate::certs::loops::{Loops, Options, concurrency};
use crate::certs::names::{Name, Node};
use crate::certs::office::Office;
use crate::certs::schedule::Growth;
use crate::certs::world::Role;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::localapi::{LocalApi, Peers};
use crate::serve::advertiser::{Advertiser, Claim};
use crate::serve::document::NodeFacts;
use crate::serve::follow::{Delivery, Follower, Good, Problem, Source, Standing};
use crate::settings::{Vars, parse, vars};
use crate::shutdown::{Signals, Tasks};

/// For the tasks to end.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(3);

/// Which file, and what about it.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Follow a serve config file: keep its certificates fresh, and have it served if asked to.\n\n\
        Reads the file strictly, in tailscaled's own format or in the documented one for Services, again with each \
        change; a bad edit keeps the last good config. Without `--apply` what tailscaled serves stays as it is. Says on \
        stdout what becomes of each change, and ends with 0 when it is stopped.\n\n\
        With `--apply` its Services are advertised, too, unless TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT is false, and \
        withdrawn when they leave the file; what others advertise stays. One that listens on 443 only waits until there \
        is a certificate for it. When it is stopped, tailscaled goes on serving and advertising.",
    after_long_help = "\
Examples:
  tailpod certs watch --serve-config config.json           Keep the certificates of its Services fresh
  tailpod certs watch --serve-config config.json --apply   Have tailscaled serve it, too
  tailpod certs watch --serve-config config.json --json    One object for each change"
)]
pub(super) struct Args {
    /// Have tailscaled serve it
    #[arg(long)]
    apply: bool,

    /// Advertise a Service that listens on 443 only before there is a certificate for it
    #[arg(long, requires = "apply")]
    advertise_without_cert: bool,

    /// Withdraw every advertised Service that is not in the file, whoever advertised it
    #[arg(long, requires = "apply")]
    own_all_services: bool,

    /// Stands for `${TS_CERT_DOMAIN}`, instead of the node's first certificate domain
    #[arg(long, value_name = "NAME")]
    cert_domain: Option<String>,

    /// Count the names of the node itself, not only those of its Services; always beside tailscaled before 1.100, which
    /// does not keep them fresh
    #[arg(long)]
    include_node: bool,

    /// End with the first file that cannot be read or applied
    #[arg(long)]
    strict: bool,

    /// Where to remember attempts, so that a restart does not begin anew
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    state_dir: Option<PathBuf>,
}

/// What became of a change.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Event<'a> {
    /// The file is good.
    Config { applied: bool, cert_domain: Option<&'a str>, names: &'a [String] },
    /// It will be, when the tailnet allows it.
    Held { reason: &'a str },
    /// It is not, and the last good one stays.
    Problem { reason: &'a str },
    /// A Service is not advertised yet.
    HeldBack { service: &'a str, reason: &'a str },
    /// It is now.
    LetGo { service: &'a str, domain: &'a Name },
}

/// Follows until a signal.
pub(super) async fn run(
    args: &Args,
    common: &Common,
    vars: &dyn Vars,
    signals: &mut Signals,
    out: &Output,
) -> anyhow::Result<ExitStatus> {
    let Some(file) = &common.serve_config else {
        return Err(anyhow!("which one? `--serve-config FILE` says it").exit_with(ExitStatus::Usage));
    };
    if let Some(name) = &args.cert_domain {
        Name::parse(name).map_err(|error| anyhow!(error).exit_with(ExitStatus::Usage))?;
    }
    let api = LocalApi::new(&common.socket.clone().unwrap_or_else(|| socket(vars)));
    if let Err(error) = api.status(Peers::Omit).await {
        out.warning(format!("tailscaled does not answer yet: {}", chain(&error)));
    }
    let stop = CancellationToken::new();
    let mut tasks = Tasks::new(stop.clone());
    let told = Told::default();
    let (allowed_seen, facts_seen) = (told.allowed.subscribe(), told.facts.subscribe());
    let opened = told.opened.subscribe();
    tasks.keep("node", |stop| keep_told(api.clone(), told, stop));
    let facts = match args.cert_domain.clone() {
        Some(domain) => overridden(&mut tasks, facts_seen, domain),
        None => facts_seen,
    };
    let delivery = if args.apply { Delivery::Apply } else { Delivery::Watch };
    let source = Source::parse(&file.to_string_lossy());
    let (follower, mut standing_seen) = Follower::beside(api.clone(), source, delivery, facts.clone(), opened.clone());
    tasks.keep("serve config", |stop| follower.run(stop));
    let role = Office::fixed(Role::Writer).role();
    let options = Options {
        growth: Growth::default(),
        start: Start::default(),
        concurrent: concurrency(api.versions().version.as_deref()),
        node: Node::beside(api.versions().version.as_deref(), args.include_node),
    };
    let world = LocalWorld::new(api.clone(), args.state_dir.as_ref().map(|dir| dir.join(local::FILE)));
    let loops = Arc::new(Loops::new(world, options, allowed_seen, role, stop.clone()).await);
    let (say_news, mut news) = mpsc::unbounded_channel();
    // Kept, so that the other end never ends.
    let _say_news = say_news.clone();
    if args.apply && is_advertising(vars) {
        let gate = (!args.advertise_without_cert).then(|| {
            // Nobody listens any more once it is being stopped.
            let sight = Sight::Kept(Arc::clone(&loops));
            HoldBack::new(sight, watch::Sender::new(HeldBack::new()), move |news| drop(say_news.send(news)))
        });
        let claim = if args.own_all_services { Claim::All } else { Claim::Own };
        let advertiser = Advertiser::beside(api, standing_seen.clone(), facts, opened, gate, claim);
        tasks.keep("services", |stop| advertiser.run(stop));
    }
    let mut told = Shown { good: None, problem: None };
    let outcome = loop {
        tokio::select! {
            biased;
            _ = signals.next() => break Ok(ExitStatus::Done),
            ended = tasks.next_ended() => break Err(anyhow!("{ended}")),
            Ok(()) = standing_seen.changed() => {
                let standing = standing_seen.borrow_and_update().clone();
                if let Some(status) = told.show(&standing, args, &loops, out).await? {
                    break Ok(status);
                }
            }
            Some(news) = news.recv() => say(out, &match &news {
                News::HeldBack { service, reason } => Event::HeldBack { service, reason },
                News::LetGo { service, domain } => Event::LetGo { service, domain },
            })?,
        }
    };
    tasks.stop(SETTLE).await;
    outcome
}

/// What was said last.
struct Shown {
    good: Option<Good>,
    problem: Option<String>,
}

impl Shown {
    /// Says what is new, and keeps the certificates of a new config; the exit status when that is the end.
    async fn show(
        &mut self,
        standing: &Standing,
        args: &Args,
        loops: &Loops<LocalWorld>,
        out: &Output,
    ) -> anyhow::Result<Option<ExitStatus>> {
        if let Some(good) = standing.good.as_ref().filter(|good| self.good.as_ref() != Some(good)) {
            self.good = Some(good.clone());
            match loops.ensure(&good.config).await {
                Ok(warnings) => {
                    for warning in &warnings {
                        let service = warning.service.as_deref().map(|name| format!("{name}: ")).unwrap_or_default();
                        out.warning(format!("{service}{}", warning.reason));
                    }
                    if args.strict && warnings.iter().any(|warning| warning.is_loss) {
                        return Ok(Some(ExitStatus::Failed));
                    }
                }
                Err(error) => return Err(anyhow!(error).context("the certificates of the serve config are not kept")),
            }
            let names: Vec<String> = loops.standings().await.iter().map(|(name, _)| name.to_string()).collect();
            let cert_domain = good.cert_domain.as_deref();
            say(out, &Event::Config { applied: args.apply, cert_domain, names: &names })?;
        }
        let problem = standing.problem.as_deref();
        let text = problem.map(|problem| chain(problem));
        if self.problem != text {
            self.problem.clone_from(&text);
            match (problem, text.as_deref()) {
                (Some(Problem::Held(_)), Some(reason)) => say(out, &Event::Held { reason })?,
                (Some(_), Some(reason)) => {
                    say(out, &Event::Problem { reason })?;
                    if args.strict {
                        return Ok(Some(ExitStatus::Failed));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

fn say(out: &Output, event: &Event<'_>) -> anyhow::Result<()> {
    if out.is_json() {
        return out.json_line(event);
    }
    match event {
        Event::Config { applied, names, .. } => {
            let verb = if *applied { "applied" } else { "read" };
            let names = if names.is_empty() { "no names".to_owned() } else { names.join(", ") };
            out.data(format!("{verb}; certificates are kept for {names}"))
        }
        Event::Held { reason } => out.data(format!("waiting: {reason}")),
        Event::Problem { reason } => out.data(format!("not applied: {reason}")),
        Event::HeldBack { service, reason } => {
            out.data(format!("{service}: not advertised before there is a certificate: {reason}"))
        }
        Event::LetGo { service, domain } => out.data(format!("{service}: advertised, with a certificate for {domain}")),
    }
}

/// Whether Services are advertised, unless somebody else does that.
fn is_advertising(vars: &dyn Vars) -> bool {
    let text = value(vars, vars::TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT.name);
    text.and_then(|text| parse::boolean(&text)).unwrap_or(true)
}

/// The facts with another certificate domain.
fn overridden(tasks: &mut Tasks, mut facts: watch::Receiver<NodeFacts>, domain: String) -> watch::Receiver<NodeFacts> {
    let with = move |facts: &NodeFacts| NodeFacts { cert_domain: Some(domain.clone()), ..facts.clone() };
    let (sender, receiver) = watch::channel(with(&facts.borrow_and_update()));
    tasks.keep("certificate domain", |stop| async move {
        let copy = async {
            while facts.changed().await.is_ok() {
                sender.send_replace(with(&facts.borrow_and_update()));
            }
            std::future::pending::<()>().await;
        };
        stop.run_until_cancelled(copy).await;
    });
    receiver
}
