//! The steady-state writer of the state Secret.
//!
//! [`Publisher`] says what the Secret shall hold; [`Writer`] makes it so. The latest value wins, what is already there
//! is not written again, and slots go out in their order: the device id always before anything about routing. An
//! outage delays writes, it loses none. Only a denial is fatal, at once: RBAC does not heal by waiting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Cluster;
use super::error::Error;
use super::state::{self, KeyPatch};
use crate::backoff::{self, Backoff};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long a denial that follows an outage is not believed.
const SETTLES: Duration = Duration::from_secs(30);
/// Far more than one pass of the steady-state loop produces.
const OUTCOMES: usize = 32;

/// A group of keys that is written in one patch. The order of the variants is the order of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// `device_id`, before any routing.
    DeviceId,
    /// `device_fqdn` and `device_ips`, after routing works.
    DeviceEndpoints,
    /// `https_endpoint`, after the serve config is applied.
    HttpsEndpoint,
    /// `egress-services`, after the rules of an egress group are in force.
    EgressServices,
    /// `ingress-config.json`, after the rules of an ingress group are in force.
    IngressConfig,
}

/// What each slot shall hold, or holds: shared, for a report of a thousand Services is large.
type Wanted = BTreeMap<Slot, Arc<KeyPatch>>;

/// What happened to a write.
#[derive(Debug)]
pub enum Outcome {
    /// The Secret holds the slot's latest value.
    Written(Slot),
    /// The first failure of a series; tries go on.
    Delayed(Slot, Error),
    /// It will never be written: [`Writer::run`] ends with the reason.
    Denied(Slot),
}

/// Says what the Secret shall hold. Cheap to clone; never blocks.
#[derive(Clone, Debug)]
pub struct Publisher {
    desired: watch::Sender<Wanted>,
}

/// Where patches go.
pub trait Target: Send + Sync {
    /// Applies `patch`.
    fn merge(&self, patch: &KeyPatch) -> impl Future<Output = Result<(), Error>> + Send;
}

/// The state Secret in its cluster.
#[derive(Clone, Debug)]
pub struct SecretTarget {
    /// The cluster.
    pub cluster: Cluster,
    /// The Secret's name.
    pub secret: String,
}

impl Target for SecretTarget {
    async fn merge(&self, patch: &KeyPatch) -> Result<(), Error> {
        self.cluster.merge(&self.secret, patch).await
    }
}

/// Brings the Secret to what the [`Publisher`] says.
#[derive(Debug)]
pub struct Writer<T> {
    target: T,
    desired: watch::Receiver<Wanted>,
    written: Wanted,
    outcomes: mpsc::Sender<Outcome>,
}

/// A publisher, the writer behind it, and what becomes of the writes.
pub fn publisher<T: Target>(target: T) -> (Publisher, Writer<T>, mpsc::Receiver<Outcome>) {
    let (desired, receiver) = watch::channel(BTreeMap::new());
    let (outcomes, reports) = mpsc::channel(OUTCOMES);
    let writer = Writer { target, desired: receiver, written: BTreeMap::new(), outcomes };
    (Publisher { desired }, writer, reports)
}

impl Publisher {
    /// The node's stable id.
    pub fn device_id(&self, stable_id: &str) {
        self.set(Slot::DeviceId, state::device_id_patch(stable_id));
    }

    /// The node's name and addresses. Call it only once routing to them works.
    pub fn device_endpoints(&self, fqdn: &str, ips: &[std::net::IpAddr]) {
        self.set(Slot::DeviceEndpoints, state::device_endpoints_patch(fqdn, ips));
    }

    /// Any slot. A value equal to the current one changes nothing.
    pub fn set(&self, slot: Slot, patch: KeyPatch) {
        self.desired.send_if_modified(|desired| {
            let changed = desired.get(&slot).is_none_or(|before| **before != patch);
            if changed {
                desired.insert(slot, Arc::new(patch));
            }
            changed
        });
    }
}

impl<T: Target> Writer<T> {
    /// Writes until `stop` or until every publisher is gone.
    ///
    /// # Errors
    /// [`Error::Denied`], at once; after an outage, once it has stood for a while.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        stop.run_until_cancelled(self.write_all()).await.unwrap_or(Ok(()))
    }

    async fn write_all(&mut self) -> Result<(), Error> {
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut denied = None;
        loop {
            let Some((slot, patch)) = self.next_write() else {
                if self.desired.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            };
            match self.target.merge(&patch).await {
                Ok(()) => {
                    if backoff.failures() > 0 {
                        tracing::info!(
                            ?slot,
                            attempt = backoff.failures() + 1,
                            "the state Secret can be written again"
                        );
                    }
                    backoff.reset();
                    denied = None;
                    self.written.insert(slot, patch);
                    self.report(Outcome::Written(slot)).await;
                }
                // An API server that has just come back may deny what it will allow: its authorizer starts empty.
                Err(error @ Error::Denied { .. })
                    if backoff.failures() == 0 || denied.get_or_insert_with(Instant::now).elapsed() >= SETTLES =>
                {
                    self.report(Outcome::Denied(slot)).await;
                    return Err(error);
                }
                Err(error) => {
                    if !matches!(error, Error::Denied { .. }) {
                        denied = None;
                    }
                    let mut pause = backoff.next(backoff::jitter());
                    if let Error::Throttled { retry_after: Some(wait) } = error {
                        pause = pause.max(wait.min(LONGEST_PAUSE));
                    }
                    if backoff.failures() == 1 {
                        tracing::warn!(?slot, %error, source = source(&error), delay = ?pause, "cannot write the state Secret, trying on");
                        self.report(Outcome::Delayed(slot, error)).await;
                    } else {
                        tracing::debug!(?slot, %error, source = source(&error), delay = ?pause, "still cannot write the state Secret");
                    }
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// The first slot, in order, whose latest value is not in the Secret.
    fn next_write(&mut self) -> Option<(Slot, Arc<KeyPatch>)> {
        let desired = self.desired.borrow_and_update();
        let due = desired.iter().find(|(slot, patch)| self.written.get(slot) != Some(patch));
        due.map(|(slot, patch)| (*slot, Arc::clone(patch)))
    }

    async fn report(&self, outcome: Outcome) {
        // A caller that does not listen does not want to know.
        let _ = self.outcomes.send(outcome).await;
    }
}

fn source(error: &Error) -> Option<String> {
    std::error::Error::source(error).map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::k8s::error::{Cause, Resource, Said, Verb};

    type Asked = (Instant, Vec<String>);

    /// Answers from a script, then with success; remembers what was asked and when.
    #[derive(Clone, Default)]
    struct Scripted {
        failures: Arc<Mutex<Vec<Error>>>,
        asked: Arc<Mutex<Vec<Asked>>>,
    }

    impl Scripted {
        fn failing(failures: impl IntoIterator<Item = Error>) -> Self {
            let mut failures: Vec<_> = failures.into_iter().collect();
            failures.reverse();
            Self { failures: Arc::new(Mutex::new(failures)), asked: Arc::default() }
        }

        fn writes(&self) -> Vec<String> {
            self.asked.lock().unwrap().iter().map(|(_, keys)| keys.join(" ")).collect()
        }
    }

    impl Target for Scripted {
        async fn merge(&self, patch: &KeyPatch) -> Result<(), Error> {
            let shown = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or(b"-")).into_owned();
            let keys = patch.changes().map(|(key, value)| format!("{key}={}", shown(value))).collect();
            self.asked.lock().unwrap().push((Instant::now(), keys));
            self.failures.lock().unwrap().pop().map_or(Ok(()), Err)
        }
    }

    fn unreachable() -> Error {
        Error::Unreachable { server: "https://x".to_owned(), cause: Cause::Connect("refused".to_owned()) }
    }

    fn started(
        target: &Scripted,
    ) -> (Publisher, tokio::task::JoinSet<Result<(), Error>>, mpsc::Receiver<Outcome>, CancellationToken) {
        let (publisher, writer, outcomes) = publisher(target.clone());
        let stop = CancellationToken::new();
        let mut task = tokio::task::JoinSet::new();
        task.spawn(writer.run(stop.clone()));
        (publisher, task, outcomes, stop)
    }

    #[tokio::test(start_paused = true)]
    async fn writes_the_id_first_and_only_what_changed() {
        let target = Scripted::default();
        let (publisher, mut task, mut outcomes, stop) = started(&target);
        publisher.device_endpoints("n.", &[]);
        publisher.device_id("a");
        assert!(matches!(outcomes.recv().await, Some(Outcome::Written(Slot::DeviceId))));
        assert!(matches!(outcomes.recv().await, Some(Outcome::Written(Slot::DeviceEndpoints))));
        publisher.device_id("a");
        publisher.device_id("b");
        assert!(matches!(outcomes.recv().await, Some(Outcome::Written(Slot::DeviceId))));
        assert_eq!(target.writes(), ["device_id=a", "device_fqdn=n. device_ips=null", "device_id=b"]);
        stop.cancel();
        assert!(matches!(task.join_next().await, Some(Ok(Ok(())))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_delays_and_the_latest_value_wins() {
        let target = Scripted::failing((0..8).map(|_| unreachable()));
        let (publisher, _task, mut outcomes, _stop) = started(&target);
        publisher.device_id("old");
        assert!(matches!(outcomes.recv().await, Some(Outcome::Delayed(Slot::DeviceId, Error::Unreachable { .. }))));
        publisher.device_id("new");
        publisher.device_endpoints("n.", &[]);
        assert!(matches!(outcomes.recv().await, Some(Outcome::Written(Slot::DeviceId))), "said once, not eight times");
        assert!(matches!(outcomes.recv().await, Some(Outcome::Written(Slot::DeviceEndpoints))));

        let asked = target.asked.lock().unwrap().clone();
        let values: Vec<_> = asked.iter().map(|(_, keys)| keys[0].as_str()).collect();
        assert_eq!(values[0], "device_id=old");
        assert!(values[1..9].iter().all(|value| *value == "device_id=new"), "{values:?}");
        let pauses: Vec<_> = asked.windows(2).map(|pair| (pair[1].0 - pair[0].0).as_secs_f64()).collect();
        for (pause, full) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]) {
            assert!((full * 0.75..=full + 0.01).contains(pause), "{pauses:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_write_waits_as_long_as_it_was_told() {
        let target = Scripted::failing([Error::Throttled { retry_after: Some(Duration::from_secs(20)) }]);
        let (publisher, _task, mut outcomes, _stop) = started(&target);
        let start = Instant::now();
        publisher.device_id("a");
        assert!(matches!(outcomes.recv().await, Some(Outcome::Delayed(..))));
        assert!(matches!(outcomes.recv().await, Some(Outcome::Written(_))));
        assert!(start.elapsed() >= Duration::from_secs(20));
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_ends_the_writer_at_once() {
        let name = Some("s".to_owned());
        let denied = Error::Denied { verb: Verb::Patch, resource: Resource::Secrets, name, source: Said::default() };
        let target = Scripted::failing([denied]);
        let (publisher, mut task, _outcomes, _stop) = started(&target);
        let start = Instant::now();
        publisher.device_id("a");
        assert!(matches!(task.join_next().await, Some(Ok(Err(Error::Denied { .. })))));
        assert_eq!(start.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_denial_right_after_an_outage_is_not_believed_at_once() {
        let denied = || Error::Denied {
            verb: Verb::Patch,
            resource: Resource::Secrets,
            name: Some("s".to_owned()),
            source: Said::default(),
        };
        let (publisher, _task, mut outcomes, _stop) = started(&Scripted::failing([unreachable(), denied(), denied()]));
        publisher.device_id("a");
        assert!(matches!(outcomes.recv().await, Some(Outcome::Delayed(..))));
        assert!(matches!(outcomes.recv().await, Some(Outcome::Written(_))));

        let failures = std::iter::once(unreachable()).chain((0..100).map(|_| denied()));
        let (publisher, mut task, _outcomes, _stop) = started(&Scripted::failing(failures));
        let start = Instant::now();
        publisher.device_id("a");
        assert!(matches!(task.join_next().await, Some(Ok(Err(Error::Denied { .. })))));
        assert!(start.elapsed() >= SETTLES, "it gave up after {:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_a_pause() {
        let target = Scripted::failing((0..100).map(|_| unreachable()));
        let (publisher, mut task, mut outcomes, stop) = started(&target);
        publisher.device_id("a");
        assert!(matches!(outcomes.recv().await, Some(Outcome::Delayed(..))));
        stop.cancel();
        assert!(matches!(task.join_next().await, Some(Ok(Ok(())))));
    }
}
