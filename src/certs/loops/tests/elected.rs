//! Replicas whose writer a Lease chooses: orders, claims and results when it changes hands.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::super::lease::run::{Election, Store};
use super::super::super::lease::tests::Server;
use super::super::super::lease::{Answer, Ask, Timing};
use super::super::super::office::{Fenced, Office};
use super::*;
use crate::shutdown::Tasks;

/// A replica's way to the Lease.
struct Link {
    server: Arc<Mutex<Server>>,
    cut: Arc<AtomicBool>,
    /// Nothing is answered before this, and everything at once afterwards.
    hiccup: Arc<Mutex<Option<Instant>>>,
}

impl Store for Link {
    async fn serve(&self, ask: Ask, _: Instant) -> Answer {
        if self.cut.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        let hiccup = *self.hiccup.lock().unwrap();
        match hiccup {
            None => sleep(Duration::from_millis(50)).await,
            Some(until) if Instant::now() < until => std::future::pending().await,
            Some(_) => {}
        }
        self.server.lock().unwrap().serve(ask)
    }

    fn wall(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn chance(&self) -> f64 {
        0.5
    }
}

/// A replica with a daemon of its own; certificates are where its daemon put them.
struct Replica {
    fake: Fake,
    office: Office,
    loops: Loops<Fenced<Fake>>,
    cut: Arc<AtomicBool>,
    hiccup: Arc<Mutex<Option<Instant>>>,
    tasks: Tasks,
    _allowed: watch::Sender<Allowed>,
}

impl Replica {
    async fn new(server: &Arc<Mutex<Server>>, ordinal: u32) -> Self {
        let (cut, mut tasks) = (Arc::new(AtomicBool::new(false)), Tasks::new(CancellationToken::new()));
        let hiccup = Arc::default();
        let link = Link { server: Arc::clone(server), cut: Arc::clone(&cut), hiccup: Arc::clone(&hiccup) };
        let timing = Timing::of(MINUTE);
        let (election, seat) = Election::new(link, format!("pg-{ordinal}_u"), ordinal, timing);
        let office = Office::by(&mut tasks, election, seat);
        let fake = Fake::new();
        let (allowed, allowed_seen) = watch::channel(Allowed::Unusable);
        let options =
            Options { growth: Growth::Steps, start: Start::Spread, concurrent: CONCURRENT, node: Node::Leave };
        let world = office.fence(fake.clone());
        let loops = Loops::new(world, options, allowed_seen, office.role(), CancellationToken::new()).await;
        Self { fake, office, loops, cut, hiccup, tasks, _allowed: allowed }
    }

    async fn serves(&self, names: &[&str]) {
        self.loops.ensure(&config(names)).await.unwrap();
    }

    fn calls(&self) -> usize {
        self.fake.state().calls.len()
    }
}

async fn three() -> [Replica; 3] {
    let server = Arc::default();
    let all = [Replica::new(&server, 0).await, Replica::new(&server, 1).await, Replica::new(&server, 2).await];
    sleep(Duration::from_secs(30)).await;
    assert_eq!(writers(&all), [true, false, false]);
    all
}

fn writers(all: &[Replica; 3]) -> [bool; 3] {
    [all[0].office.is_writer(), all[1].office.is_writer(), all[2].office.is_writer()]
}

#[tokio::test(start_paused = true)]
async fn s17_what_a_dead_holder_has_not_ordered_another_one_orders_once() {
    let mut all = three().await;
    // It dies in the moment in which the name appears.
    all[0].tasks = Tasks::new(CancellationToken::new());
    for replica in &all {
        replica.serves(&[A]).await;
    }
    sleep(Duration::from_secs(120)).await;
    assert_eq!(writers(&all).iter().filter(|writes| **writes).count(), 1);
    assert!(!all[0].office.is_writer(), "a tenure ends with its election");
    sleep(MINUTE).await;
    let orders: usize = all.iter().map(Replica::calls).sum();
    assert_eq!((orders, all[0].calls()), (1, 0), "exactly one order");
}

#[tokio::test(start_paused = true)]
async fn s18_who_cannot_renew_aborts_and_writes_nothing_before_anybody_takes_over() {
    let all = three().await;
    all[0].fake.answers(A, [Reply::Never]);
    all[0].serves(&[A]).await;
    sleep(MINUTE).await;
    assert_eq!(all[0].fake.state().open, 1);
    let cut = Instant::now();
    all[0].cut.store(true, Ordering::Relaxed);
    while all[0].fake.state().open > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(cut.elapsed() <= Duration::from_secs(41), "{:?}", cut.elapsed());
    assert_eq!(writers(&all), [false; 3]);
    while !all[1].office.is_writer() && !all[2].office.is_writer() {
        sleep(Duration::from_millis(100)).await;
    }
    let took = cut.elapsed();
    assert!((Duration::from_secs(50)..Duration::from_secs(105)).contains(&took), "{took:?}");
    let state = all[0].fake.state();
    assert_eq!((state.aborted, state.records.len(), state.given_up.len()), (1, 0, 0), "nothing is written");
}

#[tokio::test(start_paused = true)]
async fn a_result_that_comes_after_the_loss_is_nobodys() {
    let all = three().await;
    all[0].serves(&[A]).await;
    sleep(MINUTE).await;
    let kept = all[0].fake.state().records.clone();
    assert_eq!(kept.len(), 1, "what comes under the Lease is kept");
    let world = all[0].office.fence(all[0].fake.clone());
    let name = Name::parse(B).unwrap();
    world.claim(&name).await.unwrap();
    all[0].cut.store(true, Ordering::Relaxed);
    sleep(2 * MINUTE).await;
    world.save(&name, &Record::succeeded(world.now())).await;
    world.save_ledger(&name, &Ledger::default()).await;
    world.give_up(&name).await;
    assert!(world.claim(&name).await.is_err(), "and nothing new is claimed");
    let state = all[0].fake.state();
    assert_eq!((&state.records, state.given_up.len()), (&kept, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_under_one_tenure_does_not_outlast_it_in_the_next() {
    let all = three().await;
    all[0].fake.answers(A, [Reply::Never, Reply::Certificate]);
    all[0].serves(&[A]).await;
    sleep(MINUTE).await;
    assert_eq!(all[0].fake.state().open, 1);
    // The Lease is lost, and won again before any task but the election's could look.
    let until = all[0].office.seat().unwrap().tenure().unwrap().until();
    *all[0].hiccup.lock().unwrap() = Some(until - Duration::from_secs(3));
    while all[0].fake.state().aborted == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(all[0].office.is_writer(), "the same replica goes on");
    assert_eq!(all[0].office.seat().unwrap().transitions(), 0);
    sleep(MINUTE).await;
    assert_eq!((all[0].calls(), all[0].fake.state().records.len()), (2, 1), "it asks again");
}

#[tokio::test(start_paused = true)]
async fn who_resigns_gives_up_its_claim_and_then_the_lease() {
    let all = three().await;
    all[0].fake.answers(A, [Reply::Never]);
    all[0].serves(&[A]).await;
    sleep(MINUTE).await;
    all[0].office.seat().unwrap().resign(30 * MINUTE);
    sleep(Duration::from_secs(1)).await;
    let given_up = all[0].fake.state().given_up.clone();
    assert_eq!((all[0].fake.state().open, given_up), (0, vec![A.to_owned()]));
    sleep(Duration::from_secs(20)).await;
    assert!(!all[0].office.is_writer() && (all[1].office.is_writer() || all[2].office.is_writer()));
    assert_eq!(all[1].office.seat().unwrap().transitions(), 1);
    let metrics = all[1].office.metrics();
    assert!(metrics.ends_with("\ntailpod_lease_transitions_total 1\n"), "{metrics}");
    assert!(Office::fixed(Role::Writer).metrics().is_empty() && Office::fixed(Role::Writer).is_writer());
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_daemon_only_reads_lets_others_try() {
    let all = three().await;
    all[0].fake.answers(A, [Reply::Fails(500, "cannot issue in read-only mode")]);
    for replica in &all {
        replica.serves(&[A]).await;
    }
    sleep(3 * MINUTE).await;
    assert_eq!((all[0].calls(), all[0].office.is_writer()), (1, false));
    assert_eq!(all[1].calls() + all[2].calls(), 1);
}
