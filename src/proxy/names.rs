//! Certificates of the node's names: which one a client gets, getting it, and keeping it fresh (api-proxy.md 2.1).
//!
//! The client chooses by SNI among the node's own names, a name without a dot stands for the first that begins with it,
//! and who names none gets the first. Each is held in memory and renewed ahead, so that only the first handshakes for a
//! name wait for tailscaled. What they wait for does not run in them: a certificate authority may take longer than a
//! handshake may, and tailscaled gives its order up when whoever asked goes away.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use rustls::ServerConfig;
use rustls::server::ResolvesServerCertUsingSni;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::tls::{self, BadCertificate};
use crate::causes::chain;
use crate::localapi::types::Status;
use crate::localapi::{LocalApi, Peers};
use crate::lock::lock;
use crate::x509;

/// A certificate is asked for again at least so often; tailscaled has it at hand unless it has to be renewed.
const REFRESH: Duration = Duration::from_secs(3600);
/// Between looks for what is due, and for changed names.
const LOOK: Duration = Duration::from_secs(60);
/// An order at the certificate authority may take that long, as in upstream's own loops. No handshake waits for its end,
/// and tailscaled would begin it anew: with the minute that upstream gives a handshake, a slow authority's never ends.
const ORDER: Duration = Duration::from_secs(30 * 60);
/// Handshakes whose wish has not been read yet; further ones wait.
const WISHES: usize = 64;

/// Certificates of the node's names.
#[derive(Debug)]
pub(super) struct Names {
    localapi: LocalApi,
    domains: Mutex<Vec<String>>,
    held: Mutex<HashMap<String, Held>>,
    wishes: mpsc::Sender<Wish>,
    /// For [`Names::keep_fresh`], once.
    wished: Mutex<Option<mpsc::Receiver<Wish>>>,
    refusing: Arc<ServerConfig>,
}

/// A handshake that waits for the certificate of one of the names.
#[derive(Debug)]
struct Wish {
    name: String,
    answer: Answer,
}

/// `None` when tailscaled has no certificate.
type Answer = oneshot::Sender<Option<Arc<ServerConfig>>>;

/// What is being asked of tailscaled: at most one question for each name, however many wait for it. No name waits for
/// another's.
struct Orders<'n> {
    names: &'n Names,
    waiting: HashMap<String, Vec<Answer>>,
    running: FuturesUnordered<BoxFuture<'n, (String, Result<Held, BadCertificate>)>>,
}

#[derive(Clone, Debug)]
struct Held {
    config: Arc<ServerConfig>,
    asked: Instant,
    /// Seconds since 1970.
    not_before: i64,
    not_after: i64,
}

impl Names {
    /// Those of the node of this `status`.
    pub(super) fn open(localapi: &LocalApi, status: &Status) -> Result<Self, BadCertificate> {
        let domains = domains(status);
        if domains.is_empty() {
            return Err(BadCertificate::NoDomain);
        }
        let nobody = tls::base(|builder| Ok(builder.with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()))));
        let (wishes, wished) = mpsc::channel(WISHES);
        Ok(Self {
            localapi: localapi.clone(),
            domains: Mutex::new(domains),
            held: Mutex::default(),
            wishes,
            wished: Mutex::new(Some(wished)),
            refusing: Arc::new(nobody.map_err(BadCertificate::Pair)?),
        })
    }

    /// What answers a client that names `sni`; one that refuses it in words when it is none of ours. May wait as long as
    /// tailscaled takes; whoever gives up before leaves the order in place.
    pub(super) async fn config(&self, sni: Option<&str>) -> Arc<ServerConfig> {
        let name = choose(&lock(&self.domains), sni);
        let Some(name) = name else {
            tracing::info!(sni = sni.unwrap_or_default(), "refused a TLS handshake for a name that is not this node's");
            return Arc::clone(&self.refusing);
        };
        if let Some(config) = self.held(&name) {
            return config;
        }
        let (answer, answered) = oneshot::channel();
        // Nobody reads it once the proxy stops.
        let _ = self.wishes.send(Wish { name, answer }).await;
        answered.await.ok().flatten().unwrap_or_else(|| Arc::clone(&self.refusing))
    }

    /// Gets what handshakes wish for, and keeps it fresh. The first name's is there ahead of the first client.
    pub(super) async fn keep_fresh(&self) {
        let Some(mut wished) = lock(&self.wished).take() else { return };
        let mut orders = Orders { names: self, waiting: HashMap::new(), running: FuturesUnordered::new() };
        self.due().into_iter().for_each(|name| orders.place(name, None));
        let mut look = pin!(self.look());
        loop {
            tokio::select! {
                Some(Wish { name, answer }) = wished.recv() => orders.place(name, Some(answer)),
                Some((name, outcome)) = orders.running.next() => orders.end(&name, outcome),
                () = &mut look => {
                    self.due().into_iter().for_each(|name| orders.place(name, None));
                    look.set(self.look());
                }
            }
        }
    }

    /// A while later, the names that the node has then.
    async fn look(&self) {
        tokio::time::sleep(LOOK).await;
        match self.localapi.status(Peers::Omit).await {
            Ok(status) if !status.cert_domains.is_empty() => *lock(&self.domains) = domains(&status),
            // tailscaled restarts, or the netmap is not there yet: the names stay.
            Ok(_) | Err(_) => {}
        }
        let domains = lock(&self.domains).clone();
        lock(&self.held).retain(|name, _| domains.contains(name));
    }

    /// The names to ask for now: the first one until there is a certificate for it, others once somebody wanted them.
    fn due(&self) -> Vec<String> {
        let now = unix_now();
        let (domains, held) = (lock(&self.domains), lock(&self.held));
        let missing = domains.first().filter(|first| !held.contains_key(*first));
        let old = held.iter().filter(|(_, held)| held.is_due(now)).map(|(name, _)| name);
        missing.into_iter().chain(old).cloned().collect()
    }

    async fn ask(&self, name: &str) -> Result<Held, BadCertificate> {
        let asked = Instant::now();
        let pair = self.localapi.certificate_pair(name, Duration::ZERO, ORDER).await;
        let pair = pair.map_err(|error| BadCertificate::Daemon(name.to_owned(), error))?;
        let pem = pair.expose().as_bytes();
        let (config, leaf) = tls::config(pem, pem)?;
        let valid = x509::validity(&leaf);
        let (not_before, not_after) = valid.map_or((0, i64::MAX), |valid| (valid.not_before, valid.not_after));
        Ok(Held { config: Arc::new(config), asked, not_before, not_after })
    }

    fn held(&self, name: &str) -> Option<Arc<ServerConfig>> {
        lock(&self.held).get(name).map(|held| Arc::clone(&held.config))
    }
}

impl Orders<'_> {
    /// Asks for the certificate of `name` unless that is being done, for `answer` and for those that come meanwhile.
    fn place(&mut self, name: String, answer: Option<Answer>) {
        // It may have come while the wish was on its way.
        let answer = match (answer, self.names.held(&name)) {
            (Some(answer), Some(config)) => {
                // The handshake may have ended.
                let _ = answer.send(Some(config));
                return;
            }
            (answer, _) => answer,
        };
        match self.waiting.entry(name) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().retain(|answer| !answer.is_closed());
                waiting.get_mut().extend(answer);
            }
            Entry::Vacant(none) => {
                let (names, name) = (self.names, none.key().clone());
                self.running.push(Box::pin(async move {
                    let outcome = names.ask(&name).await;
                    (name, outcome)
                }));
                none.insert(answer.into_iter().collect());
            }
        }
    }

    /// Takes what tailscaled said about `name`, and tells everybody who waited.
    fn end(&mut self, name: &str, outcome: Result<Held, BadCertificate>) {
        match outcome {
            Ok(got) => {
                lock(&self.names.held).insert(name.to_owned(), got);
            }
            Err(error) if self.names.held(name).is_some() => {
                tracing::warn!("keeping the certificate of {name}: {}", chain(&error));
            }
            Err(error) => tracing::warn!("{}", chain(&error)),
        }
        let config = self.names.held(name);
        for answer in self.waiting.remove(name).unwrap_or_default() {
            // The handshake may have ended.
            let _ = answer.send(config.clone());
        }
    }
}

impl Held {
    fn is_due(&self, now: i64) -> bool {
        let lifetime = self.not_after.saturating_sub(self.not_before);
        self.asked.elapsed() >= REFRESH || self.not_after.saturating_sub(now) < lifetime / 3
    }
}

/// The names for which there are certificates, the node's own before those of the Services it hosts: control lists them
/// as it likes, and tailscaled orders one certificate at a time, that of a Service perhaps in vain.
fn domains(status: &Status) -> Vec<String> {
    let own = status.self_.as_ref().map(|node| node.dns_name.trim_end_matches('.')).unwrap_or_default();
    let mut domains = status.cert_domains.clone();
    domains.sort_by_key(|domain| !domain.eq_ignore_ascii_case(own));
    domains
}

/// The node's name that a client means.
fn choose(domains: &[String], sni: Option<&str>) -> Option<String> {
    let chosen = match sni {
        None => domains.first(),
        Some(sni) if !sni.contains('.') => domains
            .iter()
            .find(|domain| domain.split_once('.').is_some_and(|(first, _)| first.eq_ignore_ascii_case(sni))),
        Some(sni) => domains.iter().find(|domain| domain.eq_ignore_ascii_case(sni)),
    };
    chosen.cloned()
}

fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_own_name_comes_first() {
        let own = crate::localapi::types::PeerStatus { dns_name: "Pod.tail.ts.net.".to_owned(), ..Default::default() };
        let cert_domains = ["kube.tail.ts.net", "b.tail.ts.net", "pod.tail.ts.net"].map(ToOwned::to_owned).to_vec();
        let status = Status { self_: Some(own), cert_domains, ..Status::default() };
        assert_eq!(domains(&status), ["pod.tail.ts.net", "kube.tail.ts.net", "b.tail.ts.net"]);
    }

    #[test]
    fn a_name_is_chosen_among_the_nodes_own() {
        let domains = ["a.tail.ts.net".to_owned(), "ab.tail.ts.net".to_owned()];
        for (sni, expected) in [
            (None, Some("a.tail.ts.net")),
            (Some("a"), Some("a.tail.ts.net")),
            (Some("AB"), Some("ab.tail.ts.net")),
            (Some("b"), None),
            (Some("Ab.Tail.ts.net"), Some("ab.tail.ts.net")),
            (Some("c.tail.ts.net"), None),
            (Some("a.tail.ts.net.evil"), None),
            (Some("../prefs"), None),
            (Some(""), None),
        ] {
            assert_eq!(choose(&domains, sni).as_deref(), expected, "{sni:?}");
        }
        assert_eq!(choose(&[], None), None);
    }
}
