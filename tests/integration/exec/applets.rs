//! Whatever takes a kubeconfig runs its plugin in one and the same way: what it is told, and who may forbid it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Duration, Instant, sleep};

use crate::proxy::world::{ANN, get, proxy_header, user};
use crate::support::{Boot, NAMESPACE, SECRET, SOON, Scene, is_alive, running};

/// How one of them is started.
struct Applet {
    /// As the list of applets has it, or as the binary is called.
    name: &'static str,
    args: &'static [&'static str],
    vars: &'static [(&'static str, &'static str)],
}

/// `K` is the kubeconfig, `D` a directory, `C` a config of `k8s-proxy`.
const APPLETS: &[Applet] = &[
    Applet { name: "doctor", args: &["--only", "api", "--kubeconfig", "K"], vars: &[] },
    Applet { name: "authkey", args: &["request", "--kubeconfig", "K", "--secret", SECRET], vars: &[] },
    Applet { name: "certs", args: &["list", "--socket", "S", "--kubeconfig", "K"], vars: &[] },
    Applet { name: "secret", args: &["inspect", "--kubeconfig", "K", "--secret", SECRET], vars: &[] },
    Applet { name: "complete", args: &["secrets", "--kubeconfig", "K"], vars: &[] },
    Applet {
        name: "proxy",
        args: &["--kubeconfig", "K", "--listen", "127.0.0.1:0", "--proxy-protocol", "--socket", "S"],
        vars: &[],
    },
    Applet {
        name: "boot",
        args: &[],
        vars: &[("TAILPOD_KUBECONFIG", "K"), ("TS_STATE_DIR", "D"), ("TS_KUBE_SECRET", SECRET)],
    },
    Applet { name: "k8s-proxy", args: &[], vars: &[("TAILPOD_KUBECONFIG", "K"), ("TS_K8S_PROXY_CONFIG", "C")] },
];

/// A Pod, with a plugin that writes down what it is told and answers with the token of the cluster's admin.
struct Stage {
    scene: Scene,
    kubeconfig: PathBuf,
    config: PathBuf,
}

impl Stage {
    async fn new() -> Self {
        let scene = Scene::new().await;
        scene.api().put_secret(NAMESPACE, SECRET, [("authkey", "tskey-auth-kX-y")]);
        scene.daemon().set_whois(ANN, user("ann@example.com", &json!({})));
        let pod = scene.sandbox.pod();
        let token = scene.api().admin_token();
        let answer = json!({"kind": "ExecCredential", "apiVersion": super::V1, "status": {"token": token}});
        let runs = pod.root().join("runs");
        let plugin = format!("echo \"$KUBERNETES_EXEC_INFO\" >> '{}'\necho '{answer}'\n", runs.display());
        let plugin = pod.write("plugin.sh", plugin).unwrap();
        let mut kubeconfig: Value = serde_json::from_str(&scene.api().kubeconfig("", NAMESPACE)).unwrap();
        kubeconfig["users"][0]["user"] = json!({"exec": {
            "apiVersion": super::V1, "command": "/bin/sh", "args": [plugin],
            "interactiveMode": "IfAvailable", "provideClusterInfo": true,
        }});
        let kubeconfig = pod.write("with-plugin", kubeconfig.to_string()).unwrap();
        let config = json!({"version": "v1alpha1", "authKey": "k", "state": format!("kube:{SECRET}")});
        let config = pod.write("config.hujson", config.to_string()).unwrap();
        Self { scene, kubeconfig, config }
    }

    /// What the plugin was told in each run.
    fn runs(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.scene.root().join("runs")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn start(&self, applet: &Applet, vars: &[(&str, &str)]) -> Boot {
        let fill = |text: &str| match text {
            "K" => self.kubeconfig.clone(),
            "C" => self.config.clone(),
            "D" => self.scene.root().join("state"),
            "S" => self.scene.sandbox.pod().backend().clone(),
            other => PathBuf::from(other),
        };
        let links = self.scene.sandbox.pod().links();
        let mut command = if applet.name == "k8s-proxy" {
            Command::new(links.join(applet.name))
        } else {
            let mut command = Command::new(links.join("tailpod"));
            command.arg(applet.name);
            command
        };
        command.args(applet.args.iter().map(|arg| fill(arg))).env_clear().envs(self.scene.env());
        command.envs(applet.vars.iter().map(|(name, value)| (name, fill(value))));
        command.envs(vars.iter().copied()).env("POD_UID", "uid-1").kill_on_drop(true);
        Boot::spawn(command)
    }

    /// Lets it do what needs the cluster, for as long as the client stays that this may take.
    async fn ask(&self, applet: &Applet, running: &Boot) -> Option<TcpStream> {
        if applet.name != "proxy" {
            return None;
        }
        let line = running.mentioned("is listening on ").await;
        let mut stream = TcpStream::connect(line.rsplit(' ').next().unwrap()).await.unwrap();
        stream.write_all(&[proxy_header(ANN), get("/api/v1/namespaces").into_bytes()].concat()).await.unwrap();
        Some(stream)
    }

    /// Starts it, and waits until that is so. `complete` gives up within a third of a second, so on a busy machine it is
    /// started again.
    async fn start_until(
        &self,
        applet: &Applet,
        vars: &[(&str, &str)],
        is_so: impl Fn(&Self) -> bool,
    ) -> (Boot, Option<TcpStream>) {
        let begun = Instant::now();
        loop {
            let mut running = self.start(applet, vars);
            let client = self.ask(applet, &running).await;
            if applet.name != "complete" {
                self.until(applet, &running, is_so).await;
                return (running, client);
            }
            let ended = running.end().await;
            if is_so(self) {
                return (running, client);
            }
            assert!(begun.elapsed() < SOON, "complete: {}", ended.text());
            let _ = std::fs::remove_file(self.scene.root().join("runs"));
        }
    }

    async fn until(&self, applet: &Applet, running: &Boot, is_so: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < SOON, "{}: {}", applet.name, running.text());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn the_plugin_of_a_kubeconfig_is_run_by_all_and_told_the_same() {
    let mut told = BTreeSet::new();
    for applet in APPLETS {
        let stage = Stage::new().await;
        stage.scene.daemon().notify(running());
        let is_admin = |stage: &Stage| {
            let requests = stage.scene.api().requests();
            requests.iter().any(|request| request.user.is_some() && request.status.is_some())
        };
        let _running = stage.start_until(applet, &[], is_admin).await;
        assert!(stage.scene.api().requests().iter().all(|request| request.user.is_some()), "{}", applet.name);
        let runs = stage.runs();
        assert_eq!(runs.len(), 1, "{}: {runs:?}", applet.name);
        let mut info = runs.into_iter().next().unwrap();
        assert_eq!(info["spec"]["cluster"]["server"], stage.scene.api().url(), "{}", applet.name);
        // These differ between clusters, not between applets.
        for varies in ["server", "certificate-authority-data"] {
            info["spec"]["cluster"].as_object_mut().unwrap().remove(varies).expect("it is told");
        }
        told.insert(info.to_string());
    }
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn what_the_policy_forbids_is_run_by_none() {
    for applet in APPLETS {
        let stage = Stage::new().await;
        let mut running = stage.start(applet, &[("TAILPOD_EXEC_POLICY", "DenyAll")]);
        let _client = stage.ask(applet, &running).await;
        if applet.name == "complete" {
            // It says nothing, whatever happens: a shell would show it in the middle of a command line.
            running.end().await;
        } else {
            running.mentioned("not allowed: policy set to").await;
        }
        assert_eq!((stage.runs().len(), stage.scene.api().requests().len()), (0, 0), "{}", applet.name);
    }
}

/// A terminal's SIGINT does not reach a plugin, which has its own process group.
#[tokio::test]
async fn an_interrupted_doctor_leaves_no_plugin_behind() {
    let stage = Stage::new().await;
    let pid = stage.scene.root().join("pid");
    let hanging = format!("echo $$ > '{0}.new'; mv '{0}.new' '{0}'; exec sleep 1000", pid.display());
    stage.scene.sandbox.pod().write("plugin.sh", hanging).unwrap();
    let applet = APPLETS.iter().find(|applet| applet.name == "doctor").unwrap();
    let mut doctor = stage.start(applet, &[]);
    stage.until(applet, &doctor, |_| pid.exists()).await;
    let plugin = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    assert!(is_alive(plugin));
    doctor.signal(Signal::SIGINT);
    doctor.ends(130).await;
    stage.until(applet, &doctor, |_| !is_alive(plugin)).await;
}

/// A Pod that was given no token, beside a kubeconfig that nobody named for us. What serves a cluster to others takes no
/// other one for it; what is typed does as kubectl does.
#[tokio::test]
async fn a_pod_without_a_token_serves_no_other_cluster() {
    for applet in APPLETS {
        let stage = Stage::new().await;
        let account = stage.scene.sandbox.pod().service_account();
        std::fs::remove_file(account.join("token")).unwrap();
        let args: Vec<_> = applet.args.iter().copied().filter(|arg| !["--kubeconfig", "K"].contains(arg)).collect();
        let vars: Vec<_> = applet.vars.iter().copied().filter(|(name, _)| *name != "TAILPOD_KUBECONFIG").collect();
        let unnamed = Applet { name: applet.name, args: args.leak(), vars: vars.leak() };
        let kubeconfig = stage.kubeconfig.to_str().unwrap();
        let pod =
            [("KUBECONFIG", kubeconfig), ("KUBERNETES_SERVICE_HOST", "192.0.2.1"), ("KUBERNETES_SERVICE_PORT", "1")];
        if ["doctor", "authkey", "certs", "secret", "complete"].contains(&applet.name) {
            stage.start_until(&unnamed, &pod, |stage| !stage.scene.api().requests().is_empty()).await;
            continue;
        }
        let mut running = stage.start(&unnamed, &pod);
        let ended = running.end().await;
        assert_ne!(ended.code, Some(0), "{}: {}", applet.name, ended.text());
        let token = account.join("token").display().to_string();
        assert!(ended.mentions(&token), "{}: {}", applet.name, ended.text());
        assert_eq!((stage.runs().len(), stage.scene.api().requests().len()), (0, 0), "{}", applet.name);
    }
}

/// The table above has no hole.
#[tokio::test]
async fn the_list_of_applets_that_take_a_kubeconfig_is_complete() {
    let help = async |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tailpod")).args(args).arg("--help").env_clear().output().await;
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let all = help(&[]).await;
    let listed = all.lines().skip_while(|line| *line != "Applets:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<_> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"doctor"), "{all}");
    for name in names {
        if help(&[name]).await.contains("--kubeconfig") {
            assert!(APPLETS.iter().any(|applet| applet.name == name), "{name}");
        }
    }
}
