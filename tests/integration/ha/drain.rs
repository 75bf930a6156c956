//! The hook before a shutdown, over real sockets. Its seconds and minutes are on a paused clock beside the code.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Replica, checked, elements, netmap, service};
use crate::support::{Boot, SOON, get, http};

const HOOK: &str = "/internal-egress-services-preshutdown";
const OURS: &str = "Pod-IPv4: 10.42.0.7\r\n";
const OTHER: &str = "Pod-IPv4: 10.42.0.8\r\nPod-IPv6: fd42::8\r\n";

/// The cluster's health check endpoint: some replica answers each connection.
struct Endpoint {
    addr: SocketAddr,
    seen: watch::Receiver<Vec<String>>,
    _serving: JoinSet<()>,
}

impl Endpoint {
    /// Answers with these headers, the last of them for ever.
    async fn start(bind: &str, answers: &[&str]) -> Self {
        let listener = TcpListener::bind(bind).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (told, seen) = watch::channel(Vec::new());
        let answers: Arc<Mutex<Vec<String>>> =
            Arc::new(Mutex::new(answers.iter().rev().map(|answer| (*answer).to_owned()).collect()));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
                let headers = {
                    let mut answers = answers.lock().unwrap();
                    if answers.len() > 1 { answers.pop().unwrap() } else { answers[0].clone() }
                };
                let answer = format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nok");
                let _ = stream.write_all(answer.as_bytes()).await;
                told.send_modify(|seen| seen.push(String::from_utf8_lossy(&request).into_owned()));
            }
        });
        Self { addr, seen, _serving: serving }
    }

    fn url(&self) -> String {
        format!("http://{}/healthz", self.addr)
    }

    async fn asked(&self, times: usize) {
        let mut seen = self.seen.clone();
        timeout(SOON, seen.wait_for(|seen| seen.len() >= times)).await.expect("health checks in time").unwrap();
    }

    fn count(&self) -> usize {
        self.seen.borrow().len()
    }
}

fn config(services: &[(&str, &str)]) -> Value {
    let services = services.iter().enumerate().map(|(nth, (name, url))| {
        let port = 10_001 + u16::try_from(nth).unwrap();
        ((*name).to_owned(), checked(url, &service("100.64.0.9", &[("TCP", port, 1)])))
    });
    Value::Object(services.collect())
}

/// A replica that serves these Services.
async fn serving(services: &[(&str, &str)], pings: &str, vars: &[(&str, &str)]) -> (Replica, Boot) {
    let mut group = Replica::egress(&json!({})).await;
    for (name, value) in vars {
        group = group.with(name, value);
    }
    group.publish(&[("egress-services", &config(services).to_string()), ("hep-pings", pings)]);
    let boot = group.up(netmap(&["100.64.0.1"], &[])).await;
    group.reports(|status| status["services"].is_object()).await;
    (group, boot)
}

/// Calls the hook, and says nothing more.
async fn call(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(format!("GET {HOOK} HTTP/1.1\r\nHost: pod\r\n\r\n").as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn ha_15_a_round_without_this_pod_ends_the_waiting() {
    let endpoint = Endpoint::start("127.0.0.1:0", &[OTHER, OTHER, OTHER, OURS, OTHER]).await;
    let (group, boot) = serving(&[("web", &endpoint.url())], "4", &[("POD_IPS", "10.42.0.7")]).await;
    let mut waiting = call(group.port).await;
    boot.mentioned(r#"egress service "web" does not lead to 10.42.0.7 any more"#).await;
    assert_eq!(endpoint.count(), 4 + 4, "the last answer of the first round was ours");
    for request in endpoint.seen.borrow().iter() {
        let request = request.to_lowercase();
        assert!(request.starts_with("get /healthz http/1.1\r\n"), "{request}");
        assert!(request.contains("connection: close\r\n"), "{request}");
    }
    boot.mentioned("the rest of the cluster has 10s to see").await;
    let answered = timeout(Duration::from_millis(50), waiting.read_u8()).await;
    assert!(answered.is_err(), "not before that: {answered:?}");
    // Another replica, and the operator, go on asking.
    let health = get(group.port, "/healthz").await;
    assert_eq!((health.status, health.header("pod-ipv4")), (200, Some("10.42.0.7")));
    boot.stops().await;
}

/// H5.
#[tokio::test]
async fn ha_16_an_endpoint_where_nobody_listens_is_no_reason_to_wait() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (group, boot) = serving(&[("web", &format!("http://{closed}/healthz"))], "4", &[]).await;
    let _waiting = call(group.port).await;
    boot.mentioned(r#"egress service "web" does not lead to 10.42.0.7 any more: nobody answers"#).await;
    boot.mentioned(r#"egress service "web" does not lead to fd42::7 any more: nobody answers"#).await;
    boot.stops().await;
}

/// H14, H19.
#[tokio::test]
async fn ha_17_nothing_to_wait_for_is_answered_at_once() {
    let (group, boot) = serving(&[("web", "")], "4", &[]).await;
    let answer = async |files: &[(&str, &str)]| {
        group.publish(files);
        let answer = get(group.port, HOOK).await;
        (answer.status, answer.body)
    };
    let web = config(&[("web", "")]).to_string();
    assert_eq!(answer(&[("egress-services", &web)]).await, (200, String::new()), "no endpoint");
    assert_eq!(answer(&[("egress-services", "{}")]).await, (200, String::new()));
    assert_eq!(answer(&[("egress-services", "")]).await, (200, "safe to terminate".to_owned()));
    assert_eq!(answer(&[("hep-pings", "4")]).await, (200, "safe to terminate".to_owned()));
    let (status, body) = answer(&[("egress-services", "{")]).await;
    assert!(status == 500 && body.starts_with("error retrieving egress services configs: "), "{status} {body}");
    let (status, body) = answer(&[("egress-services", &web), ("hep-pings", "x")]).await;
    let text = "error determining the number of times health check endpoint should be pinged: ";
    assert!(status == 500 && body.starts_with(text), "{status} {body}");
    assert_eq!(http(group.port, "HEAD", HOOK, "").await.status, 500);
    let refused = http(group.port, "POST", HOOK, "Content-Length: 0\r\n").await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("get, head")));
    boot.stops().await;
}

/// H13, H14.
#[tokio::test]
async fn ha_18_a_caller_that_goes_ends_the_drain() {
    let endpoint = Endpoint::start("127.0.0.1:0", &[OURS]).await;
    let vars = [("POD_IPS", "10.42.0.7"), ("TS_ENABLE_METRICS", "true")];
    let (group, boot) = serving(&[("web", &endpoint.url()), ("old", "")], "4", &vars).await;
    let both = ["tcp . 10001 : 100.64.0.9 . 1", "tcp . 10002 : 100.64.0.9 . 1"];
    assert_eq!(elements(group.scripts().last().unwrap()), both);
    let (first, second) = (call(group.port).await, call(group.port).await);
    endpoint.asked(1).await;
    // What leaves the config meanwhile is unreported, and served.
    group.configure(&config(&[("web", &endpoint.url())]));
    group.reports(|status| status["services"].get("old").is_none()).await;
    assert_eq!(elements(group.scripts().last().unwrap()), both);
    drop(first);
    let asked = endpoint.count();
    endpoint.asked(asked + 1).await;
    drop(second);
    let after = group.applied(group.scripts().len() + 1).await;
    assert_eq!(elements(&after), ["tcp . 10001 : 100.64.0.9 . 1"], "the end of the drain is the end of what was kept");
    let asked = endpoint.count();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(endpoint.count(), asked, "a tick and more without a health check");
    boot.stops().await;
}

#[tokio::test]
async fn ha_19_a_pod_with_only_ipv6_is_told_by_that() {
    let ours = "Pod-IPv4: 10.42.0.7\r\nPod-IPv6: FD42::7\r\n";
    let endpoint = Endpoint::start("127.0.0.1:0", &[ours, ours, OTHER]).await;
    let (group, boot) = serving(&[("web", &endpoint.url())], "2", &[("POD_IPS", "fd42::7")]).await;
    let _waiting = call(group.port).await;
    boot.mentioned(r#"egress service "web" does not lead to fd42::7 any more"#).await;
    assert_eq!(endpoint.count(), 1 + 1 + 2);
    boot.stops().await;
}

/// H13: each family is asked by itself, so that clients of the other are not cut off.
#[tokio::test]
async fn ha_19_a_pod_with_both_families_is_drained_in_both() {
    let endpoint = Endpoint::start("[::1]:0", &["Pod-IPv4: 10.42.0.8\r\nPod-IPv6: fd42::7\r\n", OTHER]).await;
    let (group, boot) = serving(&[("web", &endpoint.url())], "3", &[]).await;
    let _waiting = call(group.port).await;
    boot.mentioned(r#"egress service "web" does not lead to fd42::7 any more"#).await;
    assert_eq!(endpoint.count(), 1 + 3);
    boot.mentioned(r#"egress service "web" does not lead to 10.42.0.7 any more: nobody answers"#).await;
    boot.stops().await;
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_drain_is_a_stop() {
    let endpoint = Endpoint::start("127.0.0.1:0", &[OURS]).await;
    let (group, boot) = serving(&[("web", &endpoint.url())], "1", &[("POD_IPS", "10.42.0.7")]).await;
    let _waiting = call(group.port).await;
    endpoint.asked(1).await;
    boot.stops().await;
}
