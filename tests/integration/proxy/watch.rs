//! Watches: each event at once, no limit on their length, and gone when the client is.

use std::time::Duration;

use tokio::time::Instant;

use super::upstream::Step;
use super::world::{World, get};

pub(super) const WATCH: &str = "/api/v1/pods?watch=true";

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

/// An open watch with one event after each go-ahead.
pub(super) fn watch(events: usize) -> Vec<Step> {
    let mut steps = vec![say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")];
    for _ in 0..events {
        steps.extend([Step::Await, say("6\r\nevent\n\r\n")]);
    }
    steps.push(Step::Drain);
    steps
}

#[tokio::test]
async fn row_18_events_arrive_at_once_and_a_client_that_leaves_ends_the_watch() {
    let world = World::start(&[]).await;
    world.upstream.script(watch(5));
    let mut client = world.client().await;
    client.send(get(WATCH)).await;
    client.head().await;
    for _ in 0..5 {
        let begun = Instant::now();
        world.upstream.go_on();
        assert_eq!(client.until(b"event\n\r\n").await, b"6\r\nevent\n\r\n");
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    }
    drop(client);
    let begun = Instant::now();
    world.upstream.wait("end", |seen| seen[0].is_gone).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_request() {
    let world = World::start(&[]).await;
    world.upstream.script([Step::Await]);
    let mut client = world.client().await;
    client.send(get(WATCH)).await;
    world.upstream.request(0).await;
    drop(client);
    world.upstream.wait("end", |seen| seen[0].is_gone).await;
}
