//! `tailpod generate`: the files that follow from the command definition, written or compared.

mod manifests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use self::manifests::Manifests;
use crate::cli::exit::ExitStatus;
use crate::cli::generate::{self, Generated};
use crate::cli::output::Output;
use crate::cli::report::Advise;

/// What to write.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_value_name = "WHAT",
    disable_help_subcommand = true,
    after_long_help = "\
Examples:
  tailpod generate completions /tmp/out    Write completion scripts to /tmp/out
  tailpod generate all .                   Bring a checkout's completions/, man/ and README.md up to date
  tailpod generate all . --check           Say what is out of date, with exit code 1
  tailpod generate manifests boot          Print Kubernetes manifests for a node"
)]
pub struct Args {
    /// Write nothing; fail and name the files that are missing or out of date
    #[arg(long, global = true)]
    check: bool,

    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Completion scripts for bash, zsh, fish, elvish and PowerShell
    #[command(after_long_help = "Examples:\n  tailpod generate completions /usr/share/tailpod")]
    Completions {
        /// The directory that gets them; made if it is missing
        #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// A man page for every command
    #[command(after_long_help = "Examples:\n  tailpod generate man /usr/local/share/man/man1")]
    Man {
        /// The directory that gets them; made if it is missing
        #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
        directory: PathBuf,
    },
    /// Everything, in a checkout: completions/, man/ and the tables in README.md
    #[command(after_long_help = "Examples:\n  tailpod generate all . --check")]
    All {
        /// The checkout
        #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath, default_value = ".")]
        directory: PathBuf,
    },
    /// Kubernetes manifests on standard output: the smallest Role, no privilege that is not needed
    #[command(
        disable_help_subcommand = true,
        after_long_help = "Examples:\n  tailpod generate manifests boot | kubectl apply -f -\n  tailpod generate \
                           manifests proxy | kubectl apply --server-side -f -"
    )]
    Manifests {
        #[command(subcommand)]
        of: Manifests,
    },
}

/// Writes or checks.
pub fn run(args: &Args, definition: &clap::Command, out: &Output) -> anyhow::Result<ExitStatus> {
    if let What::Manifests { of } = &args.what {
        out.raw(&of.text()?)?;
        return Ok(ExitStatus::Done);
    }
    let files = files(&args.what, definition)?;
    let mut stale = Vec::new();
    for Generated { path, bytes } in &files {
        if read(path)?.as_ref() != Some(bytes) {
            stale.push(path);
            if !args.check {
                write(path, bytes)?;
            }
        }
    }
    let names = stale.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
    if out.is_json() {
        out.json(&serde_json::json!({ "files": files.len(), "changed": names }))?;
    }
    if args.check && !stale.is_empty() {
        let error = anyhow!("out of date: {}", names.join(", "));
        return Err(error.hint("run the same command without `--check`"));
    }
    let rest = files.len() - stale.len();
    out.done(format_args!("{} written, {rest} already up to date", stale.len()));
    Ok(ExitStatus::Done)
}

fn files(what: &What, definition: &clap::Command) -> anyhow::Result<Vec<Generated>> {
    match what {
        What::Completions { directory } => Ok(flat(directory, generate::completions(definition))),
        What::Man { directory } => Ok(flat(directory, generate::man_pages(definition))),
        What::All { directory } => {
            let scripts_and_pages =
                generate::completions(definition).into_iter().chain(generate::man_pages(definition));
            let below = |file: Generated| Generated { path: directory.join(file.path), bytes: file.bytes };
            let mut files: Vec<_> = scripts_and_pages.map(below).collect();
            files.push(readme(&directory.join("README.md"), definition)?);
            Ok(files)
        }
        // Printed, not written.
        What::Manifests { .. } => Ok(Vec::new()),
    }
}

fn readme(path: &Path, definition: &clap::Command) -> anyhow::Result<Generated> {
    let now = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let fresh = generate::readme(&now, definition);
    let fresh = fresh.with_context(|| format!("cannot bring `{}` up to date", path.display()))?;
    Ok(Generated { path: path.to_owned(), bytes: fresh.into_bytes() })
}

fn flat(directory: &Path, files: Vec<Generated>) -> Vec<Generated> {
    let place = |file: Generated| {
        let name = file.path.file_name().unwrap_or_default();
        Generated { path: directory.join(name), bytes: file.bytes }
    };
    files.into_iter().map(place).collect()
}

fn read(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot read `{}`", path.display()))),
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(path, bytes))
        .with_context(|| format!("cannot write `{}`", path.display()))
}
