//! The office of the writer: held from the start, never, or by election.
//!
//! [`Office::take`] starts what it takes to know; the loops follow [`Office::role`], and [`Fenced`] keeps what they
//! write inside of a tenure.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout_at;
use tokio_util::sync::CancellationToken;

use super::budget::Ledger;
use super::failure::{Class, Failure};
use super::lease::Timing;
use super::lease::run::{self, Election, Seat, Tenure, Work};
use super::lease::stored::StoredLease;
use super::names::Name;
use super::record::Record;
use super::schedule::later;
use super::world::{Blocked, News, Role, Taken, World};
use super::writer::{Choice, Duty, Member, NoDuty};
use crate::k8s::Cluster;
use crate::localapi::Error;
use crate::shutdown::Tasks;

/// Who is not the holder any more looks again after this; its role has changed by then.
const OVER: Duration = Duration::from_secs(5);
/// A holder that cannot order does not compete for this long.
const UNFIT: Duration = Duration::from_secs(30 * 60);

/// Whether this replica is the writer, now and later.
#[derive(Clone, Debug)]
pub struct Office {
    role: watch::Receiver<Role>,
    seat: Option<Seat>,
}

/// A world in which only the holder of a Lease claims and writes.
#[derive(Debug)]
pub struct Fenced<W> {
    world: W,
    seat: Option<Seat>,
    /// Names that are being ordered, and under which tenure.
    claims: Mutex<BTreeMap<Name, (Tenure, Work)>>,
}

// === impl Office ===

impl Office {
    /// Held by `role` for good.
    pub fn fixed(role: Role) -> Self {
        // A receiver outlives its sender with the last value.
        Self { role: watch::channel(role).1, seat: None }
    }

    /// As `choice` says. An election is a task in `tasks`, and gives the Lease back when it is told to stop: start what
    /// works under it later, so that it stops earlier.
    ///
    /// # Errors
    /// The ordinal decides, and there is none.
    pub async fn take(
        choice: Choice,
        member: Option<&Member>,
        cluster: &Cluster,
        duration: Duration,
        tasks: &mut Tasks,
    ) -> Result<Self, NoDuty> {
        let lease = member.map(|member| StoredLease::of_group(cluster.clone(), &member.group));
        let missing = match (&lease, choice) {
            (Some(lease), Choice::Lease) => lease.missing_rules().await,
            _ => Vec::new(),
        };
        let duty = Duty::of(choice, member, missing.is_empty())?;
        if !missing.is_empty() {
            let rules = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            tracing::warn!(
                "not allowed to use a Lease, so the ordinal decides who asks for certificates; the Role lacks:\n{rules}"
            );
        }
        match (duty, member, lease) {
            (Duty::Elected, Some(member), Some(lease)) => {
                tracing::info!(
                    lease = lease.name(),
                    identity = member.identity,
                    "a Lease decides who asks for certificates"
                );
                // Where Pods have no numbers, nobody is preferred.
                let ordinal = member.ordinal.unwrap_or_default();
                let timing = Timing::of(duration);
                let (election, seat) = Election::new(lease, member.identity.clone(), ordinal, timing);
                Ok(Self::by(tasks, election, seat))
            }
            (Duty::Writer, ..) => Ok(Self::fixed(Role::Writer)),
            _ => Ok(Self::fixed(Role::Reader)),
        }
    }

    /// Whether this replica is the writer, followed.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Whether this replica is the writer at this moment.
    pub fn is_writer(&self) -> bool {
        self.seat.as_ref().map_or_else(|| *self.role.borrow() == Role::Writer, Seat::is_holder)
    }

    /// The election, where there is one.
    pub fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// By an election that has not begun.
    pub(super) fn by<S: run::Store>(tasks: &mut Tasks, election: Election<S>, seat: Seat) -> Self {
        Self { role: spawn(tasks, election, &seat), seat: Some(seat) }
    }

    /// What a scrape is told of the election; nothing without one.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        if let Some(seat) = &self.seat {
            let name = "tailpod_lease_transitions_total";
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} How often another replica became the writer.");
            let _ = writeln!(text, "# TYPE {name} counter");
            let _ = writeln!(text, "{name} {}", seat.transitions());
        }
        text
    }

    /// `world`, with what is written to it kept inside of a tenure.
    pub fn fence<W>(&self, world: W) -> Fenced<W> {
        Fenced { world, seat: self.seat.clone(), claims: Mutex::default() }
    }
}

/// Starts `election`, and what turns its role into that of the loops.
fn spawn<S: run::Store>(tasks: &mut Tasks, election: Election<S>, seat: &Seat) -> watch::Receiver<Role> {
    let (sender, role) = watch::channel(Role::Reader);
    let mut part = seat.role();
    let follow = async move {
        let mut before: Option<Tenure> = None;
        loop {
            let tenure = match &*part.borrow_and_update() {
                run::Role::Holder(tenure) => Some(tenure.clone()),
                run::Role::Candidate => None,
            };
            let now = if tenure.is_some() { Role::Writer } else { Role::Reader };
            // Another tenure is news although the role is the same: what began under the one before has ended.
            let is_news = !tenure.iter().all(|tenure| before.as_ref().is_some_and(|before| before.is(tenure)));
            sender.send_if_modified(|role| std::mem::replace(role, now) != now || is_news);
            before = tenure;
            if part.changed().await.is_err() {
                // The election is over. Loops that still run keep a sender to wait on.
                sender.send_replace(Role::Reader);
                return std::future::pending::<()>().await;
            }
        }
    };
    tasks.spawn("certificate lease", |stop: CancellationToken| async move {
        // Both in one task: a role is never left behind by its election.
        tokio::select! {
            () = election.run(stop) => {}
            () = follow => {}
        }
        Ok::<_, Infallible>(())
    });
    role
}

// === impl Fenced ===

impl<W> Fenced<W> {
    /// The world without its fence, to look at.
    pub fn inside(&self) -> &W {
        &self.world
    }

    fn claims(&self) -> MutexGuard<'_, BTreeMap<Name, (Tenure, Work)>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A holder whose tailscaled cannot order is of no use.
    fn let_others_try(&self) {
        if let Some(seat) = &self.seat {
            tracing::warn!(
                "tailscaled only reads certificates here, so other replicas are let try: whoever starts the one that is \
                 to order has to give it TS_CERT_SHARE_MODE=rw"
            );
            seat.resign(UNFIT);
        }
    }

    /// Under which `name` was claimed.
    fn tenure(&self, name: &Name) -> Option<Tenure> {
        self.claims().get(name).map(|(tenure, _)| tenure.clone())
    }

    /// Performs a write for `name`, unless somebody else may be the holder by now.
    async fn within(&self, name: &Name, write: impl Future<Output = ()>) {
        if self.seat.is_none() {
            return write.await;
        }
        match self.tenure(name) {
            Some(tenure) if tenure.covers() => {
                if timeout_at(tenure.until(), write).await.is_err() {
                    tracing::warn!(domain = %name, "the Lease ended before what is known of the certificate was kept");
                }
            }
            _ => tracing::debug!(domain = %name, "nothing is written without the Lease"),
        }
    }
}

impl<W: World> World for Fenced<W> {
    fn now(&self) -> Timestamp {
        self.world.now()
    }

    fn chance(&self) -> f64 {
        self.world.chance()
    }

    async fn certificate(&self, name: &Name, min_validity: Duration, limit: Duration) -> Result<String, Error> {
        let asking = self.world.certificate(name, min_validity, limit);
        let Some(tenure) = self.tenure(name) else { return asking.await };
        if !tenure.is_held() {
            // Asleep since the claim: whoever waits for this is about to be told.
            return std::future::pending().await;
        }
        tokio::select! {
            biased;
            () = tenure.ended() => std::future::pending().await,
            answer = asking => {
                if let Err(error) = &answer
                    && Failure::of(error, self.now()).class == Class::NotWriter
                {
                    self.let_others_try();
                }
                answer
            }
        }
    }

    async fn check_storage(&self, name: &Name) -> Result<(), Blocked> {
        self.world.check_storage(name).await
    }

    async fn load(&self, name: &Name) -> (Record, Ledger) {
        self.world.load(name).await
    }

    async fn save(&self, name: &Name, record: &Record) {
        self.within(name, self.world.save(name, record)).await;
        self.claims().remove(name);
    }

    async fn load_ledger(&self) -> Ledger {
        self.world.load_ledger().await
    }

    async fn save_ledger(&self, name: &Name, ledger: &Ledger) {
        self.within(name, self.world.save_ledger(name, ledger)).await;
    }

    async fn claim(&self, name: &Name) -> Result<Option<Timestamp>, Taken> {
        let Some(seat) = &self.seat else { return self.world.claim(name).await };
        let over = || Taken { holder: "another replica".to_owned(), until: later(self.world.now(), OVER) };
        let tenure = seat.tenure().ok_or_else(over)?;
        let work = tenure.work().ok_or_else(over)?;
        // Before it is written: a claim that is abandoned under way is given up, too.
        self.claims().insert(name.clone(), (tenure.clone(), work));
        let claimed = match timeout_at(tenure.until(), self.world.claim(name)).await {
            Ok(Ok(broken_off)) if tenure.is_held() => return Ok(broken_off),
            Ok(Err(taken)) => taken,
            // Whoever slept in between has claimed it for nothing.
            Ok(Ok(_)) | Err(_) => over(),
        };
        self.claims().remove(name);
        Err(claimed)
    }

    async fn give_up(&self, name: &Name) {
        self.within(name, self.world.give_up(name)).await;
        self.claims().remove(name);
    }

    async fn emptied(&self, names: &BTreeSet<Name>) -> Vec<Name> {
        self.world.emptied(names).await
    }

    async fn tell(&self, name: &Name, news: News) {
        self.world.tell(name, news).await;
    }
}
