//! The guided tour: a node boots, loses its key, asks for another, gets it and is back.
//!
//! Every step runs our own binary as `containerboot` in the pretend Pod, the way an operator's Pod runs it, and is
//! told only after it has really happened; a step that does not happen ends the tour with an error that shows
//! what the program said.

mod boot;

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::process::Command;

use self::boot::Boot;
use super::apiserver::TimedOut;
use super::tailnet::KeyOptions;
use super::{Mode, Sandbox, SandboxOptions, Timeout, Volume};
use crate::digest::sha256_hex;
use crate::secret::{Secret, key_id};

/// The state Secret of the node on tour.
const SECRET: &str = "ts-0";

/// Where the operator's config Secret is mounted, below the Pod's root.
const CONFIG_DIR: &str = "etc/tsconfig/ts-0";

/// Longest wait for one thing to happen; everything takes well under three seconds.
const LIMIT: Duration = Duration::from_secs(30);

/// One thing that has happened.
#[derive(Clone, Debug, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// From 1.
    pub number: usize,
    /// A heading.
    pub title: &'static str,
    /// What it is about.
    pub story: &'static str,
    /// What a person would run, in a cluster, to do or see this.
    pub command: &'static str,
    /// What was seen, by name.
    pub facts: Vec<Fact>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// One thing that was seen.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Fact {
    /// What it is.
    pub name: &'static str,
    /// Its value; secret material only as id, or as length and fingerprint.
    pub value: String,
}

/// A key of the state Secret on both sides of the key's death.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Row {
    /// The Secret's key.
    pub key: String,
    /// Its value when the node was first up; `None`: not there.
    pub before: Option<String>,
    /// Its value when the node was back.
    pub after: Option<String>,
}

/// Why the tour stopped.
#[derive(Debug, thiserror::Error)]
pub enum TourError {
    /// The sandbox or a program could not be started.
    #[error("cannot {what}")]
    Start {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A step did not happen.
    #[error("{missing}; the program said:\n{said}")]
    Missing {
        /// What was expected.
        missing: String,
        /// The last lines of the program.
        said: String,
    },
    /// A step did not happen at the daemon.
    #[error(transparent)]
    Daemon(#[from] Timeout),
    /// A step did not happen in the cluster.
    #[error(transparent)]
    Cluster(#[from] TimedOut),
}

fn start(what: &'static str) -> impl FnOnce(std::io::Error) -> TourError {
    move |source| TourError::Start { what, source }
}

/// The tour as it goes on.
struct Tour<'a> {
    sandbox: Sandbox,
    config: Volume,
    tell: &'a mut (dyn FnMut(&Step) + Send),
    number: usize,
    since: Instant,
}

/// Plays the tour to its end, telling each step once it has happened; yields the state Secret before and after.
///
/// # Errors
/// When a step does not happen.
pub async fn play(options: SandboxOptions, tell: &mut (dyn FnMut(&Step) + Send)) -> Result<Vec<Row>, TourError> {
    let since = Instant::now();
    let options = SandboxOptions { mode: Mode::Automatic, secret: SECRET.to_owned(), ..options };
    let sandbox = Sandbox::start(options).await.map_err(start("start the sandbox"))?;
    let config = sandbox.pod().volume(CONFIG_DIR);
    let mut tour = Tour { sandbox, config, tell, number: 0, since };
    tour.run().await
}

impl Tour<'_> {
    async fn run(&mut self) -> Result<Vec<Row>, TourError> {
        let old_key = self.prepare()?;

        let mut boot = self.boot()?;
        boot.says("Startup complete").await?;
        self.sandbox.daemon().await_state("Running", LIMIT).await?;
        let first = self.device()?;
        let before = self.secret();
        self.told(
            "The node boots",
            "The program called `containerboot` starts tailscaled with the operator's config file and publishes \
             who it is in the state Secret.",
            "kubectl logs ts-0",
            vec![fact("device", &first.0), fact("name", &first.1), fact("state", self.sandbox.daemon().state())],
        );

        let now = Timestamp::now();
        self.sandbox.daemon().tailnet(|tailnet| {
            tailnet.revoke(old_key.expose());
            tailnet.expire_device(&first.0, now)
        });
        let line = boot.says("left running state").await?;
        boot.ends(1).await?;
        self.told(
            "The key dies",
            "An administrator revokes the auth key and the node key expires: the node has lost its way in, and \
             the container ends.",
            "kubectl get pod ts-0",
            vec![fact("exit code", "1"), fact("last line", &line)],
        );

        let mut boot = self.boot()?;
        boot.says("Requesting a new auth key from operator").await?;
        let marked = |data: &BTreeMap<String, String>| data.contains_key("reissue_authkey");
        self.sandbox.api().wait_secret(self.sandbox.namespace(), SECRET, marked, LIMIT).await?;
        let marker = self.secret().remove("reissue_authkey").unwrap_or_default();
        if marker != old_key.expose().as_bytes() {
            return Err(boot.missing("reissue_authkey is not the key that failed"));
        }
        self.told(
            "It asks for another",
            "Started again, it finds that neither identity nor key is good. It leaves control alone and writes the \
             failed key into the state Secret, which is how the operator learns of it.",
            "kubectl get secret ts-0 -o jsonpath='{.data.reissue_authkey}'",
            vec![
                fact("reissue_authkey", &shown("reissue_authkey", &marker)),
                fact("failed key", &key_id(old_key.expose())),
            ],
        );

        let new_key = self.sandbox.daemon().tailnet(|tailnet| {
            tailnet.delete(&first.0);
            tailnet.issue(KeyOptions::default())
        });
        self.configure(&new_key)?;
        let line = boot.says("New auth key received from operator").await?;
        boot.ends(0).await?;
        let cleared = self.secret();
        if let Some(left) =
            ["reissue_authkey", "device_id", "_machinekey", "_profiles"].iter().find(|key| cleared.contains_key(**key))
        {
            return Err(boot.missing(&format!("{left} is still in the state Secret")));
        }
        self.told(
            "The operator answers",
            "The operator deletes the dead device and puts a new key into the config Secret; the kubelet swaps the \
             mounted files. The program sees it, drops the old identity and ends with 0 to be started afresh.",
            "kubectl get secret ts-0-config -o yaml",
            vec![fact("new key", &key_id(new_key.expose())), fact("seen", &line), fact("exit code", "0")],
        );

        let mut boot = self.boot()?;
        boot.says("Startup complete").await?;
        self.sandbox.daemon().await_state("Running", LIMIT).await?;
        let second = self.device()?;
        let known = self
            .sandbox
            .daemon()
            .tailnet(|tailnet| tailnet.devices().iter().map(|device| device.stable_id.clone()).collect::<Vec<_>>());
        if second.0 == first.0 || known != [second.0.clone()] {
            return Err(boot.missing(&format!("device {} is not the new one: control knows {known:?}", second.0)));
        }
        let after = self.secret();
        self.told(
            "The node is back",
            "A new identity, the same Pod.",
            "kubectl logs ts-0",
            vec![fact("device", &second.0), fact("name", &second.1), fact("state", self.sandbox.daemon().state())],
        );

        let signals = self.sandbox.daemon().signals().len();
        boot.stop()?;
        boot.ends(0).await?;
        self.sandbox.daemon().await_stopped(LIMIT).await?;
        if self.sandbox.daemon().signals()[signals..] != ["SIGTERM"] {
            return Err(boot.missing("tailscaled did not get exactly one SIGTERM"));
        }
        self.told(
            "A clean stop",
            "SIGTERM, as the kubelet sends it: state is left consistent, tailscaled ends first.",
            "kubectl delete pod ts-0",
            vec![
                fact("exit code", "0"),
                fact("tailscaled got", &self.sandbox.daemon().signals()[signals..].join(", ")),
            ],
        );
        Ok(rows(&before, &after))
    }

    /// The cluster before the Pod: an empty state Secret and a config Secret with a key.
    fn prepare(&mut self) -> Result<Secret<String>, TourError> {
        self.sandbox.api().put_secret(self.sandbox.namespace(), SECRET, [("", ""); 0]);
        let key = self.sandbox.daemon().tailnet(|tailnet| tailnet.issue(KeyOptions::default()));
        self.configure(&key)?;
        self.told(
            "A Pod on this machine",
            "A directory stands for the Pod's root, a TLS server on loopback for the cluster's API, a small process \
             for tailscaled. Nothing else on this machine is touched.",
            "kubectl get secret ts-0 ts-0-config",
            vec![
                fact("api server", &self.sandbox.api().url()),
                fact("root", &self.sandbox.pod().root().to_string_lossy()),
                fact("auth key", &key_id(key.expose())),
            ],
        );
        Ok(key)
    }

    /// Writes the operator's config Secret and lets the kubelet swap it in.
    fn configure(&self, key: &Secret<String>) -> Result<(), TourError> {
        let config = serde_json::json!({
            "version": "alpha0", "Locked": false, "Hostname": "ts-0", "acceptDNS": false, "AuthKey": key.expose(),
        });
        self.config.set(&[("cap-95.hujson", config.to_string())]).map_err(start("write the config Secret"))
    }

    /// Starts our own binary as `containerboot`, as in an operator's Pod.
    fn boot(&self) -> Result<Boot, TourError> {
        let mut command = Command::new(self.sandbox.binary());
        command
            .arg0("containerboot")
            .env_clear()
            .envs(self.sandbox.env())
            .envs(self.sandbox.kube_env())
            .env("TS_KUBE_SECRET", SECRET)
            .env("TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR", self.config.path())
            .env("POD_NAME", SECRET)
            .env("POD_UID", "9d2f1c46-0b7e-4c52-8d7a-3f1e5a6b7c80")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        Ok(Boot::of(command.spawn().map_err(start("start containerboot"))?))
    }

    fn secret(&self) -> BTreeMap<String, Vec<u8>> {
        self.sandbox.api().bytes(self.sandbox.namespace(), SECRET)
    }

    /// The device id and name that the state Secret publishes.
    fn device(&self) -> Result<(String, String), TourError> {
        let secret = self.secret();
        let text = |key: &str| secret.get(key).map(|value| String::from_utf8_lossy(value).into_owned());
        let published = text("device_id").zip(text("device_fqdn"));
        published.ok_or_else(|| TourError::Missing {
            missing: "no device in the state Secret".to_owned(),
            said: format!("its keys are {:?}", secret.keys()),
        })
    }

    fn told(&mut self, title: &'static str, story: &'static str, command: &'static str, facts: Vec<Fact>) {
        self.number += 1;
        let milliseconds = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since = Instant::now();
        (self.tell)(&Step { number: self.number, title, story, command, facts, milliseconds });
    }
}

fn fact(name: &'static str, value: &str) -> Fact {
    Fact { name, value: value.to_owned() }
}

/// The value of a state Secret's key as it may be shown.
fn shown(key: &str, value: &[u8]) -> String {
    const PLAIN: [&str; 5] = ["device_id", "device_fqdn", "device_ips", "pod_uid", "tailscale_capver"];
    match std::str::from_utf8(value) {
        Ok(text) if PLAIN.contains(&key) || key == "_current-profile" => text.to_owned(),
        _ => format!("{} bytes, sha256 {}", value.len(), &sha256_hex(value)[..8]),
    }
}

/// Both sides of the state Secret, key by key.
fn rows(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) -> Vec<Row> {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let side = |side: &BTreeMap<String, Vec<u8>>, key: &str| side.get(key).map(|value| shown(key, value));
    keys.into_iter().map(|key| Row { key: key.clone(), before: side(before, key), after: side(after, key) }).collect()
}

#[cfg(test)]
mod tests {
    use super::boot::untimed;
    use super::*;

    #[test]
    fn secret_material_is_shown_as_length_and_fingerprint() {
        let side = |id: &str| {
            BTreeMap::from([
                ("device_id".to_owned(), id.as_bytes().to_vec()),
                ("_machinekey".to_owned(), b"privkey:abc".to_vec()),
            ])
        };
        let mut after = side("n2");
        after.insert("authkey".to_owned(), b"tskey-auth-kA-b".to_vec());
        let rows = rows(&side("n1"), &after);
        assert_eq!(rows[0].before.as_deref(), Some("11 bytes, sha256 4d8403b1"));
        assert_eq!((rows[1].key.as_str(), rows[1].before.as_deref()), ("authkey", None));
        assert_eq!((rows[2].before.as_deref(), rows[2].after.as_deref()), (Some("n1"), Some("n2")));
        assert!(!format!("{rows:?}").contains("tskey"));
    }

    #[test]
    fn times_are_cut_off_lines() {
        for (line, expected) in
            [("boot: 2026/01/02 03:04:05 left running state (now 3)", "left running state (now 3)"), ("plain", "plain")]
        {
            assert_eq!(untimed(line), expected);
        }
    }
}
