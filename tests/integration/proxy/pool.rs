//! Connections to the API server, which wait for the next request, but not for ever.

use std::time::Duration;

use super::inside::{Inside, pass};
use super::world::get;

const POST: &str = "POST /api HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn one_waits_ninety_seconds_and_sixty_for_what_cannot_be_repeated() {
    let proxy = Inside::start().await;
    let mut used = Vec::new();
    for (number, (waited, request)) in [
        (0, get("/api")),
        (59, POST.into()),
        (61, POST.into()),
        (75, get("/api")),
        (89, get("/api")),
        (91, get("/api")),
    ]
    .into_iter()
    .enumerate()
    {
        pass(Duration::from_secs(waited)).await;
        // Which connection the client uses is no matter.
        let mut client = proxy.client().await;
        client.send(request).await;
        assert_eq!(client.answer().await.status, 200);
        used.push(proxy.upstream.request(number).await.connection);
    }
    assert_eq!(used, [1, 1, 2, 2, 2, 3]);
    proxy.stop().await;
}
