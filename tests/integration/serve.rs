//! The serve config on its way to the daemon: the applier and the follower against LocalAPI on a real socket.
//!
//! Scenarios are those of localapi.md 14 (`l…`) and certs.md 13 (`c…`), weaknesses those of certs.md 12 (`w…`), under their
//! own numbers.

use std::sync::Arc;

use serde_json::{Value, json};
use tailpod::localapi::{Error, ErrorKind, LocalApi};
use tailpod::sandbox::{Daemon, Fault, Sandbox, SandboxOptions};
use tailpod::serve::apply::{Applied, apply, clear};
use tailpod::serve::change::carried_over;
use tailpod::serve::document::NodeFacts;
use tailpod::serve::follow::{Delivery, Follower, Leftovers, Problem, Source, Standing};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::SOON;

const POST: &str = "POST serve-config";

async fn sandbox() -> (Sandbox, LocalApi) {
    let sandbox = Sandbox::start(SandboxOptions::new(env!("CARGO_BIN_EXE_tailpod"))).await.unwrap();
    let api = LocalApi::new(&sandbox.pod().backend());
    (sandbox, api)
}

/// Makes `desired` the daemon's config.
async fn put(api: &LocalApi, desired: &Value) -> Result<Applied, Error> {
    apply(api, |installed| carried_over(installed, desired), SOON).await
}

fn http() -> Value {
    json!({"TCP": {"80": {"HTTP": true}}})
}

#[tokio::test]
async fn l14_null_is_replaced_by_its_etag() {
    let (sandbox, api) = sandbox().await;
    assert_eq!(put(&api, &http()).await.unwrap(), Applied::Changed);
    let posted = sandbox.daemon().await_call(SOON, |call| call.what() == POST).await.unwrap();
    let etag = posted.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("if-match"));
    assert!(etag.is_some_and(|(_, etag)| etag.len() == 64), "{posted:?}");
    assert_eq!(put(&api, &http()).await.unwrap(), Applied::Unchanged);
    assert_eq!(sandbox.daemon().count(POST), 1);
}

/// What somebody else writes between our look and our change survives it.
#[tokio::test]
async fn l15_w17_a_config_that_others_change_is_read_again() {
    let (sandbox, api) = sandbox().await;
    let session = json!({"s1": {"TCP": {"3000": {"HTTP": true}}}});
    let desired = |installed: &Value| {
        if installed["Foreground"].is_null() {
            sandbox.daemon().put_serve_config(json!({ "Foreground": session }));
        }
        carried_over(installed, &http())
    };
    assert_eq!(apply(&api, desired, SOON).await.unwrap(), Applied::Changed);
    assert_eq!((sandbox.daemon().count(POST), sandbox.daemon().count("GET serve-config")), (2, 2));
    assert_eq!(sandbox.daemon().serve_config()["Foreground"], session);
    sandbox.daemon().fail(POST, Fault::Status(412, "etag mismatch\n".to_owned()));
    let error = put(&api, &json!({})).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::EtagMismatch), "{error}");
    assert_eq!(sandbox.daemon().count(POST), 2 + 5);
}

#[tokio::test]
async fn l16_a_daemon_without_a_netmap_is_waited_for() {
    let (sandbox, api) = sandbox().await;
    for _ in 0..2 {
        let text = r#"{"error":"updating config: netMap is nil"}"#.to_owned();
        sandbox.daemon().fail_next(POST, Fault::Status(500, text));
    }
    assert_eq!(put(&api, &http()).await.unwrap(), Applied::Changed);
    assert_eq!(sandbox.daemon().serve_config(), http());
}

#[tokio::test]
async fn a_port_changes_its_kind_in_two_steps_and_foreground_sessions_stay() {
    let (sandbox, api) = sandbox().await;
    let session = json!({"s1": {"TCP": {"3000": {"HTTP": true}}}});
    let old = json!({"TCP": {"443": {"TCPForward": "h:1"}, "80": {"HTTP": true}}, "Foreground": session});
    api.post_serve_config(&old, None).await.unwrap();
    let new = json!({"TCP": {"443": {"HTTPS": true}, "80": {"HTTP": true}}, "Web": {"n.ts.net:443": {"Handlers": {}}}});
    assert_eq!(put(&api, &new).await.unwrap(), Applied::Changed);
    let posted: Vec<_> = sandbox.daemon().calls().into_iter().filter(|call| call.what() == POST).collect();
    assert_eq!(posted.len(), 4, "the old one, the one refused, the one between, the new one");
    assert_eq!(posted[2].json.as_ref().unwrap()["TCP"], json!({"80": {"HTTP": true}}));
    let installed = sandbox.daemon().serve_config();
    assert_eq!((&installed["TCP"]["443"], &installed["Foreground"]), (&json!({"HTTPS": true}), &session));
    clear(&api).await.unwrap();
    assert_eq!(sandbox.daemon().serve_config(), json!({ "Foreground": session }));
}

/// A follower of a file in a directory of its own.
struct Following {
    sandbox: Sandbox,
    dir: tempfile::TempDir,
    facts: watch::Sender<NodeFacts>,
    run: watch::Sender<u64>,
    standing: watch::Receiver<Standing>,
    _task: JoinSet<()>,
}

impl Following {
    async fn new(text: Option<&str>, facts: NodeFacts) -> Self {
        let (sandbox, api) = sandbox().await;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("serve.json");
        if let Some(text) = text {
            std::fs::write(&file, text).unwrap();
        }
        let (facts, facts_seen) = watch::channel(facts);
        let (run, daemon) = watch::channel(1);
        let (standing, standing_seen) = watch::channel(Standing::default());
        let source = Source::parse(file.to_str().unwrap());
        let follower = Follower {
            api,
            source,
            delivery: Delivery::Apply,
            leftovers: Leftovers::Compare,
            facts: facts_seen,
            daemon,
            standing,
        };
        let mut task = JoinSet::new();
        task.spawn(follower.run(CancellationToken::new()));
        Self { sandbox, dir, facts, run, standing: standing_seen, _task: task }
    }

    fn write(&self, text: &str) {
        std::fs::write(self.dir.path().join("serve.json"), text).unwrap();
    }

    fn daemon(&self) -> &Daemon {
        self.sandbox.daemon()
    }

    async fn posts(&self, count: usize) {
        self.daemon().await_count(POST, count, SOON).await.unwrap_or_else(|error| panic!("{error}"));
    }

    async fn stands(&mut self, is: impl Fn(&Standing) -> bool) -> Standing {
        let stands = timeout(SOON, self.standing.wait_for(|standing| is(standing))).await;
        let standing = stands.expect("in time").expect("a follower");
        Standing::clone(&standing)
    }
}

fn facts(cert_domain: Option<&str>) -> NodeFacts {
    NodeFacts { known: true, cert_domain: cert_domain.map(str::to_owned), suffix: Some("tail1.ts.net".to_owned()) }
}

#[tokio::test]
async fn c25_a_bad_edit_keeps_the_last_good_config() {
    let mut following = Following::new(Some(&http().to_string()), facts(None)).await;
    following.posts(1).await;
    following.write("{\"TCP\": {\"80\": {\"HTTP\": tru");
    let bad = following.stands(|standing| standing.problem.is_some()).await;
    let Some(Problem::Invalid(error)) = bad.problem.as_deref() else { panic!("{bad:?}") };
    assert_eq!(error.to_string(), "line 1, column 25: \"tru\" is not a value");
    assert_eq!(*bad.good.unwrap().config, http());
    assert_eq!((following.daemon().serve_config(), bad.failed), (http(), 1));
    // The same again is no news for the daemon; another one is.
    following.write(&format!("{:#}", http()));
    following.stands(|standing| standing.problem.is_none()).await;
    following.write(r#"{"TCP": {"81": {"HTTP": true}}}"#);
    following.posts(2).await;
}

/// Upstream sends the first as `no-https`, looks for HTTPS at the top only, and never tries the last one again.
#[tokio::test]
async fn c26_w11_https_is_held_back_until_the_tailnet_has_it() {
    for (text, place) in [
        (r#"{"TCP": {"80": {"HTTP": true}}, "Web": {"${TS_CERT_DOMAIN}:80": {"Handlers": {}}}}"#, "/Web/n.ts.net:80"),
        (r#"{"TCP": {"443": {"HTTPS": true}}, "Web": {"${TS_CERT_DOMAIN}:443": {}}}"#, "/Web/n.ts.net:443"),
        (r#"{"Services": {"svc:a": {"TCP": {"443": {"HTTPS": true}}}}}"#, "/Services/svc:a/TCP/443"),
        (r#"{"TCP": {"443": {"HTTPS": true}}}"#, "/TCP/443"),
    ] {
        let mut following = Following::new(Some(text), NodeFacts::default()).await;
        following.stands(|standing| standing.problem.is_some()).await;
        following.facts.send_replace(facts(None));
        let held = following.stands(|standing| {
            standing.problem.as_ref().is_some_and(|problem| {
                std::error::Error::source(&**problem)
                    .is_some_and(|held| held.to_string().contains("HTTPS is not enabled"))
            })
        });
        assert_eq!(held.await.failed, 0, "nothing failed, it waits: {text}");
        assert_eq!(following.daemon().count(POST), 0, "{text}");
        following.facts.send_replace(facts(Some("n.ts.net")));
        following.posts(1).await;
        assert!(following.daemon().serve_config().pointer(place).is_some(), "{text}");
        if text.contains("CERT_DOMAIN") {
            following.facts.send_replace(facts(Some("m.ts.net")));
            following.posts(2).await;
            let place = place.replace("n.ts", "m.ts");
            assert!(following.daemon().serve_config().pointer(&place).is_some(), "{text}");
        }
    }
}

#[tokio::test]
async fn link_swaps_and_late_files_are_seen_and_an_empty_file_is_nothing() {
    let following = Following::new(None, facts(None)).await;
    std::fs::create_dir(following.dir.path().join("v1")).unwrap();
    std::fs::write(following.dir.path().join("v1/serve.json"), http().to_string()).unwrap();
    std::os::unix::fs::symlink("v1/serve.json", following.dir.path().join("new")).unwrap();
    std::fs::rename(following.dir.path().join("new"), following.dir.path().join("serve.json")).unwrap();
    following.posts(1).await;
    std::fs::remove_file(following.dir.path().join("serve.json")).unwrap();
    following.write("");
    following.write(r#"{"TCP": {"81": {"HTTP": true}}}"#);
    following.posts(2).await;
    assert_eq!(following.daemon().serve_config()["TCP"]["81"], json!({"HTTP": true}));
}

#[tokio::test]
async fn a_config_that_the_daemon_does_not_take_is_tried_again() {
    let mut following = Following::new(None, facts(None)).await;
    following.daemon().fail_next(POST, Fault::Status(500, r#"{"error":"updating config: disk full"}"#.to_owned()));
    following.write(&http().to_string());
    let refused = following.stands(|standing| standing.problem.is_some()).await;
    assert!(matches!(refused.problem.as_deref(), Some(Problem::Refused(_))));
    let good = following.stands(|standing| standing.problem.is_none() && standing.good.is_some()).await;
    assert_eq!((good.applied, good.failed), (1, 1));
    assert_eq!(good.good.unwrap().config, Arc::new(http()));
}

#[tokio::test]
async fn an_inline_config_needs_no_file() {
    let (sandbox, api) = sandbox().await;
    let (_facts, facts) = watch::channel(facts(None));
    let (_run, daemon) = watch::channel(1);
    let (standing, _seen) = watch::channel(Standing::default());
    let source = Source::parse(" {\"TCP\": {\"80\": {\"HTTP\": true}}}");
    assert!(matches!(source, Source::Inline(_)));
    let mut task = JoinSet::new();
    let follower =
        Follower { api, source, delivery: Delivery::Apply, leftovers: Leftovers::Compare, facts, daemon, standing };
    task.spawn(follower.run(CancellationToken::new()));
    sandbox.daemon().await_count(POST, 1, SOON).await.unwrap();
    assert_eq!(sandbox.daemon().serve_config(), http());
}

#[tokio::test]
async fn another_daemon_is_told_again() {
    let following = Following::new(Some(&http().to_string()), facts(None)).await;
    following.posts(1).await;
    following.daemon().put_serve_config(Value::Null);
    following.run.send_replace(2);
    following.posts(2).await;
    assert_eq!(following.daemon().serve_config(), http());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told_once_and_read_when_it_can_be() {
    let mut following = Following::new(Some(&http().to_string()), facts(None)).await;
    following.posts(1).await;
    // Root may read whatever has no permissions; a directory can be read by nobody.
    let file = following.dir.path().join("serve.json");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let bad = following.stands(|standing| standing.problem.is_some()).await;
    assert!(matches!(bad.problem.as_deref(), Some(Problem::Unreadable(_))), "{bad:?}");
    std::fs::remove_dir(&file).unwrap();
    following.write(r#"{"TCP": {"81": {"HTTP": true}}}"#);
    following.posts(2).await;
    assert_eq!(following.stands(|standing| standing.problem.is_none()).await.failed, 1);
}

#[tokio::test]
async fn too_much_is_refused_with_the_limit() {
    let mut following = Following::new(None, facts(None)).await;
    let said = |standing: &Standing, part: &str| {
        standing.problem.as_deref().is_some_and(|problem| tailpod::causes::chain(problem).contains(part))
    };
    following.write(&format!("{{\"x\": \"{}\"}}", "a".repeat(4 << 20)));
    following.stands(|standing| said(standing, "at most 4194304")).await;
    let entries = |form: fn(usize) -> String| (0..1001).map(form).collect::<Vec<_>>().join(",");
    let services = entries(|n| format!("\"svc:s{n}\": {{\"TCP\": {{\"1\": {{\"TCPForward\": \"a:1\"}}}}}}"));
    following.write(&format!("{{\"Services\": {{{services}}}}}"));
    following.stands(|standing| said(standing, "there are 1001 entries, and at most 1000 are possible")).await;
    let services = entries(|n| format!("\"svc:s{n}\": {{\"endpoints\": {{\"tcp:1\": \"tcp://a:1\"}}}}"));
    following.write(&format!("{{\"version\": \"0.0.1\", \"services\": {{{services}}}}}"));
    following.stands(|standing| said(standing, "there are 1001 Services")).await;
    assert_eq!(following.daemon().count(POST), 0);
}
