//! Elections of whole replicas under a paused clock, over one made-up API server that is slow, cut off and forgetful.
//!
//! The server itself holds the promise: at the moment at which it writes another holder down, nobody else may count
//! himself as one, and no work of an earlier holder may be under way.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};

use super::super::Timing;
use super::super::tests::{Random, Server};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The made-up API server, and all replicas that reach it. Clones are the same.
#[derive(Clone)]
struct World(Arc<Mutex<State>>);

struct State {
    random: Random,
    server: Server,
    /// Requests under way, which nobody can call back.
    under_way: JoinSet<()>,
    replicas: BTreeMap<usize, Replica>,
    last_write: Instant,
    /// Who became the holder, and when.
    holders: Vec<(Instant, String)>,
}

/// One replica as the world sees it.
struct Replica {
    seat: Option<Seat>,
    /// Cut off until then.
    cut: Instant,
    /// Slow until then: requests and answers take many seconds, some answers are lost.
    slow: Instant,
    paused: Arc<Mutex<Instant>>,
    /// One for the world, and one for each piece of work under way in the process.
    working: Arc<()>,
    /// When it last had a reason not to be the holder.
    unhealthy: Instant,
    life: Option<tokio::task::AbortHandle>,
    stop: CancellationToken,
}

/// A replica's way to the server.
struct Link(World, usize);

/// A process that can be made to stop for a while, as SIGSTOP does.
struct Pausable<F> {
    inner: Pin<Box<F>>,
    until: Arc<Mutex<Instant>>,
    nap: Pin<Box<Sleep>>,
}

impl<F: Future> Future for Pausable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let until = *self.until.lock().unwrap();
        if Instant::now() < until {
            self.nap.as_mut().reset(until);
            if self.nap.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.inner.as_mut().poll(context)
    }
}

impl Store for Link {
    async fn serve(&self, ask: Ask, _: Instant) -> Answer {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.0.state();
            let now = Instant::now();
            let (cut, slow) = (now < state.replicas[&self.1].cut, now < state.replicas[&self.1].slow);
            if cut && state.random.below(2) == 0 {
                return Answer::Failed;
            }
            let millis = if slow { 20_000 } else { 400 };
            let (there, back) = (state.random.below(millis), state.random.below(millis));
            let lost = slow && state.random.below(4) == 0;
            let (world, from) = (self.0.clone(), self.1);
            state.under_way.spawn(async move {
                if cut {
                    // Never answered, never carried out.
                    std::future::pending::<()>().await;
                }
                sleep(Duration::from_millis(there)).await;
                let said = world.carry_out(ask, from);
                sleep(Duration::from_millis(back)).await;
                if lost {
                    std::future::pending::<()>().await;
                }
                let _ = answer.send(said);
            });
        }
        answered.await.unwrap_or(Answer::Failed)
    }

    fn wall(&self) -> Timestamp {
        // A clock that jumps: nothing may depend on it.
        let second = self.0.state().random.below(2_000_000_000);
        Timestamp::from_second(second.try_into().unwrap()).unwrap()
    }

    fn chance(&self) -> f64 {
        f64::from(u32::try_from(self.0.state().random.below(1000)).unwrap()) / 1000.0
    }
}

impl World {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random::new(seed),
            server: Server::default(),
            under_way: JoinSet::new(),
            replicas: BTreeMap::new(),
            last_write: Instant::now(),
            holders: Vec::new(),
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The server's side of a request of replica `from`.
    fn carry_out(&self, ask: Ask, from: usize) -> Answer {
        let state = &mut *self.state();
        let before = state.server.record.as_ref().map(|record| record.holder.clone()).unwrap_or_default();
        let version = state.server.version;
        let answer = state.server.serve(ask);
        if state.server.version != version {
            state.last_write = Instant::now();
        }
        let holder = state.server.record.as_ref().map(|record| record.holder.clone()).unwrap_or_default();
        if holder != before {
            for (n, replica) in &state.replicas {
                let counts_itself = replica.seat.as_ref().is_some_and(Seat::is_holder);
                assert!(!counts_itself || (*n == from && holder == id(*n)), "{n} still holds what goes to `{holder}`");
                // Given back only when nothing is under way, and taken over only after the time for that. Which a
                // process that slept does not have: it wakes to find that its tenure covers nothing any more.
                let paused = *replica.paused.lock().unwrap() + MINUTE > Instant::now();
                assert!(!replica.works() || paused, "{n} still works under what goes to `{holder}`");
            }
            if !holder.is_empty() {
                state.holders.push((Instant::now(), holder));
            }
        }
        answer
    }

    /// Starts replica `n`; `process` tells its lives apart only in what is pending.
    fn start(&self, n: usize, life: &mut JoinSet<()>) {
        let timing = Timing::of(MINUTE);
        let (election, seat) = Election::new(Link(self.clone(), n), id(n), n.try_into().unwrap(), timing);
        let (stop, long_ago) = (CancellationToken::new(), Instant::now() - MINUTE);
        let paused = Arc::new(Mutex::new(long_ago));
        let working = Arc::new(());
        let work = work(self.clone(), Arc::clone(&working), seat.role());
        let stopped = stop.clone();
        let process = async move {
            let running = election.run(stopped);
            tokio::pin!(running);
            // What works ends with the process.
            tokio::select! {
                () = &mut running => {}
                () = work => {}
            }
        };
        let process =
            Pausable { inner: Box::pin(process), until: Arc::clone(&paused), nap: Box::pin(sleep(Duration::ZERO)) };
        let abort = life.spawn(process);
        let now = Instant::now();
        self.state().replicas.insert(
            n,
            Replica { seat: Some(seat), cut: now, slow: now, paused, working, unhealthy: now, life: Some(abort), stop },
        );
    }

    fn with<T>(&self, n: usize, act: impl FnOnce(&mut Replica) -> T) -> T {
        act(self.state().replicas.get_mut(&n).unwrap())
    }

    /// SIGKILL.
    fn kill(&self, n: usize) {
        self.with(n, |replica| {
            replica.life.take().unwrap().abort();
            replica.seat = None;
        });
    }

    /// The replica that counts itself as the holder.
    fn holder(&self) -> Option<usize> {
        let state = self.state();
        let mut holders =
            state.replicas.iter().filter(|(_, replica)| replica.seat.as_ref().is_some_and(Seat::is_holder));
        let holder = holders.next().map(|(n, _)| *n);
        assert!(holders.next().is_none(), "two replicas count themselves as the holder");
        holder
    }

    /// Waits until another replica than `not` is the holder; how long that took.
    async fn takeover(&self, not: usize) -> Duration {
        let begun = Instant::now();
        while self.holder().is_none_or(|holder| holder == not) {
            sleep(Duration::from_millis(100)).await;
            assert!(begun.elapsed() < 10 * MINUTE, "nobody takes over");
        }
        begun.elapsed()
    }
}

impl Replica {
    /// Whether something is under way besides the process itself, which has one of them.
    fn works(&self) -> bool {
        Arc::strong_count(&self.working) > 2
    }

    fn is_gone(&self) -> bool {
        self.life.as_ref().is_none_or(tokio::task::AbortHandle::is_finished)
    }
}

fn id(n: usize) -> String {
    format!("pg-{n}_u{n}")
}

/// What a holder does: pieces of work that take some seconds to end when it is over. Never ends.
async fn work(world: World, working: Arc<()>, mut role: watch::Receiver<Role>) {
    loop {
        let Ok(Role::Holder(tenure)) =
            role.wait_for(|role| matches!(role, Role::Holder(_))).await.map(|role| role.clone())
        else {
            return std::future::pending().await;
        };
        if let Some(under) = tenure.work() {
            let working = Arc::clone(&working);
            tenure.ended().await;
            let tidying = world.state().random.below(15);
            sleep(seconds(tidying)).await;
            drop((working, under));
        }
        tenure.ended().await;
        // Another tenure, or the channel's next value.
        sleep(Duration::from_millis(10)).await;
    }
}

/// Three replicas, of which the first is the holder after some seconds.
async fn three(seed: u64) -> (World, JoinSet<()>) {
    let (world, mut lives) = (World::new(seed), JoinSet::new());
    for n in 0..3 {
        world.start(n, &mut lives);
    }
    sleep(seconds(100)).await;
    assert_eq!(world.holder(), Some(0), "the lowest ordinal goes first");
    (world, lives)
}

#[tokio::test(start_paused = true)]
async fn s17_a_killed_holder_is_replaced_within_105_seconds() {
    for seed in 0..20 {
        let (world, _lives) = three(seed).await;
        sleep(Duration::from_millis(777 * seed)).await;
        world.kill(0);
        let took = world.takeover(0).await;
        assert!((seconds(50)..seconds(105)).contains(&took), "seed {seed}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn s18_a_holder_without_the_server_gives_up_before_anybody_takes_over() {
    for seed in 0..20 {
        let (world, _lives) = three(seed).await;
        let Role::Holder(tenure) = world.with(0, |replica| replica.seat.as_ref().unwrap().role().borrow().clone())
        else {
            panic!("it holds")
        };
        world.with(0, |replica| replica.cut = Instant::now() + 10 * MINUTE);
        let cut = Instant::now();
        tenure.ended().await;
        let gave_up = cut.elapsed();
        assert!((seconds(29)..seconds(41)).contains(&gave_up), "seed {seed}: {gave_up:?}");
        assert!(!tenure.is_held() && tenure.work().is_none());
        let free = world.takeover(0).await;
        assert!(free >= seconds(19), "seed {seed}: {free:?} in which a daemon can be restarted");
        assert!(gave_up + free <= seconds(105), "seed {seed}: {:?}", gave_up + free);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_hangs_does_not_keep_a_holder() {
    /// Answers once, and then never.
    struct Hanging(Mutex<Option<Answer>>);

    impl Store for Hanging {
        async fn serve(&self, ask: Ask, _: Instant) -> Answer {
            let answer = match ask {
                Ask::Read => Some(Answer::Absent),
                Ask::Create(record) => self.0.lock().unwrap().take().map(|_| Answer::Written(record)),
                Ask::Update(_) => None,
            };
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }

        fn wall(&self) -> Timestamp {
            Timestamp::UNIX_EPOCH
        }

        fn chance(&self) -> f64 {
            0.5
        }
    }

    let store = Hanging(Mutex::new(Some(Answer::Absent)));
    let (election, seat) = Election::new(store, id(0), 0, Timing::of(MINUTE));
    let mut lives = JoinSet::new();
    let stop = CancellationToken::new();
    lives.spawn(election.run(stop.clone()));
    let begun = Instant::now();
    seat.role().wait_for(Role::is_holder).await.unwrap();
    seat.role().wait_for(|role| !role.is_holder()).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 40);
    // A stop does not wait for such an answer either.
    let stopping = Instant::now();
    stop.cancel();
    lives.join_next().await;
    assert!(stopping.elapsed() < seconds(5), "{:?}", stopping.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_hands_over_at_once_and_after_the_work() {
    let (world, mut lives) = three(1).await;
    world.with(0, |replica| replica.stop.cancel());
    let took = world.takeover(0).await;
    // At most fifteen seconds of tidying up, and a candidate's look.
    assert!(took < seconds(15 + 18 + 2), "{took:?}");
    lives.join_next().await.unwrap().unwrap();
    let record = world.state().server.record.clone().unwrap();
    assert_eq!((record.transitions, world.holder().map(id)), (1, Some(record.holder)));
    let seat = world.with(1, |replica| replica.seat.clone()).unwrap();
    sleep(seconds(20)).await;
    assert_eq!(seat.transitions(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_resigns_does_not_compete_for_a_while() {
    let (world, _lives) = three(2).await;
    world.with(0, |replica| replica.seat.clone()).unwrap().resign(30 * MINUTE);
    world.takeover(0).await;
    for other in [1, 2] {
        world.kill(other);
    }
    sleep(25 * MINUTE).await;
    assert_eq!(world.holder(), None);
    sleep(10 * MINUTE).await;
    assert_eq!(world.holder(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_paused_holder_knows_before_its_timers_do() {
    let (world, _lives) = three(3).await;
    let Role::Holder(tenure) = world.with(0, |replica| replica.seat.as_ref().unwrap().role().borrow().clone()) else {
        panic!("it holds")
    };
    world.with(0, |replica| *replica.paused.lock().unwrap() = Instant::now() + 5 * MINUTE);
    world.takeover(0).await;
    // Nobody could cancel it yet.
    assert!(!tenure.inner.ended.is_cancelled() && !tenure.is_held());
    sleep(5 * MINUTE).await;
    assert!(tenure.inner.ended.is_cancelled() && world.holder().is_some_and(|holder| holder != 0));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_process_goes_on_as_the_holder() {
    let (world, mut lives) = three(4).await;
    world.kill(0);
    world.start(0, &mut lives);
    sleep(seconds(5)).await;
    assert_eq!(world.holder(), Some(0));
    let record = world.state().server.record.clone().unwrap();
    assert_eq!((record.transitions, record.holder), (0, id(0)));
}

/// Random schedules of pauses, partitions, slow and lost answers, kills, stops and clock steps.
#[tokio::test(start_paused = true)]
async fn five_hundred_schedules_have_never_two_holders_and_always_one_again() {
    for seed in 0..500 {
        schedule(seed).await;
    }
}

async fn schedule(seed: u64) {
    // Room for times that lie before the beginning.
    sleep(MINUTE).await;
    let (world, mut lives) = (World::new(seed), JoinSet::new());
    let mut random = Random::new(seed + 1_000_000);
    for n in 0..3 {
        world.start(n, &mut lives);
    }
    for _ in 0..80 {
        sleep(Duration::from_millis(4000 + random.below(4000))).await;
        let now = Instant::now();
        let n = usize::try_from(random.below(3)).unwrap();
        let until = now + seconds(random.below(120));
        let is_alive = world.with(n, |replica| replica.life.is_some());
        match random.below(16) {
            0 => world.with(n, |replica| replica.cut = until),
            1 => world.with(n, |replica| replica.slow = until),
            2 => world.with(n, |replica| *replica.paused.lock().unwrap() = until),
            3 if is_alive => world.kill(n),
            4 if is_alive => world.with(n, |replica| replica.stop.cancel()),
            5..=7 if world.with(n, |replica| replica.is_gone()) => world.start(n, &mut lives),
            _ => {}
        }
        world.holder();
        world.judge(seed);
    }
    // Calm: pauses end, everybody is there and fast.
    sleep(seconds(120)).await;
    let now = Instant::now();
    for n in 0..3 {
        world.with(n, |replica| {
            (replica.cut, replica.slow) = (now, now);
        });
        if world.with(n, |replica| replica.is_gone()) {
            world.start(n, &mut lives);
        }
    }
    // Answers that are on their way, and then a takeover.
    sleep(seconds(40 + 105)).await;
    let holder = world.holder();
    assert!(holder.is_some(), "seed {seed}: nobody holds it");
    sleep(seconds(100)).await;
    assert_eq!(world.holder(), holder, "seed {seed}: and it stays");
    assert!(world.state().holders.len() > 1 || seed > 0, "seed {seed}: something has happened");
    if let Some(failed) = lives.try_join_next().and_then(Result::err).filter(tokio::task::JoinError::is_panic) {
        panic!("seed {seed}: {failed}");
    }
}

impl World {
    /// Where somebody has been well for 105 seconds, the record has been written within them.
    fn judge(&self, seed: u64) {
        let state = &mut *self.state();
        let now = Instant::now();
        let waited = now - state.last_write;
        for (n, replica) in &mut state.replicas {
            let paused = *replica.paused.lock().unwrap();
            let unwell = replica.cut.max(replica.slow).max(paused);
            if replica.is_gone() || replica.stop.is_cancelled() {
                replica.unhealthy = now;
            } else if unwell > replica.unhealthy {
                replica.unhealthy = unwell;
            }
            let well = now.saturating_duration_since(replica.unhealthy);
            assert!(
                well <= seconds(105 + 20) || waited <= seconds(105) + SECOND,
                "seed {seed}: {n} was well for {well:?} and nothing was written for {waited:?}"
            );
        }
    }
}
