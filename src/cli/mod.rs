//! Everything the person at the terminal touches: the one parser, the one list of applets, dispatch.
//!
//! The name the program was called as is rewritten to an applet before anything is parsed, so there is exactly one
//! parser and one help text. [`run`] then goes in strict order: log, cryptography, applet. Nothing is bound and no
//! child is started before an applet has found its settings good.

pub mod ask;
pub mod cluster;
pub mod exit;
pub mod generate;
pub mod later;
pub mod output;
pub mod program;
pub mod progress;
pub mod report;
pub mod table;

use std::ffi::OsString;
use std::future::Future;

use anyhow::Context;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use self::exit::ExitStatus;
use self::later::Later;
use self::output::{Color, Output, Style, Surroundings, Talk};
use self::program::Invocation;
use self::report::Advise;
use self::table::{Column, Table};
use crate::secret::redact_keys;
use crate::{applet, telemetry};

/// Tailscale in Pods: boot, proxy, certificates and auth keys from one small binary
#[derive(Debug, Parser)]
#[command(
    name = "tailpod",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    subcommand_value_name = "APPLET",
    subcommand_help_heading = "Applets",
    after_long_help = "\
Examples:
  tailpod boot --check                  Check the environment and show what would be done
  tailpod boot                          Bring a node up and keep it up
  tailpod --list                        List the applets and the names they go by
  tailpod install-links /usr/local/bin  Stand in for containerboot"
)]
pub struct Cli {
    /// List the applets and the names they go by
    #[arg(long)]
    list: bool,

    #[command(flatten)]
    global: Global,

    #[command(subcommand)]
    applet: Option<Applet>,
}

/// The flags that every applet takes, before or after its name.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Print results as JSON
    #[arg(long, global = true)]
    json: bool,

    /// Say less: warnings and errors; twice: errors only
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose")]
    quiet: u8,

    /// Say more; twice: everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t)]
    color: Color,

    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people; `boot` writes what containerboot writes
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

/// Every applet: the only list there is.
#[derive(Debug, Subcommand)]
pub enum Applet {
    /// Bring a node up and keep it up (containerboot)
    Boot(Later<applet::boot::Args>),
    /// Proxy the Kubernetes API over the tailnet (k8s-proxy)
    Proxy(Later<applet::proxy::Args>),
    /// Keep TLS certificates fresh and share them between replicas
    Certs(Later<applet::certs::Args>),
    /// Request, wait for and clear auth keys
    Authkey(Later<applet::authkey::Args>),
    /// Look at the state Secret and mend it
    Secret(Later<applet::secret::Args>),
    /// Find out why a node is not up
    Doctor(Later<applet::doctor::Args>),
    /// Play a Pod on this machine: a pretend cluster, tailscaled and operator
    #[cfg(feature = "sandbox")]
    Sandbox(Later<applet::sandbox::Args>),
    /// Make the links that let this binary stand in for others
    InstallLinks(Later<applet::install_links::Args>),
    /// Write completions, man pages and the generated parts of the README
    Generate(Later<applet::generate::Args>),
    /// Words for completion scripts
    #[command(hide = true)]
    Complete(Later<applet::complete::Args>),
}

// === impl Cli, Applet ===

impl Cli {
    /// What the parser would make of a long-running applet's name and nothing else. It is how containers call it, and
    /// the parser's tables would stay in the memory of every Pod.
    fn bare(args: &[OsString]) -> Option<Self> {
        let applet = match args {
            [_, name] if name == "boot" => Applet::Boot(Later::default()),
            [_, name] if name == "proxy" => Applet::Proxy(Later::default()),
            _ => return None,
        };
        Some(Self { list: false, global: Global::default(), applet: Some(applet) })
    }
}

impl Applet {
    fn log_format(&self, invocation: &Invocation) -> telemetry::Format {
        match self {
            Self::Proxy(Later(args)) if args.is_the_persona(invocation) => telemetry::Format::Zap,
            Self::Boot(Later(args)) if args.is_the_long_run() => telemetry::Format::Boot,
            _ => telemetry::Format::Plain,
        }
    }

    /// Whether a person at a terminal sees it work: then lines that only inform would get in the way.
    fn shows_progress(&self) -> bool {
        matches!(self, Self::Authkey(_))
    }
}

/// The whole command definition, which man pages and completions are made from.
pub fn definition() -> clap::Command {
    let mut definition = Cli::command();
    definition.build();
    definition
}

/// Parses, runs, reports. This is the whole program; `main` only hands it the arguments.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitStatus {
    let invocation = Invocation::of(args);
    let surroundings = Surroundings::of_process();
    let cli = match parse(&invocation.args) {
        Ok(cli) => cli,
        Err(error) => {
            let color = color_asked(&invocation.args);
            return explain(&error, &Output::new(color, Style::Text, Talk::Normal, surroundings));
        }
    };
    let out = cli.global.output(surroundings);
    match dispatch(cli, &invocation, &out) {
        Ok(status) => status,
        Err(error) => out.report(&error),
    }
}

fn dispatch(cli: Cli, invocation: &Invocation, out: &Output) -> anyhow::Result<ExitStatus> {
    let Cli { global, list, applet } = cli;
    if list {
        return list_applets(out);
    }
    let Some(applet) = applet else {
        let error = anyhow::anyhow!("an applet is missing").hint("`tailpod --list` shows what there is");
        return Err(error.exit_with(ExitStatus::Usage));
    };
    global.start_log(applet.log_format(invocation), applet.shows_progress() && out.shows_progress());
    // Every TLS stack below uses the process's default. A second run in one process finds it installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match applet {
        Applet::Boot(Later(args)) => block_on(|| applet::boot::run(args, invocation, out)),
        Applet::Proxy(Later(args)) => block_on(|| applet::proxy::run(args, invocation, out)),
        Applet::Certs(Later(args)) => block_on(|| applet::certs::run(args, out)),
        Applet::Authkey(Later(args)) => block_on(|| applet::authkey::run(args, out)),
        Applet::Secret(Later(args)) => block_on(|| applet::secret::run(args, out)),
        Applet::Doctor(Later(args)) => block_on(|| applet::doctor::run(&args, out)),
        #[cfg(feature = "sandbox")]
        Applet::Sandbox(Later(args)) => block_on(|| applet::sandbox::run(args, out)),
        Applet::InstallLinks(Later(args)) => applet::install_links::run(&args, out),
        Applet::Generate(Later(args)) => applet::generate::run(&args, &definition(), out),
        Applet::Complete(Later(args)) => block_on(|| applet::complete::run(&args, out)),
    }
}

/// Runs an applet on a runtime of its own: one thread, because every applet mostly waits, and a second stack and
/// scheduler are memory in every Pod. What still runs when the applet is done is not waited for.
///
/// Never inlined, and the future is made in here: [`dispatch`] would have room for every applet in its frame, all of it
/// resident below whatever runs.
#[inline(never)]
fn block_on<F>(applet: impl FnOnce() -> F) -> anyhow::Result<ExitStatus>
where
    F: Future<Output = anyhow::Result<ExitStatus>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let result = runtime.block_on(applet());
    runtime.shutdown_background();
    result
}

// === impl Global ===

impl Global {
    fn verbosity(&self) -> i16 {
        i16::from(self.verbose) - i16::from(self.quiet)
    }

    fn output(&self, surroundings: Surroundings) -> Output {
        let style = if self.json { Style::Json } else { Style::Text };
        let talk = if self.quiet > 0 { Talk::Quiet } else { Talk::Normal };
        Output::new(self.color, style, talk, surroundings)
    }

    fn start_log(&self, text: telemetry::Format, hushed: bool) {
        let format = match self.log_format {
            LogFormat::Text => text,
            // JSON already, under the names that upstream gives its fields.
            LogFormat::Json if text == telemetry::Format::Zap => text,
            LogFormat::Json => telemetry::Format::Json,
        };
        let timezone = std::env::vars_os().find_map(|(name, value)| (name == "TZ").then_some(value));
        telemetry::init(format, telemetry::level(self.verbosity() - i16::from(hushed)), timezone.as_deref());
    }
}

fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    Cli::bare(args).map_or_else(|| parse_all(args), Ok)
}

fn parse_all(args: &[OsString]) -> Result<Cli, clap::Error> {
    let color = match color_asked(args) {
        Color::Auto => clap::ColorChoice::Auto,
        Color::Always => clap::ColorChoice::Always,
        Color::Never => clap::ColorChoice::Never,
    };
    let mut matches = Cli::command().color(color).try_get_matches_from(args)?;
    Cli::from_arg_matches_mut(&mut matches)
}

/// `--color` as far as it can be seen before parsing, for help and usage errors.
fn color_asked(args: &[OsString]) -> Color {
    let text = args.iter().map(|arg| arg.to_str().unwrap_or_default());
    let next = text.clone().skip(1);
    let asked = text.zip(next.chain([""])).find_map(|(arg, next)| match arg.split_once('=') {
        Some(("--color", value)) => Some(value),
        _ if arg == "--color" => Some(next),
        _ => None,
    });
    asked.and_then(|value| Color::from_str(value, false).ok()).unwrap_or_default()
}

/// Help and version are data; everything else is a usage error, told in the house's words.
fn explain(error: &clap::Error, out: &Output) -> ExitStatus {
    let text = error.render();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let text = if out.has_color() { text.ansi().to_string() } else { text.to_string() };
        return out.raw(&text).map_or_else(|error| out.report(&error), |()| ExitStatus::Done);
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        out.help_instead(&text.to_string());
        return ExitStatus::Usage;
    }
    // A key that somebody gave as an argument has been in the process list; at least it does not get into a log.
    out.usage_error(&redact_keys(&text.to_string()).replace("\n  tip: ", "\nhint: "));
    ExitStatus::Usage
}

/// What `--list` says of an applet.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    name: String,
    called_as: Vec<&'static str>,
    built: bool,
    about: String,
}

fn listed() -> Vec<Listed> {
    let definition = definition();
    let shown = definition.get_subcommands().filter(|applet| !applet.is_hide_set());
    let listed = shown.map(|applet| Listed {
        name: applet.get_name().to_owned(),
        called_as: program::links_to(applet.get_name()).collect(),
        built: true,
        about: applet.get_about().map(ToString::to_string).unwrap_or_default(),
    });
    listed.collect()
}

fn list_applets(out: &Output) -> anyhow::Result<ExitStatus> {
    if out.is_json() {
        out.json(&listed())?;
        return Ok(ExitStatus::Done);
    }
    let mut table = Table::new(&[Column::Text("name"), Column::Text("called as"), Column::Text("description")]);
    for Listed { name, called_as, about, .. } in listed() {
        table.row([name, called_as.join(", "), about]);
    }
    out.data(table.render())?;
    Ok(ExitStatus::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Cli, clap::Error> {
        parse(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_definition_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn a_bare_applet_is_what_the_parser_says() {
        for applet in ["boot", "proxy"] {
            let args = ["tailpod", applet].map(OsString::from);
            let bare = Cli::bare(&args).expect("no parser needed");
            assert_eq!(format!("{bare:?}"), format!("{:?}", parse_all(&args).expect("parses")));
        }
        for args in [&["tailpod"][..], &["tailpod", "boot", "--check"], &["tailpod", "--json"]] {
            assert!(Cli::bare(&args.iter().map(OsString::from).collect::<Vec<_>>()).is_none(), "{args:?}");
        }
    }

    #[test]
    fn global_flags_stand_before_and_after_the_applet() {
        for args in [["tailpod", "-v", "--json", "boot", "--check"], ["tailpod", "boot", "--check", "--json", "-v"]] {
            let cli = parsed(&args).expect("parses");
            assert!(cli.global.json && cli.global.verbosity() == 1, "{args:?}");
        }
    }

    #[test]
    fn quiet_and_verbose_exclude_each_other() {
        assert_eq!(parsed(&["tailpod", "-q", "-v", "boot"]).unwrap_err().kind(), ErrorKind::ArgumentConflict);
        assert_eq!(parsed(&["tailpod", "-qq", "boot"]).unwrap().global.verbosity(), -2);
    }

    #[test]
    fn colour_is_known_before_parsing() {
        let asked = |args: &[&str]| color_asked(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(asked(&["tailpod", "--color", "never", "--nonsense"]), Color::Never);
        assert_eq!(asked(&["tailpod", "boot", "--color=always", "--help"]), Color::Always);
        assert_eq!(asked(&["tailpod", "--color"]), Color::Auto);
        assert_eq!(asked(&["tailpod", "--color=purple"]), Color::Auto);
    }

    #[test]
    fn every_applet_says_what_it_is_and_shows_examples() {
        for applet in definition().get_subcommands() {
            let name = applet.get_name();
            assert!(applet.get_about().is_some(), "{name} has no description");
            let help = applet.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Examples:\n"), "{name} has no examples");
        }
    }

    #[test]
    fn names_it_is_called_as_lead_to_applets_that_exist() {
        let applets = listed();
        for (link, applet) in program::LINKS {
            assert!(applets.iter().any(|listed| listed.name == applet), "{link} leads to {applet}");
        }
    }
}
