//! `tailpod generate`: the files that follow from the command definition, written or compared.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::cli::cluster::object_name;
use crate::cli::exit::ExitStatus;
use crate::cli::generate::{self, Generated};
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::manifests::{self, BootMode};
use crate::prefix::Prefix;

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
        after_long_help = "Examples:\n  tailpod generate manifests boot | kubectl apply -f -"
    )]
    Manifests {
        #[command(subcommand)]
        of: Manifests,
    },
}

#[derive(Debug, clap::Subcommand)]
enum Manifests {
    /// A node: service account, Role, Secret to fill in, and a StatefulSet or a sidecar
    #[command(after_long_help = "\
Examples:
  tailpod generate manifests boot                                      A node in userspace mode
  tailpod generate manifests boot --kernel --routes 10.0.0.0/8         A subnet router
  tailpod generate manifests boot --replicas 3 --namespace tailscale   Three nodes, each with its own Secret
  tailpod generate manifests boot --sidecar --mode one-step            Beside an application, by a config file")]
    Boot(Node),
}

/// The node to make manifests for.
#[derive(Debug, clap::Args)]
struct Node {
    /// What configures the node
    #[arg(long, value_enum, default_value_t)]
    mode: NodeMode,

    /// Routes to advertise, comma-separated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    routes: Vec<Prefix>,

    /// Use the kernel's network stack; needs the TUN device and NET_ADMIN
    #[arg(long)]
    kernel: bool,

    /// A native sidecar in an application's Pod instead of a StatefulSet
    #[arg(long, conflicts_with = "replicas")]
    sidecar: bool,

    /// Namespace of everything; without it the one that kubectl uses
    #[arg(long, short, value_name = "NAME", value_parser = object_name)]
    namespace: Option<String>,

    /// Name of everything
    #[arg(long, value_name = "NAME", default_value = "tailpod", value_parser = label)]
    name: String,

    /// Image with tailpod and tailscaled
    #[arg(long, value_name = "IMAGE", default_value = "example.com/tailpod")]
    image: String,

    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,

    /// The state Secret, if not one for each Pod, named as the Pod
    #[arg(long, value_name = "NAME", value_parser = object_name)]
    secret: Option<String>,
}

/// What configures the node.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum NodeMode {
    /// A tailscaled config file alone, in a Secret
    OneStep,
    /// Log in only when the node is not logged in yet
    #[default]
    AuthOnce,
    /// Log in on every start
    AlwaysAuth,
}

impl Node {
    fn options(&self) -> manifests::Options {
        manifests::Options {
            mode: match self.mode {
                NodeMode::OneStep => BootMode::OneStep,
                NodeMode::AuthOnce => BootMode::AuthOnce,
                NodeMode::AlwaysAuth => BootMode::AlwaysAuth,
            },
            routes: self.routes.clone(),
            kernel: self.kernel,
            sidecar: self.sidecar,
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            image: self.image.clone(),
            replicas: self.replicas,
            secret: self.secret.clone(),
        }
    }
}

/// What can be the name of a Pod's label value, a service and a StatefulSet.
fn label(text: &str) -> Result<String, String> {
    // Room for `-999` and `-config`.
    if text.contains('.') || text.len() > 52 {
        return Err("it has at most 52 characters and no dot".to_owned());
    }
    object_name(text)
}

/// Writes or checks.
pub fn run(args: &Args, definition: &clap::Command, out: &Output) -> anyhow::Result<ExitStatus> {
    if let What::Manifests { of: Manifests::Boot(node) } = &args.what {
        let text = manifests::boot(&node.options()).map_err(|refused| anyhow!(refused).exit_with(ExitStatus::Usage))?;
        out.raw(&text)?;
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
