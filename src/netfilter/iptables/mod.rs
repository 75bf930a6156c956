//! iptables, spoken with by its own programs: the fallback where the kernel's nftables cannot do it.
//!
//! What our chains hold is listed first, so that a container restart changes nothing and only missing jumps are put
//! back. Both families are tested before either is changed; should the second fail all the same, the first is put back
//! as it was.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use self::rules::{Chains, Saved, TABLES, clear, compare, fill};
use super::drift::Drift;
use super::firewall::ApplyError;
use super::ruleset::{Family, Ruleset, Table};

pub mod rules;

/// For one run of a program. To list 100,000 rules takes that of the newer flavour 15 s, and what cannot be listed could
/// never be changed again.
const LIMIT: Duration = Duration::from_secs(30);
/// For the lock that programs of the legacy flavour take, in seconds.
const LOCK: &str = "5";

/// iptables and its siblings.
#[derive(Clone, Debug)]
pub struct Iptables {
    /// What their names have before the dash: the administrator's choice, or a flavour.
    flavour: &'static str,
    families: &'static [Family],
}

/// How many lines of a program's complaint are told.
const COMPLAINTS: usize = 3;

/// By which names the programs go. The first is the administrator's choice.
pub const FLAVOURS: [&str; 3] = ["", "-legacy", "-nft"];

/// What the chains of a dry run are called.
const PROBE: &str = "PROBE";

impl Iptables {
    /// Programs of one flavour.
    pub fn new(flavour: &'static str, families: &'static [Family]) -> Self {
        Self { flavour, families }
    }

    /// Brings our chains to what is desired.
    ///
    /// # Errors
    ///
    /// The program's words; our chains are as they were.
    pub async fn apply(&self, desired: &Ruleset) -> Result<(), ApplyError> {
        let short = desired.table().short();
        let mut changes = Vec::new();
        for family in self.families {
            let saved = self.list(*family).await?;
            let text = fill(short, &saved, &Chains::of(desired, *family));
            if !text.is_empty() {
                self.restore(*family, &text, &["--test"]).await?;
                changes.push((*family, saved, text));
            }
        }
        let mut done: Vec<&(Family, Saved, String)> = Vec::new();
        for change in &changes {
            if let Err(error) = self.restore(change.0, &change.2, &[]).await {
                for (family, before, _) in done {
                    self.put_back(*family, short, before).await;
                }
                return Err(error);
            }
            done.push(change);
        }
        Ok(())
    }

    async fn put_back(&self, family: Family, short: &str, before: &Saved) {
        let undone = match self.list(family).await {
            Ok(now) => self.restore(family, &fill(short, &now, &before.ours(short)), &[]).await,
            Err(error) => Err(error),
        };
        if let Err(error) = undone {
            tracing::warn!("{}: what was in force cannot be put back: {error}", family.title());
        }
    }

    /// Whether our chains hold just this, and packets come to them first.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub async fn holds(&self, desired: &Ruleset) -> Result<bool, ApplyError> {
        for family in self.families {
            let saved = self.list(*family).await?;
            if !saved.holds(desired.table().short(), &Chains::of(desired, *family)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes our chains and the jumps to them, in every family, whatever fails in one.
    ///
    /// # Errors
    ///
    /// The program's words, those of the first family that failed.
    pub async fn remove(&self, table: Table) -> Result<(), ApplyError> {
        let mut result = Ok(());
        for family in self.families {
            let removed = match self.list(*family).await {
                Ok(saved) => self.restore(*family, &clear(table.short(), &saved), &[]).await,
                Err(error) => Err(error),
            };
            result = result.and(removed);
        }
        result
    }

    /// What our chains hold, and how that differs from what is desired of them; `None` when nothing is.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub async fn compare(&self, table: Table, desired: Option<&Ruleset>) -> Result<Drift, ApplyError> {
        let (short, mut drift) = (table.short(), Drift::default());
        for family in self.families {
            let saved = self.list(*family).await?;
            let rules = saved.ours(short).count();
            if rules > 0 {
                drift.held.push(format!("{family}: {rules} rules"));
            }
            let wanted = desired.map(|desired| Chains::of(desired, *family));
            let program = self.program(*family, "");
            let input = compare(&mut drift, &program, short, &saved, wanted.as_ref());
            if !input.is_empty() {
                let command = format!("{program}-restore -w {LOCK} --noflush <<'EOF'\n{input}EOF");
                let before = if drift.mend.is_empty() { "" } else { "\n" };
                drift.mend.push_str(before);
                drift.mend.push_str(&command);
            }
        }
        Ok(drift)
    }

    /// Has the programs judge what makes our chains hold this, and not do it; then whether the kernel answers at all,
    /// since a judgement of the legacy flavour asks it little.
    pub(super) async fn dry_run(&self, specimen: &Ruleset) -> Result<(), ApplyError> {
        for family in self.families {
            let text = fill(PROBE, &Saved::default(), &Chains::of(specimen, *family));
            self.restore(*family, &text, &["--test"]).await?;
            self.list(*family).await?;
        }
        Ok(())
    }

    /// What `iptables --version` says, without the name.
    pub(super) async fn version(&self) -> Result<String, ApplyError> {
        let said = run(&self.program(Family::V4, ""), &["--version"], "").await?;
        Ok(said.trim().rsplit_once(" v").map_or_else(|| said.trim().to_owned(), |(_, version)| format!("v{version}")))
    }

    async fn list(&self, family: Family) -> Result<Saved, ApplyError> {
        let mut listing = String::new();
        for table in TABLES {
            listing.push_str(&run(&self.program(family, "-save"), &["-t", table], "").await?);
        }
        Ok(Saved::read(&listing))
    }

    async fn restore(&self, family: Family, text: &str, options: &[&str]) -> Result<(), ApplyError> {
        if text.is_empty() {
            return Ok(());
        }
        let options = [&["-w", LOCK, "--noflush"], options].concat();
        run(&self.program(family, "-restore"), &options, text).await.map(drop)
    }

    fn program(&self, family: Family, end: &str) -> String {
        let name = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        format!("{name}{}{end}", self.flavour)
    }
}

/// Runs a program to its end; what it printed.
async fn run(program: &str, args: &[&str], input: &str) -> Result<String, ApplyError> {
    let said = timeout(LIMIT, output(program, args, input)).await;
    let said = said.map_err(|_| ApplyError::Refused(format!("`{program}` took more than {} s", LIMIT.as_secs())))?;
    let said = said.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ApplyError::Unreachable(format!("there is no program `{program}`")),
        _ => ApplyError::Unreachable(format!("`{program}`: {error}")),
    })?;
    if said.status.success() {
        return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&said.stderr);
    let words: Vec<_> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = match words.as_slice() {
        [] => said.status.to_string(),
        // Where one rule cannot be, the others are complained about too.
        [first @ .., _] if first.len() >= COMPLAINTS => {
            format!("{}; and {} lines more", words[..COMPLAINTS].join(" "), words.len() - COMPLAINTS)
        }
        all => all.join(" "),
    };
    Err(ApplyError::Refused(format!("`{program}`: {text}")))
}

async fn output(program: &str, args: &[&str], input: &str) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(args).kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // Who stops reading says why on standard error.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ((), said) = tokio::join!(feed, child.wait_with_output());
    said
}
