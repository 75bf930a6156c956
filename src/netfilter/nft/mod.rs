//! nftables, spoken with by netlink: no program is needed, and a change is one transaction of the kernel's.
//!
//! What a table holds is read once, when this process does not know it yet or somebody else changed it; from then on
//! only what differs is sent. The kernel numbers the generations of its rules, so a look at an unchanged table costs one
//! question.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use self::contents::{Contents, Installed};
use self::diff::{Step, diff};
use self::reading::{Question, Reading};
use super::drift::Drift;
use super::firewall::{ApplyError, blocking};
use super::netlink::wire::Request;
use super::netlink::{Commit, NetlinkError, Socket};
use super::probe::Unfit;
use super::ruleset::{Address, Family, Ruleset, Table};
use crate::lock::lock;

pub mod contents;
pub mod diff;
pub mod expr;
pub mod message;
pub mod reading;
pub mod words;

/// What the table of a dry run is called.
const PROBE: &str = "tailpod_probe";

/// While somebody else changes rules, a list of them is begun again this often.
const READS: usize = 10;

/// The kernel's nftables.
#[derive(Clone, Debug)]
pub struct Nft {
    families: Families,
    /// The generation at which a table was read and found to hold the ruleset of this digest.
    seen: Arc<Mutex<BTreeMap<Table, (u32, u64)>>>,
}

/// Which families' tables are ours to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// The kernel has no IPv6, or it is off.
    V4,
    /// Both.
    Both,
}

impl Families {
    fn contains(self, family: Family) -> bool {
        self == Self::Both || family == Family::V4
    }
}

impl Nft {
    /// One that is known to work.
    pub fn new(families: Families) -> Self {
        Self { families, seen: Arc::default() }
    }

    /// Brings a table to what is desired.
    ///
    /// # Errors
    ///
    /// The kernel's words; nothing took effect.
    pub async fn apply(&self, before: Option<&Ruleset>, desired: &Ruleset) -> Result<(), ApplyError> {
        if let Some(before) = before {
            match commit(self.batch(&Found::known(before), desired)).await {
                Ok(()) => return Ok(()),
                // What was known is not so any more, or it would have gone through. What is there decides.
                Err(error) => tracing::debug!("{}: {error}; reading the table back", desired.table()),
            }
        }
        let (families, table) = (self.families, desired.table());
        let found = blocking(move || Found::read(families, table)).await?;
        commit(self.batch(&found, desired)).await
    }

    /// Whether a table holds just this.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub async fn holds(&self, desired: &Ruleset) -> Result<bool, ApplyError> {
        let (families, table) = (self.families, desired.table());
        let digest = digest(desired);
        let seen = lock(&self.seen).get(&table).copied();
        let then = seen.filter(|(_, held)| *held == digest).map(|(generation, _)| generation);
        let (generation, found) = blocking(move || {
            let generation = generation()?;
            let unchanged = then.is_some() && then == generation;
            Ok((generation, if unchanged { None } else { Some(Found::read(families, table)?) }))
        })
        .await?;
        let Some(found) = found else { return Ok(true) };
        let holds = self.batch(&found, desired).is_empty();
        let mut seen = lock(&self.seen);
        match generation {
            Some(generation) if holds => drop(seen.insert(table, (generation, digest))),
            _ => drop(seen.remove(&table)),
        }
        Ok(holds)
    }

    /// Removes a table.
    ///
    /// # Errors
    ///
    /// The kernel's words.
    pub async fn remove(&self, table: Table) -> Result<(), ApplyError> {
        // Made if it is missing, so that there is something to remove.
        let steps = [Step::AddTable, Step::DeleteTable];
        let families = Family::ALL.into_iter().filter(|family| self.families.contains(*family));
        commit(families.flat_map(|family| message::write(table.name(), family, &steps)).collect()).await
    }

    /// What a table holds, and how that differs from what is desired of it; `None` when nothing is.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub async fn compare(&self, table: Table, desired: Option<&Ruleset>) -> Result<Drift, ApplyError> {
        let families = self.families;
        let found = blocking(move || Found::read(families, table)).await?;
        let v4 = desired.map(|desired| Contents::of(desired.v4(), desired.tun()));
        let mut drift = words::compare(table.name(), &found.v4, v4.as_ref());
        if families.contains(Family::V6) {
            let v6 = desired.map(|desired| Contents::of(desired.v6(), desired.tun()));
            let more = words::compare(table.name(), &found.v6, v6.as_ref());
            drift.held.extend(more.held);
            drift.missing.extend(more.missing);
            drift.unwanted.extend(more.unwanted);
            drift.mend.push_str(&more.mend);
        }
        if !drift.mend.is_empty() {
            drift.mend = format!("nft -f - <<'EOF'\n{}EOF", drift.mend);
        }
        Ok(drift)
    }

    /// Has the kernel judge what makes a table hold this, under a name of nobody's, and not do it.
    pub(super) async fn dry_run(families: Families, specimen: &Ruleset) -> Result<(), Unfit> {
        let missing = Found { v4: Installed::Missing, v6: Installed::Missing };
        let batch = Self::new(families).batch_for(PROBE, &missing, specimen);
        let judged = blocking(move || Ok(judge(&batch))).await;
        judged.map_err(|error| Unfit { reason: error.to_string(), denied: false })?
    }

    /// The messages that lead from what was found to what is desired.
    fn batch(&self, found: &Found<'_>, desired: &Ruleset) -> Vec<Request> {
        self.batch_for(desired.table().name(), found, desired)
    }

    fn batch_for(&self, table: &str, found: &Found<'_>, desired: &Ruleset) -> Vec<Request> {
        let v4 = Contents::of(desired.v4(), desired.tun());
        let v6 = Contents::of(desired.v6(), desired.tun());
        let mut batch = message::write(table, Family::V4, &diff(&found.v4, &v4));
        if self.families.contains(Family::V6) {
            batch.extend(message::write(table, Family::V6, &diff(&found.v6, &v6)));
        }
        batch
    }
}

/// What a table holds in each family.
struct Found<'r> {
    v4: Installed<'r, Ipv4Addr>,
    v6: Installed<'r, Ipv6Addr>,
}

impl<'r> Found<'r> {
    fn known(ruleset: &'r Ruleset) -> Self {
        Self {
            v4: Installed::Ours(Contents::of(ruleset.v4(), ruleset.tun())),
            v6: Installed::Ours(Contents::of(ruleset.v6(), ruleset.tun())),
        }
    }
}

impl Found<'static> {
    fn read(families: Families, table: Table) -> Result<Self, ApplyError> {
        let mut socket = Socket::open()?;
        let v4 = read(&mut socket, table)?;
        let v6 = if families == Families::Both { read(&mut socket, table)? } else { Installed::Missing };
        Ok(Self { v4, v6 })
    }
}

fn digest(ruleset: &Ruleset) -> u64 {
    let mut hasher = DefaultHasher::new();
    ruleset.hash(&mut hasher);
    hasher.finish()
}

async fn commit(batch: Vec<Request>) -> Result<(), ApplyError> {
    if batch.is_empty() {
        return Ok(());
    }
    blocking(move || transact(&batch)).await
}

fn judge(batch: &[Request]) -> Result<(), Unfit> {
    let judged = Socket::open().and_then(|mut socket| socket.transact(batch, &message::marks(), Commit::No));
    judged.map_err(|error| {
        let missing = matches!(error, NetlinkError::Refused { request: None, .. } | NetlinkError::Socket(_));
        let unsupported = matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT | Errno::EINVAL));
        Unfit {
            denied: matches!(error.errno(), Some(Errno::EPERM | Errno::EACCES)),
            reason: if missing && unsupported {
                format!("the kernel has no nftables ({error})")
            } else {
                say(batch, &error).to_string()
            },
        }
    })
}

fn transact(batch: &[Request]) -> Result<(), ApplyError> {
    Socket::open()?.transact(batch, &message::marks(), Commit::Yes).map_err(|error| say(batch, &error))
}

fn say(batch: &[Request], error: &NetlinkError) -> ApplyError {
    match error {
        NetlinkError::Refused { request: Some(nth), refusal } => {
            ApplyError::Refused(format!("{}: {error}", message::describe(&batch[*nth], refusal.offset)))
        }
        NetlinkError::Refused { request: None, .. } => ApplyError::Refused(error.to_string()),
        NetlinkError::Socket(Errno::EMSGSIZE) => {
            ApplyError::Refused("one transaction is more than net.core.wmem_max lets this user send".to_owned())
        }
        _ => ApplyError::Unreachable(error.to_string()),
    }
}

fn generation() -> Result<Option<u32>, ApplyError> {
    let mut generation = None;
    Socket::open()?.ask(&message::generation(), |_, answer| generation = message::read_generation(answer))?;
    Ok(generation)
}

fn read<A: Address>(socket: &mut Socket, table: Table) -> Result<Installed<'static, A>, NetlinkError> {
    for _ in 1..READS {
        match read_once(socket, table) {
            Err(NetlinkError::Socket(Errno::EINTR)) => {}
            result => return result,
        }
    }
    read_once(socket, table)
}

fn read_once<A: Address>(socket: &mut Socket, table: Table) -> Result<Installed<'static, A>, NetlinkError> {
    let mut reading = Reading::default();
    let mut ask = |question: Question, reading: &mut Reading<A>| match socket
        .ask(&question.request(table, A::FAMILY), |_, answer| reading.take(question, answer))
    {
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(false),
        other => other.map(|()| true),
    };
    if !ask(Question::Table, &mut reading)? {
        return Ok(Installed::Missing);
    }
    for question in Question::REST {
        if !ask(question, &mut reading)? {
            reading.lacks();
        }
    }
    Ok(reading.installed())
}
