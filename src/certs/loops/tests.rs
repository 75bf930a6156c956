//! Months of certificates in moments: the loops under a paused clock, against a daemon that is made up.
//!
//! Scenarios are those of certs.md 13 (`s…`) and weaknesses those of 12 (`w…`), under their own numbers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::super::budget::{Kind, Ledger};
use super::super::failure::Class;
use super::super::record::Record;
use super::super::schedule::later;
use super::super::world::{Blocked, News, Taken};
use super::*;
use crate::localapi::{Error, ErrorKind};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// What the made-up daemon answers.
#[derive(Clone, Debug)]
enum Reply {
    /// The certificate it has, or a new one.
    Certificate,
    /// A new one, whatever it has.
    New,
    Fails(u16, &'static str),
    Limited(u64),
    /// 200, and no certificate.
    Odd,
    Refused,
    Never,
}

/// The made-up daemon, clock and store. Clones are the same.
#[derive(Clone)]
struct Fake(Arc<Inner>);

struct Inner {
    start: (Timestamp, Instant),
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// For each name its next answers; the last one is for ever. `*` is for all others.
    replies: BTreeMap<String, VecDeque<Reply>>,
    /// When each call came, for which name, with which `min_validity`.
    calls: Vec<(Duration, String, Duration)>,
    /// Calls that were dropped before their answer.
    aborted: usize,
    open: usize,
    most_open: usize,
    certificates: BTreeMap<String, (String, Timestamp)>,
    lifetime: Duration,
    blocked: BTreeSet<String>,
    records: BTreeMap<String, Record>,
    ledger: Ledger,
    told: Vec<News>,
    taken: Option<Taken>,
    /// When an order began that another replica was killed in.
    broken_off: Option<Timestamp>,
    given_up: Vec<String>,
    /// What chance says next; afterwards one half.
    chances: VecDeque<f64>,
}

/// Notices that a call was dropped.
struct Open(Fake, bool);

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open -= 1;
        state.aborted += usize::from(!self.1);
    }
}

impl Fake {
    fn new() -> Self {
        Self::at("2026-01-01T00:00:00Z")
    }

    /// With a clock that says so.
    fn at(time: &str) -> Self {
        let start = (time.parse().unwrap(), Instant::now());
        let state = State { lifetime: 90 * DAY, ..State::default() };
        Self(Arc::new(Inner { start, state: Mutex::new(state) }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn answers(&self, name: &str, replies: impl IntoIterator<Item = Reply>) {
        self.state().replies.insert(name.to_owned(), replies.into_iter().collect());
    }

    /// When the calls came, since the start.
    fn calls(&self) -> Vec<Duration> {
        self.state().calls.iter().map(|(at, ..)| *at).collect()
    }

    /// The pauses between them in whole minutes.
    fn pauses(&self) -> Vec<u64> {
        self.calls().windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs() / 60).collect()
    }

    fn certificate_of(&self, name: &str, renew: bool) -> String {
        let now = self.now();
        let lifetime = self.state().lifetime;
        let mut state = self.state();
        let (pem, _) = state
            .certificates
            .entry(name.to_owned())
            .and_modify(|kept| {
                if renew || now > kept.1 {
                    *kept = (made(name, now, lifetime), later(now, lifetime));
                }
            })
            .or_insert_with(|| (made(name, now, lifetime), later(now, lifetime)));
        pem.clone()
    }
}

fn made(name: &str, now: Timestamp, lifetime: Duration) -> String {
    let at = |time: Timestamp| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(time.as_second().unsigned_abs());
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    (params.not_before, params.not_after) = (at(now), at(later(now, lifetime)));
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

fn error(kind: ErrorKind) -> Error {
    Error { endpoint: "cert", kind, server_version: None }
}

impl World for Fake {
    fn now(&self) -> Timestamp {
        later(self.0.start.0, self.0.start.1.elapsed())
    }

    fn chance(&self) -> f64 {
        self.state().chances.pop_front().unwrap_or(0.5)
    }

    async fn certificate(&self, name: &Name, min_validity: Duration, _: Duration) -> Result<String, Error> {
        let mut open = {
            let mut state = self.state();
            state.calls.push((self.0.start.1.elapsed(), name.to_string(), min_validity));
            state.open += 1;
            state.most_open = state.most_open.max(state.open);
            Open(self.clone(), false)
        };
        let reply = {
            let mut state = self.state();
            let key = if state.replies.contains_key(name.as_str()) { name.as_str() } else { "*" };
            match state.replies.get_mut(key) {
                Some(replies) if replies.len() > 1 => replies.pop_front().unwrap(),
                Some(replies) => replies[0].clone(),
                None => Reply::Certificate,
            }
        };
        if matches!(reply, Reply::Never) {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_secs(5)).await;
        open.1 = true;
        match reply {
            Reply::Certificate => Ok(self.certificate_of(name.as_str(), false)),
            Reply::New => Ok(self.certificate_of(name.as_str(), true)),
            Reply::Fails(code, text) => Err(error(ErrorKind::Status { code, message: text.to_owned() })),
            Reply::Limited(seconds) => Err(error(ErrorKind::RateLimited {
                retry_after: Some(Duration::from_secs(seconds)),
                message: "slow down".to_owned(),
            })),
            Reply::Refused => Err(error(ErrorKind::DaemonNotRunning {
                socket: "/s".into(),
                stale: true,
                source: std::io::ErrorKind::ConnectionRefused.into(),
            })),
            Reply::Odd => Ok("hello".to_owned()),
            Reply::Never => unreachable!("it waits for ever"),
        }
    }

    async fn check_storage(&self, name: &Name) -> Result<(), Blocked> {
        let blocked = self.state().blocked.contains(name.as_str());
        if blocked { Err(Blocked(format!("there is no Secret `{name}`"))) } else { Ok(()) }
    }

    async fn load(&self, name: &Name) -> (Record, Ledger) {
        let state = self.state();
        (state.records.get(name.as_str()).cloned().unwrap_or_default(), state.ledger.of(name))
    }

    async fn save(&self, name: &Name, record: &Record) {
        self.state().records.insert(name.to_string(), record.clone());
    }

    async fn load_ledger(&self) -> Ledger {
        self.state().ledger.clone()
    }

    async fn save_ledger(&self, _: &Name, ledger: &Ledger) {
        self.state().ledger = ledger.clone();
    }

    async fn claim(&self, _: &Name) -> Result<Option<Timestamp>, Taken> {
        let now = self.now();
        let taken = self.state().taken.clone().filter(|taken| now < taken.until);
        taken.map_or_else(|| Ok(self.state().broken_off.take()), Err)
    }

    async fn give_up(&self, name: &Name) {
        self.state().given_up.push(name.to_string());
    }

    async fn tell(&self, _: &Name, news: News) {
        self.state().told.push(news);
    }
}

/// The loops, and what they hang on.
struct Scene {
    fake: Fake,
    loops: Loops<Fake>,
    allowed: watch::Sender<Allowed>,
    role: watch::Sender<Role>,
}

fn allowed(names: &[&str]) -> Allowed {
    Allowed::Names(Arc::new(names.iter().map(|name| (*name).to_owned()).collect()))
}

impl Scene {
    async fn new(fake: Fake, growth: Growth) -> Self {
        let (allowed, allowed_seen) = watch::channel(Allowed::Unusable);
        let (role, role_seen) = watch::channel(Role::Writer);
        let options = Options { growth, start: Start::Spread, concurrent: CONCURRENT, node: Node::Leave };
        let loops = Loops::new(fake.clone(), options, allowed_seen, role_seen, CancellationToken::new()).await;
        Self { fake, loops, allowed, role }
    }

    async fn of(config: &Value) -> Self {
        let scene = Self::new(Fake::new(), Growth::Steps).await;
        scene.loops.ensure(config).await.unwrap();
        scene
    }

    async fn standing(&self, name: &str) -> Standing {
        self.loops.standing(&Name::parse(name).unwrap()).await.unwrap().borrow().clone()
    }
}

/// A config with a Service on 443 for each name.
fn config(names: &[&str]) -> Value {
    let services: serde_json::Map<_, _> = names
        .iter()
        .map(|name| {
            let label = name.split('.').next().unwrap();
            (format!("svc:{label}"), json!({"Web": {format!("{name}:443"): {}, format!("{name}:80"): {}}}))
        })
        .collect();
    json!({ "Services": services })
}

const A: &str = "a.tail1.ts.net";
const B: &str = "b.tail1.ts.net";

#[tokio::test(start_paused = true)]
async fn s01_to_s04_as_many_loops_as_names() {
    let scene = Scene::of(&json!({})).await;
    assert_eq!(scene.loops.live().await, 0);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    assert_eq!(scene.loops.live().await, 1, "443 and 80 of one host");
    assert_eq!(scene.loops.ensure(&Value::Null).await, Err(EnsureError::NoConfig(NoConfig)));
    assert_eq!(scene.loops.live().await, 1, "untouched");
    let mut both = config(&[A]);
    both["Services"]["svc:b"] = json!({"TCP": {"443": {"TCPForward": "h:1", "TerminateTLS": B}}});
    scene.loops.ensure(&both).await.unwrap();
    assert_eq!(scene.loops.live().await, 2);
    scene.loops.ensure(&json!({})).await.unwrap();
    assert_eq!(scene.loops.live().await, 0);
}

#[tokio::test(start_paused = true)]
async fn s05_a_name_that_goes_takes_its_request_along() {
    let scene = Scene::of(&config(&[A, B])).await;
    scene.fake.answers(B, [Reply::Never]);
    sleep(MINUTE).await;
    assert_eq!((scene.loops.live().await, scene.fake.state().open), (2, 1));
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!((scene.loops.live().await, scene.fake.state().aborted), (1, 1));
    // Gone and back again before anybody could look: one loop.
    scene.loops.ensure(&config(&[])).await.unwrap();
    scene.loops.ensure(&config(&[B])).await.unwrap();
    sleep(MINUTE).await;
    assert_eq!((scene.loops.live().await, scene.fake.state().open), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn s06_a_bad_key_costs_one_loop() {
    let mut bad = config(&[A, B]);
    bad["Services"]["svc:c"] = json!({"Web": {"foo": {}}});
    let scene = Scene::of(&json!({})).await;
    let warnings = scene.loops.ensure(&bad).await.unwrap();
    assert_eq!((scene.loops.live().await, warnings.len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn s07_nothing_is_asked_for_before_it_is_allowed() {
    let scene = Scene::of(&json!({})).await;
    scene.allowed.send_replace(allowed(&[B]));
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(10 * HOUR).await;
    assert!(scene.fake.calls().is_empty());
    assert_eq!(scene.standing(A).await.phase, Phase::NotAllowed);
    scene.allowed.send_replace(allowed(&[A, B]));
    sleep(MINUTE).await;
    assert_eq!(scene.fake.calls().len(), 1, "exactly one, soon");
    // A name that goes away again is left alone, however due it is.
    scene.allowed.send_replace(allowed(&[]));
    sleep(30 * DAY).await;
    assert_eq!(scene.fake.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn s09_the_daemon_being_away_does_not_count() {
    let scene = Scene::of(&json!({})).await;
    let bad = Reply::Fails(500, "400 urn:ietf:params:acme:error:badNonce: x");
    scene.fake.answers(A, [vec![Reply::Refused; 3], vec![bad; 5], vec![Reply::Certificate]].concat());
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(7 * DAY).await;
    assert_eq!(scene.fake.pauses()[..8], [1, 1, 1, 1, 10, 100, 1440, 1440]);
    assert_eq!(scene.standing(A).await.record.failures, 0);
}

#[tokio::test(start_paused = true)]
async fn s10_w16_doubling_up_to_a_day() {
    let scene = Scene::new(Fake::new(), Growth::Exponential).await;
    scene.fake.answers(A, [Reply::Fails(500, "connection: reset")]);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(40 * DAY).await;
    let pauses = scene.fake.pauses();
    assert_eq!(pauses[..12], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440]);
    // From the 29th failure on upstream's older arithmetic overflowed, and it asked without a pause.
    assert!(pauses.len() >= 40 && pauses[11..].iter().all(|pause| *pause == 1440), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn s11_and_s12_the_authority_says_when() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Limited(1020), Reply::Certificate]);
    let text =
        "CreateOrder: 429 urn:ietf:params:acme:error:rateLimited: many, retry after 2026-01-01 02:00:00 UTC: see";
    scene.fake.answers(B, [Reply::Fails(500, text), Reply::Certificate]);
    scene.loops.ensure(&config(&[A, B])).await.unwrap();
    sleep(MINUTE).await;
    let standing = scene.standing(B).await;
    assert_eq!((standing.record.failures, standing.record.last_error_class), (1, Some(Class::RateLimited)));
    sleep(3 * HOUR).await;
    let of = |name: &str| {
        let state = scene.fake.state();
        state.calls.iter().filter(|(_, called, _)| called == name).map(|(at, ..)| at.as_secs()).collect::<Vec<_>>()
    };
    let (a, b) = (of(A), of(B));
    let pause = a[1] - a[0];
    assert!((1020..=1074 + 5).contains(&pause), "{pause} s");
    assert!((7200..7200 + 7200 / 20).contains(&b[1]), "at two o'clock: {} s", b[1]);
}

#[tokio::test(start_paused = true)]
async fn s13_a_name_that_the_daemon_refuses_does_not_count() {
    let scene = Scene::of(&json!({})).await;
    scene.allowed.send_replace(allowed(&[A]));
    scene.fake.answers(A, [Reply::Fails(500, "invalid domain \"a\"; must be one of [\"x\"]")]);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(MINUTE).await;
    let standing = scene.standing(A).await;
    assert_eq!((&standing.phase, standing.record.failures), (&Phase::NotAllowed, 0));
    sleep(10 * MINUTE).await;
    assert!(scene.fake.calls().len() <= 12, "no hot loop: {}", scene.fake.calls().len());
    scene.allowed.send_replace(allowed(&[]));
    let before = scene.fake.calls().len();
    sleep(DAY).await;
    assert_eq!(scene.fake.calls().len(), before);
}

#[tokio::test(start_paused = true)]
async fn s14_w02_a_renewal_that_fails_in_the_background_becomes_visible() {
    let scene = Scene::of(&json!({})).await;
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(58 * DAY).await;
    assert!(scene.fake.state().calls.iter().all(|(.., min_validity)| min_validity.is_zero()));
    sleep(4 * DAY).await;
    assert!(matches!(scene.standing(A).await.phase, Phase::RenewalPending(_)));
    let forced = |scene: &Scene| scene.fake.state().calls.iter().filter(|(.., v)| !v.is_zero()).count();
    scene.fake.answers(A, [Reply::Fails(500, "400 urn:ietf:params:acme:error:caa: no")]);
    sleep(2 * DAY).await;
    assert!(forced(&scene) >= 1);
    let standing = scene.standing(A).await;
    assert_eq!(standing.record.last_error_class, Some(Class::Authority));
    assert!(standing.record.last_error.unwrap().contains("caa"), "the authority's own words");
    scene.fake.answers(A, [Reply::New, Reply::Certificate]);
    sleep(2 * DAY).await;
    let standing = scene.standing(A).await;
    assert!(matches!(standing.phase, Phase::Waiting(_)), "{:?}", standing.phase);
    assert!(standing.certificate.unwrap().period.left(scene.fake.now()) > 85 * DAY);
    let kinds: Vec<_> = scene.loops.ledger().entries().iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds.last(), Some(&Kind::Renewed));
}

#[tokio::test(start_paused = true)]
async fn s15_a_restart_goes_on_where_the_last_process_stopped() {
    let fake = Fake::new();
    fake.answers(A, [Reply::Fails(500, "400 urn:ietf:params:acme:error:caa: no")]);
    {
        let scene = Scene::new(fake.clone(), Growth::Steps).await;
        scene.loops.ensure(&config(&[A])).await.unwrap();
        sleep(2 * HOUR).await;
    }
    assert_eq!(fake.calls().len(), 4);
    let due = fake.state().records[A].next_attempt.unwrap();
    for _ in 0..20 {
        let scene = Scene::new(fake.clone(), Growth::Steps).await;
        scene.loops.ensure(&config(&[A])).await.unwrap();
        sleep(HOUR).await;
        assert!(fake.now() >= due || fake.calls().len() == 4, "a crash loop asks nobody");
    }
    let scene = Scene::new(fake.clone(), Growth::Steps).await;
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(6 * HOUR).await;
    assert_eq!((fake.calls().len(), scene.standing(A).await.record.failures), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn s16_without_a_place_for_it_nothing_is_asked_for() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.state().blocked.insert(A.to_owned());
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(DAY).await;
    assert!(scene.fake.calls().is_empty());
    assert_eq!(scene.standing(A).await.phase, Phase::Blocked(format!("there is no Secret `{A}`")));
    scene.fake.state().blocked.clear();
    sleep(MINUTE).await;
    assert_eq!(scene.fake.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_was_lost_is_not_ordered_again_at_once() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Fails(500, "error writing TLS cert and key to Secret"), Reply::Certificate]);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(30 * MINUTE).await;
    scene.fake.state().blocked.insert(A.to_owned());
    sleep(2 * HOUR).await;
    assert_eq!(scene.fake.calls().len(), 1, "an hour later the storage is looked at first");
    scene.fake.state().blocked.clear();
    sleep(MINUTE).await;
    assert_eq!(scene.fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reader_asks_nobody_until_it_writes() {
    let scene = Scene::of(&json!({})).await;
    scene.role.send_replace(Role::Reader);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(DAY).await;
    assert!(scene.fake.calls().is_empty());
    scene.fake.answers(A, [Reply::Fails(500, "cert is in read-only mode"), Reply::Certificate]);
    scene.role.send_replace(Role::Writer);
    sleep(DAY).await;
    assert_eq!((scene.fake.calls().len(), scene.standing(A).await.phase), (1, Phase::NotWriter), "the daemon is sure");
    scene.role.send_replace(Role::Reader);
    sleep(MINUTE).await;
    scene.role.send_replace(Role::Writer);
    sleep(MINUTE).await;
    assert_eq!(scene.fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn waking_ends_the_wait_and_keeps_the_count() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Fails(500, "400 urn:ietf:params:acme:error:caa: no")]);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(3 * HOUR).await;
    assert_eq!(scene.fake.calls().len(), 4);
    scene.loops.wake_all().await;
    sleep(MINUTE).await;
    assert_eq!((scene.fake.calls().len(), scene.standing(A).await.record.failures), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn what_the_authority_would_refuse_is_queued() {
    let fake = Fake::new();
    fake.state().lifetime = Duration::from_secs(6 * 3600);
    fake.answers(A, [Reply::New]);
    let scene = Scene::new(fake, Growth::Steps).await;
    scene.loops.ensure(&config(&[A])).await.unwrap();
    // Every call makes a new one: a daemon gone mad must not cost a week's certificates.
    for _ in 0..100 {
        scene.loops.wake_all().await;
        sleep(5 * HOUR).await;
    }
    let issued = scene.loops.ledger().entries().len();
    assert!(issued <= 5 + 7 * 24 / 34 + 1, "{issued} in the ledger's eight days");
}

#[tokio::test(start_paused = true)]
async fn a_clock_before_2020_asks_for_nothing() {
    let scene = Scene::new(Fake::at("2019-12-31T23:50:00Z"), Growth::Steps).await;
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(9 * MINUTE).await;
    assert!(scene.fake.calls().is_empty());
    sleep(3 * MINUTE).await;
    assert_eq!(scene.fake.calls().len(), 1, "once somebody has set it");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_certificate_counts_as_the_authoritys() {
    let scene = Scene::of(&json!({})).await;
    scene.fake.answers(A, [Reply::Odd]);
    scene.loops.ensure(&config(&[A])).await.unwrap();
    sleep(5 * MINUTE).await;
    let record = scene.standing(A).await.record;
    assert_eq!((record.failures, record.last_error_class), (2, Some(Class::Authority)));
    assert!(record.last_error.unwrap().starts_with("unexpected answer: "));
}

#[tokio::test(start_paused = true)]
async fn ninety_days_of_a_healthy_name() {
    let scene = Scene::of(&config(&[A])).await;
    for _ in 0..90 {
        sleep(DAY).await;
        if scene.standing(A).await.phase != Phase::Starting
            && matches!(scene.standing(A).await.phase, Phase::RenewalPending(_))
        {
            // The daemon renews in the background.
            scene.fake.certificate_of(A, true);
        }
    }
    let calls = scene.fake.calls().len();
    assert!((85..110).contains(&calls), "about one a day: {calls}");
    assert!(scene.fake.state().certificates[A].1 > later(scene.fake.now(), 20 * DAY));
    assert!(scene.fake.state().calls.iter().all(|(.., min_validity)| min_validity.is_zero()), "never forced");
}

mod elected;
mod replicas;
mod thousand;
mod weaknesses;
