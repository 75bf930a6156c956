//! Following a Secret through watches that end, expire, break and are not allowed.

use std::time::Duration;

use serde_json::{Value, json};
use tailpod::k8s::watch::Seen;
use tailpod::sandbox::http::Writer;

use super::scripted::{Answer, ApiServer, secret};

fn list(version: &str, items: &[Value]) -> Answer {
    Answer::json(&json!({"metadata": {"resourceVersion": version}, "items": items}))
}

async fn send(writer: &Writer, kind: &str, object: &Value) {
    assert!(writer.send(format!("{}\n", json!({"type": kind, "object": object}))).await, "somebody listens");
}

fn key(seen: &Seen) -> Option<&str> {
    seen.as_ref().and_then(|secret| secret.text("k"))
}

#[tokio::test]
async fn changes_arrive_as_they_happen() {
    let (streamed, writer) = Answer::streamed();
    let server = ApiServer::start([list("5", &[secret("4", &[("k", "a")])]), streamed]).await;
    let mut watch = server.cluster().await.watch_secret("s");
    assert_eq!(key(&watch.next().await.expect("a look")), Some("a"));
    let feed = async {
        let writer = writer.await.expect("a watch");
        send(&writer, "MODIFIED", &secret("4", &[("k", "a")])).await;
        send(&writer, "BOOKMARK", &secret("5", &[])).await;
        send(&writer, "MODIFIED", &secret("6", &[("k", "b")])).await;
        send(&writer, "DELETED", &secret("7", &[])).await;
        writer
    };
    let read = async {
        assert_eq!(key(&watch.next().await.expect("a change")), Some("b"), "the same version is no change");
        assert_eq!(watch.next().await.expect("a change"), None);
    };
    let (_writer, ()) = tokio::join!(feed, read);
    let lines = server.lines();
    assert_eq!(lines[0], "GET /api/v1/namespaces/ns/secrets?fieldSelector=metadata.name%3Ds");
    assert!(lines[1].contains("watch=1") && lines[1].contains("resourceVersion=5"), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_expires_or_breaks_is_opened_again_after_a_list() {
    let ends: [fn(&ApiServer) -> Vec<Answer>; 4] = [
        // Ended by the server.
        |_| vec![Answer::text("")],
        // Expired in the middle.
        |_| vec![Answer::json(&json!({"type": "ERROR", "object": {"kind": "Status", "code": 410}}))],
        // Expired at once.
        |_| vec![Answer::status(410)],
        // Cut off in the middle of a line.
        |_| vec![Answer::CutOff("{\"type\":\"MODI")],
    ];
    for end in ends {
        let server = ApiServer::start([list("1", &[secret("1", &[("k", "a")])])]).await;
        server.then(end(&server));
        server.then([list("9", &[secret("9", &[("k", "b")])])]);
        let mut watch = server.cluster().await.watch_secret("s");
        assert_eq!(key(&watch.next().await.expect("a look")), Some("a"));
        assert_eq!(key(&watch.next().await.expect("a change")), Some("b"));
        assert_eq!(server.asked().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_given_up() {
    let (streamed, writer) = Answer::streamed();
    let server = ApiServer::start([list("1", &[]), streamed, list("2", &[secret("2", &[("k", "b")])])]).await;
    let mut watch = server.cluster().await.watch_secret("s");
    assert_eq!(watch.next().await.expect("a look"), None);
    let start = tokio::time::Instant::now();
    assert_eq!(key(&watch.next().await.expect("a change")), Some("b"));
    assert!((240..300).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    drop(writer);
}

#[tokio::test(start_paused = true)]
async fn watches_that_end_at_once_are_no_busy_loop() {
    let rounds = (0..200).flat_map(|_| [list("1", &[]), Answer::text("")]);
    let server = ApiServer::start(rounds).await;
    let mut watch = server.cluster().await.watch_secret("s");
    assert_eq!(watch.next().await.expect("a look"), None);
    assert!(tokio::time::timeout(Duration::from_secs(60), watch.next()).await.is_err());
    let lists = server.lines().iter().filter(|line| !line.contains("watch=1")).count();
    assert!((4..15).contains(&lists), "{lists} lists in a minute");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_waited_out() {
    let server = ApiServer::start([list("1", &[]), Answer::text("")]).await;
    server.then((0..9).map(|_| Answer::status(503)));
    server.then([list("2", &[secret("2", &[("k", "b")])])]);
    let mut watch = server.cluster().await.watch_secret("s");
    assert_eq!(watch.next().await.expect("a look"), None);
    assert_eq!(key(&watch.next().await.expect("a change")), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn where_watching_is_not_allowed_the_secret_is_read_every_five_seconds() {
    let server = ApiServer::start([
        list("1", &[]),
        Answer::status(403),
        Answer::status(404),
        Answer::secret("2", &[("k", "a")]),
        Answer::secret("2", &[("k", "a")]),
        Answer::secret("3", &[("k", "b")]),
    ])
    .await;
    let mut watch = server.cluster().await.watch_secret("s");
    assert_eq!(watch.next().await.expect("a look"), None);
    assert_eq!(key(&watch.next().await.expect("a change")), Some("a"));
    assert!(watch.is_polling());
    let start = tokio::time::Instant::now();
    assert_eq!(key(&watch.next().await.expect("a change")), Some("b"));
    assert!((9..=11).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_died_without_a_word_is_found_out_by_looking() {
    let (streamed, writer) = Answer::streamed();
    let server = ApiServer::start([
        list("1", &[secret("1", &[("k", "a")])]),
        streamed,
        Answer::secret("1", &[("k", "a")]),
        Answer::status(403),
        Answer::Hang,
        Answer::secret("2", &[("k", "b")]),
        list("2", &[secret("2", &[("k", "b")])]),
    ])
    .await;
    let every = Duration::from_secs(5);
    let mut watch = server.cluster().await.watch_secret("s").checked_every(every);
    assert_eq!(key(&watch.next().await.expect("a look")), Some("a"));
    let start = tokio::time::Instant::now();
    // The same, a refusal, no answer, and then what the watch has not told.
    assert_eq!(key(&watch.next().await.expect("a change")), Some("b"));
    assert!((20..=30).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(tokio::time::timeout(every, watch.next()).await.is_err(), "it lists again, and that is no change");
    drop(writer);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_speaks_is_not_checked() {
    let (streamed, writer) = Answer::streamed();
    let server = ApiServer::start([list("1", &[secret("1", &[("k", "0")])]), streamed]).await;
    let mut watch = server.cluster().await.watch_secret("s").checked_every(Duration::from_secs(5));
    assert_eq!(key(&watch.next().await.expect("a look")), Some("0"));
    let feed = async {
        let writer = writer.await.expect("a watch");
        for round in 1..=10 {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let change = secret(&format!("{}", round + 1), &[("k", &round.to_string())]);
            send(&writer, "MODIFIED", &change).await;
        }
        writer
    };
    let read = async {
        for round in 1..=10 {
            assert_eq!(key(&watch.next().await.expect("a change")), Some(round.to_string().as_str()));
        }
    };
    let (_writer, ()) = tokio::join!(feed, read);
    assert_eq!(server.asked().len(), 2, "{:?}", server.lines());
}
