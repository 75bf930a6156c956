//! The loop that keeps following the IPN bus.
//!
//! [`follow`] picks the mask by the daemon's version, feeds a [`Model`], re-opens with back-off, refreshes DNS after self
//! changes, and once a minute compares with `status`, so that a daemon that hangs is noticed. It only decodes and
//! forwards, never waiting for its reader. Upstream reads the bus in `cmd/containerboot/main.go`'s main loop.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::mailbox::{Bus, BusEvent, Change, Lost, Sender, mailbox};
use super::mask::{Generation, Phase};
use super::model::{Model, Update};
use super::types::{DnsConfig, Notify, State, Status};
use super::watch::Watch;
use super::{Error, ErrorKind, LocalApi, Mask, Peers};
use crate::backoff::{Backoff, jitter};

/// Between attempts to open a stream: first, and at most.
const REOPEN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// A stream that lasted this long was a good one: the next failure starts with short delays again.
const GOOD_STREAM: Duration = Duration::from_secs(30);
/// Between comparisons with `status`; also the only way to see DNS changes that carry no self change.
const RECONCILE: Duration = Duration::from_secs(60);
/// Failed comparisons in a row until the stream is given up.
const FAILURES: u32 = 2;
/// Between DNS refreshes, however many self changes arrive.
const DNS_PAUSE: Duration = Duration::from_secs(1);
/// How long a stream may stay silent before `status` is asked instead.
const FIRST_MESSAGE: Duration = Duration::from_secs(5);
/// Largest message that is remembered to recognise its repetition.
const REMEMBERED: usize = 64 << 10;
/// The daemon's last words to a watcher that is too slow (1.102 and newer).
const FELL_BEHIND: &str = "IPN bus consumer fell behind";

/// What the reader of the loop needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Peers: only for resolving FQDN targets and egress Services.
    pub peers: Peers,
    /// Whether the first message shall show prefs and a login failure from before.
    pub phase: Phase,
}

impl Default for Wants {
    /// No peers, and everything that `boot` looks at while it logs in.
    fn default() -> Self {
        Self { peers: Peers::Omit, phase: Phase::Login }
    }
}

/// The bus of `localapi`: its reader, and the loop to be run in a task until `stop` is cancelled.
pub fn follow(localapi: LocalApi, wants: Wants, stop: CancellationToken) -> (Bus, impl Future<Output = ()> + Send) {
    let (sender, bus) = mailbox();
    let follower = Follower { localapi, wants, sender, model: Arc::default(), assumed: None };
    let run = async move {
        stop.run_until_cancelled(follower.run()).await;
    };
    (bus, run)
}

/// The loop's state.
struct Follower {
    localapi: LocalApi,
    wants: Wants,
    sender: Sender,
    model: Arc<Model>,
    /// What a daemon of unknown version turned out to be.
    assumed: Option<Generation>,
}

/// What ended the reading of a stream.
enum End {
    Lost(Lost),
    /// The mask was made for a newer daemon; open again with the other one.
    WrongMask,
}

/// What the reading of a stream waits for; handled by [`Follower::handle`].
enum Event {
    Frame(Result<Option<Vec<u8>>, Error>),
    Silent,
    DnsDue,
    Dns(Result<Option<DnsConfig>, Error>),
    StatusDue,
    Status(Result<Box<Status>, Error>),
}

type Call<T> = Option<Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>>;

/// What is known and under way during one stream.
struct Stream {
    generation: Generation,
    /// Whether a message has arrived.
    begun: bool,
    opened: Instant,
    /// The last message, to tell repetitions cheaply.
    last: Vec<u8>,
    last_wants_dns: bool,
    /// A self change came while the node was not Running.
    dns_wanted: bool,
    dns_due: Option<Instant>,
    dns_last: Option<Instant>,
    dns: Call<DnsAnswer>,
    status_due: Instant,
    status: Call<Box<Status>>,
    failures: u32,
}

type DnsAnswer = Option<DnsConfig>;

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::new(REOPEN.0, REOPEN.1);
        loop {
            let started = Instant::now();
            let lost = self.one_stream().await;
            if started.elapsed() >= GOOD_STREAM {
                backoff.reset();
            }
            // The daemon is well and waits for us; only a stream that falls behind again and again has to wait.
            let at_once = matches!(lost, Lost::FellBehind) && backoff.failures() == 0;
            let delay = backoff.next(jitter());
            self.sender.send(BusEvent::Lost(lost));
            if !at_once {
                sleep(delay).await;
            }
        }
    }

    /// Opens a stream with the mask that fits the daemon, and reads it to its end.
    async fn one_stream(&mut self) -> Lost {
        let mut announced = false;
        loop {
            let generation = self.generation();
            let mask = self.mask(generation);
            let opened = self.localapi.watch_keeping(mask, self.wants.peers).await;
            let told = self.localapi.versions().generation();
            let other_mask = told != Generation::Unknown && self.mask(told) != mask;
            let mut watch = match opened {
                // Known only now, from this answer's headers: another daemon than supposed.
                Ok(_) | Err(Error { kind: ErrorKind::Status { code: 400, .. }, .. }) if other_mask => continue,
                Ok(watch) => watch,
                Err(Error { kind: ErrorKind::Status { code: 400, .. }, .. }) if generation == Generation::Unknown => {
                    self.assumed = Some(Generation::Legacy);
                    continue;
                }
                Err(error) => {
                    self.assumed = None;
                    return Lost::Failed(Box::new(error));
                }
            };
            if !std::mem::replace(&mut announced, true) {
                self.sender.send(BusEvent::Opened);
            }
            match self.read(&mut watch, self.generation()).await {
                End::Lost(lost) => return lost,
                End::WrongMask => self.assumed = Some(Generation::Legacy),
            }
        }
    }

    fn generation(&self) -> Generation {
        match self.localapi.versions().generation() {
            Generation::Unknown => self.assumed.unwrap_or(Generation::Unknown),
            known => known,
        }
    }

    fn mask(&self, generation: Generation) -> Mask {
        Mask::choose(generation, self.wants.phase, self.wants.peers)
    }

    async fn read(&mut self, watch: &mut Watch, generation: Generation) -> End {
        let now = Instant::now();
        let mut stream = Stream {
            generation,
            begun: false,
            opened: now,
            last: Vec::new(),
            last_wants_dns: false,
            dns_wanted: false,
            dns_due: None,
            dns_last: None,
            dns: None,
            status_due: now + RECONCILE,
            status: None,
            failures: 0,
        };
        loop {
            let event = tokio::select! {
                frame = watch.next_frame() => Event::Frame(frame),
                () = sleep_until(stream.opened + FIRST_MESSAGE), if !stream.begun => Event::Silent,
                () = sleep_until(stream.dns_due.unwrap_or(now)), if stream.dns_due.is_some() && stream.dns.is_none() => {
                    Event::DnsDue
                }
                answer = finished(&mut stream.dns) => Event::Dns(answer),
                () = sleep_until(stream.status_due), if stream.status.is_none() => Event::StatusDue,
                answer = finished(&mut stream.status) => Event::Status(answer),
            };
            if let Some(end) = self.handle(event, &mut stream) {
                return end;
            }
        }
    }

    fn handle(&mut self, event: Event, stream: &mut Stream) -> Option<End> {
        match event {
            Event::Frame(Ok(Some(frame))) => return self.frame(frame, stream),
            Event::Frame(Ok(None)) => return Some(End::Lost(Lost::Ended)),
            Event::Frame(Err(error)) => return Some(End::Lost(Lost::Failed(Box::new(error)))),
            Event::Silent => {
                stream.begun = true;
                stream.status_due = Instant::now();
            }
            Event::DnsDue => {
                stream.dns_due = None;
                stream.dns_last = Some(Instant::now());
                stream.dns = Some(Box::pin(dns_config(self.localapi.clone())));
            }
            Event::Dns(Ok(Some(dns))) => {
                let update = Arc::make_mut(&mut self.model).apply_dns(dns);
                self.tell(update);
            }
            // Nothing said, or before the first netmap: what is known stays.
            Event::Dns(Ok(None) | Err(Error { kind: ErrorKind::NoNetmapYet | ErrorKind::Unsupported, .. })) => {}
            Event::Dns(Err(error)) => self.trouble(format!("error refreshing DNS config from tailscaled: {error}")),
            Event::StatusDue => {
                stream.status_due = Instant::now() + RECONCILE;
                let localapi = self.localapi.clone();
                stream.status = Some(Box::pin(async move { localapi.status(Peers::Omit).await.map(Box::new) }));
            }
            Event::Status(answer) => return self.reconcile(answer, stream),
        }
        None
    }

    fn frame(&mut self, frame: Vec<u8>, stream: &mut Stream) -> Option<End> {
        let first = !std::mem::replace(&mut stream.begun, true);
        if !first && frame == stream.last {
            stream.dns_wanted |= stream.last_wants_dns;
            self.ask_for_dns(stream);
            return None;
        }
        let notify: Notify = match serde_json::from_slice(&frame) {
            Ok(notify) => notify,
            Err(error) => {
                self.trouble(format!("a message of tailscaled's IPN bus cannot be read: {error}"));
                return None;
            }
        };
        if self.localapi.versions().version.is_none() {
            stream.generation = match Generation::of(Some(&notify.version), None) {
                Generation::Unknown => stream.generation,
                known => known,
            };
        }
        let complete = notify.initial_status.is_some() || notify.net_map.is_some();
        let fell_behind = notify.err_message.as_deref().is_some_and(|text| text.starts_with(FELL_BEHIND));
        let mut update = Arc::make_mut(&mut self.model).apply(notify);
        // The model does not outlive a watch that is opened afresh; the warning was given all the same.
        update.unknown_state = update.unknown_state.filter(|_| self.localapi.transport.is_first_unknown_state());
        if update.wants_dns_refresh {
            stream.dns_wanted = true;
        }
        self.ask_for_dns(stream);
        stream.last_wants_dns = update.wants_dns_refresh;
        stream.last = if frame.len() <= REMEMBERED { frame } else { Vec::new() };
        update.resynced |= first;
        if fell_behind {
            update.err_message = None;
        }
        self.tell(update);
        if fell_behind {
            return Some(End::Lost(Lost::FellBehind));
        }
        if first && !complete {
            match stream.generation {
                // Without a snapshot the daemon is older than the mask supposed.
                Generation::Unknown => return Some(End::WrongMask),
                Generation::Modern => stream.status_due = Instant::now(),
                // Before its first netmap an old daemon has no more to say.
                Generation::Legacy => {}
            }
        }
        None
    }

    fn reconcile(&mut self, answer: Result<Box<Status>, Error>, stream: &mut Stream) -> Option<End> {
        match answer {
            Ok(status) => {
                stream.failures = 0;
                let known = self.model.state.is_some();
                let update = Arc::make_mut(&mut self.model).apply_status(*status);
                if known && (update.state.is_some() || update.self_changed) {
                    self.trouble("tailscaled's status differs from what its IPN bus said; using the status".to_owned());
                }
                self.tell(update);
            }
            // Small test daemons have no status; one that answers is alive.
            Err(error) if error.is_answer() => stream.failures = 0,
            Err(error) => {
                stream.failures += 1;
                if stream.failures >= FAILURES {
                    return Some(End::Lost(Lost::Unresponsive(Box::new(error))));
                }
            }
        }
        None
    }

    /// Reads DNS if something has changed and the node is up: before that nobody could use it, and a daemon that is
    /// starting has better things to do than to answer.
    fn ask_for_dns(&self, stream: &mut Stream) {
        if matches!(self.model.state, None | Some(State::Running)) && std::mem::take(&mut stream.dns_wanted) {
            stream.want_dns();
        }
    }

    fn tell(&self, update: Update) {
        if update.is_news() {
            self.sender.send(BusEvent::Changed(Change { update, model: Arc::clone(&self.model) }));
        }
    }

    fn trouble(&self, text: String) {
        self.sender.send(BusEvent::Trouble(text));
    }
}

impl Stream {
    /// Asks for a DNS refresh, now or when the last one is long enough ago; one that is under way does not count, for
    /// it may have read what was there before.
    fn want_dns(&mut self) {
        let now = Instant::now();
        let due = self.dns_last.map_or(now, |last| now.max(last + DNS_PAUSE));
        self.dns_due.get_or_insert(due);
    }
}

/// DNS as the daemon has it: from `dns-config`, or from `status` of a daemon older than that.
async fn dns_config(localapi: LocalApi) -> Result<Option<DnsConfig>, Error> {
    match localapi.dns_config().await {
        Err(Error { kind: ErrorKind::Unsupported, .. }) => {
            let status = localapi.status(Peers::Omit).await?;
            Ok(status
                .self_
                .map(|_| DnsConfig { cert_domains: status.cert_domains, extra_records: status.extra_records }))
        }
        answer => answer,
    }
}

/// The result of a call that is under way, which then is not any more; never, if there is none.
async fn finished<T>(call: &mut Call<T>) -> Result<T, Error> {
    match call {
        Some(future) => {
            let result = future.await;
            *call = None;
            result
        }
        None => std::future::pending().await,
    }
}
