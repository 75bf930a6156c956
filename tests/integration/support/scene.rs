//! A sandbox, a cluster beside it, and the environment of the boots that will run in it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tailpod::sandbox::apiserver::access::{Access, Rule, Subject};
use tailpod::sandbox::apiserver::{ApiServer, Recorded};
use tailpod::sandbox::{Daemon, Sandbox, SandboxOptions, Volume};
use tailpod::settings::{self, Persona, Settings};
use tokio::process::Command;

use super::{Boot, Data, NAMESPACE, SECRET, SOON};

/// A sandbox, a cluster beside it, and the environment of the boots that will run in it.
pub(crate) struct Scene {
    pub(crate) sandbox: Sandbox,
    env: BTreeMap<OsString, OsString>,
}

impl Scene {
    /// A Pod that is not told about Kubernetes.
    pub(crate) async fn new() -> Self {
        let sandbox = Sandbox::start(SandboxOptions::new(env!("CARGO_BIN_EXE_tailpod"))).await.expect("a sandbox");
        let env = sandbox.env().into_iter().collect();
        let scene = Self { sandbox, env };
        // Last words belong to the Pod, not to the machine. The kubelet makes the file.
        let last_words = scene.sandbox.pod().write("run/termination-log", "").expect("a file");
        scene.with("TAILPOD_TERMINATION_LOG", last_words)
    }

    /// A Pod in Kubernetes whose state Secret holds `data`.
    pub(crate) async fn kube<'d>(data: impl IntoIterator<Item = (&'d str, &'d str)>) -> Self {
        let scene = Self::kube_without_secret().await;
        scene.api().put_secret(NAMESPACE, SECRET, data);
        scene
    }

    /// A Pod in Kubernetes without a state Secret.
    pub(crate) async fn kube_without_secret() -> Self {
        let mut scene = Self::new().await;
        scene.env.extend(scene.sandbox.kube_env());
        scene
    }

    /// Sets a variable.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// Sets variables.
    pub(crate) fn with_all(mut self, vars: &[(&str, &str)]) -> Self {
        self.env.extend(vars.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
        self
    }

    /// Takes rights away from the Pod's service account.
    pub(crate) fn denied(self, verbs: &[&str]) -> Self {
        self.deny(verbs);
        self
    }

    /// Takes rights away from the Pod's service account.
    pub(crate) fn deny(&self, verbs: &[&str]) {
        let access = Access::of_boot(NAMESPACE, SECRET).except(Rule::new("", &["secrets"], verbs));
        self.api().grant(Subject::from(self.sandbox.user()), access);
    }

    /// A versioned config directory with these files, and the variable that names it.
    pub(crate) fn with_config(self, files: &[(&str, &str)]) -> (Self, Volume) {
        let volume = self.sandbox.pod().volume("etc/tailscaled");
        volume.set(files).expect("config files");
        let path = volume.path().to_owned();
        (self.with("TS_EXPERIMENTAL_VERSIONED_CONFIG_DIR", path), volume)
    }

    /// The pretend cluster.
    pub(crate) fn api(&self) -> &ApiServer {
        self.sandbox.api()
    }

    /// The pretend tailscaled.
    pub(crate) fn daemon(&self) -> &Daemon {
        self.sandbox.daemon()
    }

    /// The Pod's directory.
    pub(crate) fn root(&self) -> &Path {
        self.sandbox.pod().root()
    }

    /// The last words.
    pub(crate) fn last_words(&self) -> String {
        self.sandbox.pod().read("run/termination-log").expect("last words")
    }

    /// The environment so far.
    pub(crate) fn env(&self) -> &BTreeMap<OsString, OsString> {
        &self.env
    }

    /// What the environment means: for a boot in this process.
    pub(crate) fn settings(&self, persona: Persona) -> Settings {
        let text = |text: &OsString| text.to_string_lossy().into_owned();
        let vars: BTreeMap<String, String> = self.env.iter().map(|(name, value)| (text(name), text(value))).collect();
        settings::read(&vars, persona).expect("settings")
    }

    /// Both sysctls of IP forwarding: IPv4, IPv6.
    pub(crate) fn sysctls(&self) -> [String; 2] {
        ["proc/sys/net/ipv4/ip_forward", "proc/sys/net/ipv6/conf/all/forwarding"]
            .map(|file| self.sandbox.pod().read(file).expect("a sysctl"))
    }

    /// Starts `containerboot`.
    pub(crate) fn boot(&self) -> Boot {
        self.boot_with(&[])
    }

    /// Starts `containerboot` with more variables.
    pub(crate) fn boot_with(&self, vars: &[(&str, &str)]) -> Boot {
        self.start("containerboot", &[], vars)
    }

    /// Starts `tailpod boot`.
    pub(crate) fn tailpod(&self) -> Boot {
        self.tailpod_with(&[])
    }

    /// Starts `tailpod boot` with more variables.
    pub(crate) fn tailpod_with(&self, vars: &[(&str, &str)]) -> Boot {
        self.start("tailpod", &["boot"], vars)
    }

    /// Starts our binary under a name as a Pod's first process, to which orphans are handed.
    pub(crate) fn first_process(&self, name: &str) -> Boot {
        let links = self.sandbox.pod().links();
        let mut command = Command::new(links.join("tailpod"));
        command.args(["sandbox", "in-pod", "--"]).arg(links.join(name)).env_clear().envs(&self.env).kill_on_drop(true);
        Boot::spawn(command)
    }

    /// Starts our binary under a name.
    pub(crate) fn start(&self, name: &str, args: &[&str], vars: &[(&str, &str)]) -> Boot {
        let mut command = Command::new(self.sandbox.pod().links().join(name));
        command.args(args).env_clear().envs(&self.env).envs(vars.iter().copied()).kill_on_drop(true);
        Boot::spawn(command)
    }

    // === Commands ===

    /// `tailscaled --socket=S <rest>`
    pub(crate) fn d(&self, rest: &str) -> String {
        self.line("tailscaled", rest)
    }

    /// `tailscale --socket=S up <rest>`
    pub(crate) fn u(&self, rest: &str) -> String {
        self.line("tailscale", &format!("up {rest}"))
    }

    /// `tailscale --socket=S set <rest>`
    pub(crate) fn t(&self, rest: &str) -> String {
        self.line("tailscale", &format!("set {rest}"))
    }

    fn line(&self, program: &str, rest: &str) -> String {
        let socket = self.env.get(OsStr::new("TS_SOCKET")).expect("a socket").to_string_lossy().into_owned();
        format!("{program} --socket={socket} {rest}").trim_end().to_owned()
    }

    /// Waits until these are the command lines so far.
    pub(crate) async fn ran(&self, lines: &[String]) {
        let seen = self.daemon().await_commands(lines.len(), SOON).await;
        let seen = seen.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(seen, lines);
    }

    /// Waits until boot watches the IPN bus, then sends a message over it.
    pub(crate) async fn notify(&self, message: Value) {
        self.daemon().await_watchers(1, SOON).await.unwrap_or_else(|error| panic!("{error}"));
        self.daemon().notify(message);
    }

    // === The Secret ===

    /// What the Secret holds.
    pub(crate) fn data(&self) -> Data {
        self.api().data(NAMESPACE, SECRET)
    }

    /// Waits until the Secret's data satisfies `wanted`.
    pub(crate) async fn stored(&self, wanted: impl Fn(&Data) -> bool) -> Data {
        self.api().wait_secret(NAMESPACE, SECRET, wanted, SOON).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The API requests so far with this method.
    pub(crate) fn requests(&self, method: &str) -> Vec<Arc<Recorded>> {
        self.api().requests().into_iter().filter(|request| request.method == method).collect()
    }

    /// Sets keys of the Secret as somebody else would.
    pub(crate) fn put_keys(&self, keys: &[(&str, &str)]) {
        for (key, value) in keys {
            self.api().set_key(NAMESPACE, SECRET, key, Some(value.as_bytes()));
        }
    }
}
