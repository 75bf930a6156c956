//! A local HTTP listener: bound first, served under limits, drained within a bound.
//!
//! Binding is apart from serving, so that an address in use is an ordinary error of boot and goes through its
//! cleanup. No client can hold a connection for ever, and no number of clients can keep a probe out: over the limit
//! the oldest connection makes way.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::idle::{Activity, Watched};
use super::routes::Routes;

/// How long to leave the listener alone when connections cannot be accepted (usually: no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time for a request's head, from the moment it is waited for.
    pub head: Duration,
    /// Time without a byte in either direction, while no request is being worked on.
    pub idle: Duration,
    /// Connections at the same time.
    pub connections: usize,
    /// Time for requests in flight when the server stops.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            connections: 128,
            drain: Duration::from_secs(2),
        }
    }
}

/// The address could not be listened on. The text is contract.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on addr \"{addr}\"")]
pub struct BindError {
    addr: String,
    source: io::Error,
}

/// A listener that is bound, and not yet served.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    text: String,
    routes: Routes,
    limits: Limits,
}

impl Server {
    /// Listens on `addr`, known to the log as `text`. `[::]` takes both address families; on a host without IPv6 it
    /// means `0.0.0.0`.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(text: &str, addr: SocketAddr, routes: Routes) -> Result<Self, BindError> {
        let bind = |addr| StdListener::bind(addr).and_then(|l| l.set_nonblocking(true).map(|()| l));
        bind(addr)
            .or_else(|error| match addr.ip() {
                IpAddr::V6(ip) if ip.is_unspecified() && error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32) => {
                    bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, addr.port())))
                }
                _ => Err(error),
            })
            .and_then(TcpListener::from_std)
            .map(|listener| Self { listener, text: text.to_owned(), routes, limits: Limits::default() })
            .map_err(|source| BindError { addr: text.to_owned(), source })
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The address that was bound, with the port that the kernel chose if it was asked to.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then finishes the requests in flight, within a bound.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), Infallible> {
        let Self { listener, text, routes, limits } = self;
        for line in routes.announcements(&text) {
            tracing::info!("{line}");
        }
        let routes = Arc::new(routes);
        let mut connections = JoinSet::new();
        let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next() => {
                    note_panic(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    by_age.retain(|connection| !connection.is_finished());
                    if by_age.len() >= limits.connections
                        && let Some(oldest) = by_age.pop_front()
                    {
                        tracing::debug!(addr = %text, "too many connections; closing the oldest");
                        oldest.abort();
                    }
                    let connection = connection(stream, Arc::clone(&routes), limits, stop.clone());
                    by_age.push_back(connections.spawn(connection));
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(addr = %text, %error, "cannot accept connections");
                    }
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
        drop(listener);
        let drained = timeout(limits.drain, async {
            while let Some(ended) = connections.join_next().await {
                note_panic(ended);
            }
        })
        .await;
        if drained.is_err() {
            tracing::debug!(addr = %text, open = connections.len(), "closing connections that did not end in time");
            connections.shutdown().await;
        }
        tracing::info!("HTTP server at {text} closed");
        Ok(())
    }
}

fn note_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a local HTTP request panicked: {error}");
    }
}

async fn connection(stream: TcpStream, routes: Arc<Routes>, limits: Limits, stop: CancellationToken) {
    let activity = Activity::new();
    let watched = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let service = service_fn(|request| {
        let (routes, busy) = (Arc::clone(&routes), activity.busy());
        async move {
            let answer = routes.answer(request).await;
            drop(busy);
            Ok::<_, Infallible>(answer)
        }
    });
    // Title case gives `Pod-Ipv4`, as Go does.
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .title_case_headers(true)
        .serve_connection(watched, service);
    let mut serving = pin!(serving);
    let mut idle = pin!(activity.ended(limits.idle));
    // What a client does wrong is its own affair: errors end the connection and nothing else.
    tokio::select! {
        _ = serving.as_mut() => return,
        () = idle.as_mut() => return,
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = serving => {}
        () = idle => {}
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use bytes::Bytes;
    use hyper::{Request, Response};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;
    use tokio::sync::Notify;
    use tokio::time::Instant;

    use super::super::{HealthHandle, HealthRoutes, MetricsRoutes, Weight, metrics_source};
    use super::*;

    /// A served listener and what stops it.
    struct Running {
        addr: SocketAddr,
        stop: CancellationToken,
        serving: JoinSet<Result<(), Infallible>>,
    }

    fn serve(routes: Routes, limits: Limits) -> Running {
        let server = Server::bind("test", "127.0.0.1:0".parse().unwrap(), routes).unwrap().with_limits(limits);
        let (addr, stop) = (server.local_addr().unwrap(), CancellationToken::new());
        let mut serving = JoinSet::new();
        serving.spawn(server.serve(stop.clone()));
        Running { addr, stop, serving }
    }

    impl Running {
        /// Sends `head` and reads to the end of the connection.
        async fn ask(&self, head: &str) -> String {
            exchange(self.addr, &format!("{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
        }
    }

    async fn exchange(addr: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    fn status(answer: &str) -> &str {
        answer.split(' ').nth(1).unwrap_or("none")
    }

    fn body(answer: &str) -> &str {
        answer.split_once("\r\n\r\n").unwrap().1
    }

    fn health(handle: &HealthHandle, probes: bool) -> Routes {
        let health = HealthRoutes {
            snapshot: handle.subscribe(),
            pod_ipv4: Some("10.0.0.1".parse().unwrap()),
            pod_ipv6: Some("fd00::1".parse().unwrap()),
            probes,
        };
        Routes::new(Some(health), None)
    }

    fn metrics(
        status: u16,
        headers: &'static [(&'static str, &'static str)],
        body: &'static str,
        debug: Option<SocketAddr>,
    ) -> Routes {
        let source = metrics_source(move |_| async move {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            response.body(Bytes::from_static(body.as_bytes()))
        });
        Routes::new(None, Some(MetricsRoutes { source, debug }))
    }

    #[tokio::test]
    async fn healthz_is_the_contracts() {
        let handle = HealthHandle::new();
        let server = serve(health(&handle, true), Limits::default());

        let answer = server.ask("GET /healthz").await;
        assert_eq!((status(&answer), body(&answer)), ("503", "node currently has no tailscale IPs\n"));
        assert!(answer.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{answer}");
        assert!(answer.contains("X-Content-Type-Options: nosniff\r\n"), "{answer}");
        assert!(!answer.to_lowercase().contains("pod-ip"), "{answer}");

        handle.set(|snapshot| snapshot.addresses = true);
        let answer = server.ask("GET /healthz").await;
        assert_eq!((status(&answer), body(&answer)), ("200", "ok"));
        assert!(answer.contains("Pod-Ipv4: 10.0.0.1\r\n") && answer.contains("Pod-Ipv6: fd00::1\r\n"), "{answer}");
        let answer = server.ask("HEAD /healthz").await;
        assert_eq!((status(&answer), body(&answer)), ("200", ""));
        for method in ["POST", "PUT", "OPTIONS"] {
            let answer = server.ask(&format!("{method} /healthz")).await;
            assert_eq!(status(&answer), "405");
            assert!(answer.contains("Allow: GET, HEAD\r\n"), "{answer}");
        }

        handle.report("bus", Weight::Vital, Some("tailscaled is gone".to_owned()));
        let answer = server.ask("GET /healthz").await;
        assert_eq!((status(&answer), body(&answer)), ("503", "bus: tailscaled is gone\n"));
        assert_eq!(status(&server.ask("GET /metrics").await), "404");
        assert_eq!(status(&server.ask("GET /debug/x").await), "404");
        assert_eq!(body(&server.ask("GET /").await), "404 page not found\n");
    }

    #[tokio::test]
    async fn readyz_tells_every_check() {
        let handle = HealthHandle::new();
        let server = serve(health(&handle, true), Limits::default());
        handle.report("secret-writes", Weight::Degrading, None);
        let answer = server.ask("GET /readyz").await;
        let text = "[+]boot-loop ok\n\
                    [-]tailnet-ip failed: node currently has no tailscale IPs\n\
                    [+]secret-writes ok\n\
                    readyz check failed\n";
        assert_eq!((status(&answer), body(&answer)), ("503", text));
        handle.set(|snapshot| snapshot.addresses = true);
        assert_eq!(body(&server.ask("GET /readyz").await), "ok");
        let answer = server.ask("GET /readyz?x=1&verbose").await;
        let text = "[+]boot-loop ok\n[+]tailnet-ip ok\n[+]secret-writes ok\nreadyz check passed\n";
        assert_eq!((status(&answer), body(&answer)), ("200", text));
        // What is only told of fails nothing.
        for (note, line) in [(Some("svc:a waits"), "[+]waiting ok: svc:a waits\nreadyz check passed\n"), (None, text)] {
            handle.report("waiting", Weight::Notable, note.map(str::to_owned));
            let answer = server.ask("GET /readyz?verbose").await;
            assert!(status(&answer) == "200" && body(&answer).ends_with(line), "{}", body(&answer));
            assert_eq!(body(&server.ask("GET /readyz").await), "ok");
        }
        assert_eq!(body(&server.ask("GET /livez").await), "ok");
        assert_eq!(status(&server.ask("POST /readyz").await), "405");
    }

    #[tokio::test]
    async fn the_deprecated_listener_has_healthz_only() {
        let server = serve(health(&HealthHandle::new(), false), Limits::default());
        for (path, expected) in [("/healthz", "503"), ("/livez", "404"), ("/readyz", "404")] {
            assert_eq!(status(&server.ask(&format!("GET {path}")).await), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn metrics_come_back_as_the_daemon_gave_them() {
        let headers = &[("content-type", "text/plain; version=0.0.4"), ("tailscale-cap", "148")];
        let server = serve(metrics(200, headers, "tailscaled_x 1\n", None), Limits::default());
        let answer = server.ask("GET /metrics").await;
        assert_eq!((status(&answer), body(&answer)), ("200", "tailscaled_x 1\n"));
        assert!(answer.contains("Content-Type: text/plain; version=0.0.4\r\n"), "{answer}");
        assert!(answer.contains("Tailscale-Cap: 148\r\n"), "{answer}");
        assert_eq!(status(&server.ask("POST /metrics").await), "405");
        assert_eq!(status(&server.ask("GET /healthz").await), "404");
        let answer = server.ask("GET /debug/pprof").await;
        assert_eq!((status(&answer), body(&answer)), ("404", "debug endpoint not configured\n"));

        let server = serve(metrics(503, &[], "later\n", None), Limits::default());
        let answer = server.ask("GET /metrics").await;
        assert_eq!((status(&answer), body(&answer)), ("503", "later\n"));
    }

    #[tokio::test]
    async fn an_old_daemons_refusal_is_a_bad_gateway() {
        let routes = metrics(403, &[], "usermetrics debug flag not enabled\n", None);
        let answer = serve(routes, Limits::default()).ask("GET /metrics").await;
        assert_eq!(
            (status(&answer), body(&answer)),
            ("502", "tailscaled refuses to give metrics: usermetrics debug flag not enabled\n")
        );
    }

    #[tokio::test]
    async fn a_dead_daemon_is_told_with_its_cause() {
        let source = metrics_source(|_| async { Err::<Response<Bytes>, _>(io::Error::other("connection refused")) });
        let routes = Routes::new(None, Some(MetricsRoutes { source, debug: None }));
        let answer = serve(routes, Limits::default()).ask("GET /metrics").await;
        assert_eq!((status(&answer), body(&answer)), ("500", "failed to proxy request: connection refused\n"));
    }

    #[tokio::test]
    async fn a_browsers_headers_do_not_reach_the_daemon() {
        let source = metrics_source(|request: Request<Bytes>| async move {
            let mut seen = vec![request.method().to_string(), request.uri().path().to_owned()];
            seen.extend(request.headers().keys().map(ToString::to_string));
            seen.push(String::from_utf8_lossy(request.body()).into_owned());
            Ok::<_, io::Error>(Response::new(Bytes::from(seen.join(" "))))
        });
        let server = serve(Routes::new(None, Some(MetricsRoutes { source, debug: None })), Limits::default());
        let request = "GET /metrics HTTP/1.1\r\nHost: evil\r\nReferer: http://e\r\nOrigin: http://e\r\nCookie: c\r\n\
                       Authorization: Bearer t\r\nAccept: text/plain\r\nX-Forwarded-For: 1\r\nContent-Length: 4\r\n\
                       Connection: close\r\n\r\nbody";
        assert_eq!(body(&exchange(server.addr, request).await), "GET /localapi/v0/usermetrics accept body");
    }

    #[tokio::test]
    async fn debug_keeps_method_path_and_query() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let debug = listener.local_addr().unwrap();
        let mut daemon = JoinSet::new();
        daemon.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"HTTP/1.1 418 Teapot\r\nX-Go: 1\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            stream.write_all(b"5\r\nhello\r\n0\r\n\r\n").await.unwrap();
            String::from_utf8(head).unwrap()
        });
        let server = serve(metrics(200, &[], "", Some(debug)), Limits::default());
        let answer = server.ask("DELETE /debug/pprof/goroutine?debug=1&x=%20").await;
        assert_eq!(status(&answer), "418");
        assert!(answer.contains("X-Go: 1\r\n") && answer.contains("hello"), "{answer}");
        let head = daemon.join_next().await.unwrap().unwrap();
        assert!(head.starts_with("DELETE /debug/pprof/goroutine?debug=1&x=%20 HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains(&format!("host: {debug}")), "{head}");

        assert_eq!(status(&server.ask("GET /debug/../localapi").await), "404");

        let deaf = TcpSocket::new_v4().unwrap();
        deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let server = serve(metrics(200, &[], "", Some(deaf.local_addr().unwrap())), Limits::default());
        let answer = server.ask("GET /debug/gone").await;
        assert_eq!(status(&answer), "500");
        assert!(body(&answer).starts_with("failed to proxy request: "), "{answer}");
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_ordinary_error() {
        let taken = StdListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let error = Server::bind(&addr.to_string(), addr, Routes::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("failed to listen on addr \"{addr}\""));
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("in use"));
    }

    #[tokio::test]
    async fn any_address_means_both_families() {
        let server = Server::bind("[::]:0", "[::]:0".parse().unwrap(), Routes::default()).unwrap();
        let (bound, stop) = (server.local_addr().unwrap(), CancellationToken::new());
        let mut serving = JoinSet::new();
        serving.spawn(server.serve(stop));
        let request = "GET / HTTP/1.0\r\n\r\n";
        let v4 = exchange(SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())), request).await;
        assert_eq!(status(&v4), "404");
        if bound.is_ipv6() && StdListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            let v6 = exchange(SocketAddr::from((Ipv6Addr::LOCALHOST, bound.port())), request).await;
            assert_eq!(status(&v6), "404");
        }
    }

    #[tokio::test]
    async fn slow_clients_are_cut_off_and_quick_ones_are_not() {
        let limits = Limits { head: Duration::from_millis(80), idle: Duration::from_secs(30), ..Limits::default() };
        let server = serve(health(&HealthHandle::new(), true), limits);
        let mut slow = TcpStream::connect(server.addr).await.unwrap();
        slow.write_all(b"GET /livez HTTP/1.1\r\nHost: ").await.unwrap();
        let begin = Instant::now();
        assert_eq!(status(&server.ask("GET /livez").await), "200");
        let mut rest = Vec::new();
        let _ = slow.read_to_end(&mut rest).await;
        assert!(begin.elapsed() >= Duration::from_millis(60) && begin.elapsed() < Duration::from_secs(5));
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_cut_off_too() {
        let limits = Limits { idle: Duration::from_millis(80), head: Duration::from_secs(30), ..Limits::default() };
        let server = serve(health(&HealthHandle::new(), true), limits);
        let mut silent = TcpStream::connect(server.addr).await.unwrap();
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(5), silent.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "a silent connection was kept");
    }

    #[tokio::test]
    async fn too_many_connections_cost_the_oldest() {
        let limits = Limits { connections: 2, ..Limits::default() };
        let server = serve(health(&HealthHandle::new(), true), limits);
        let mut oldest = TcpStream::connect(server.addr).await.unwrap();
        // An answer shows that the connection counts.
        oldest.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(oldest.read_u8().await.is_ok());
        let _second = TcpStream::connect(server.addr).await.unwrap();
        assert_eq!(status(&server.ask("GET /livez").await), "200");
        let mut rest = Vec::new();
        let ended = timeout(Duration::from_secs(5), oldest.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the oldest connection was kept");
    }

    /// A server whose `/metrics` waits to be let go, and the two ends of that wait.
    fn held(limits: Limits) -> (Running, Arc<Notify>, Arc<Notify>) {
        let (asked, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (asked_, release_) = (Arc::clone(&asked), Arc::clone(&release));
        let source = metrics_source(move |_| {
            let (asked, release) = (Arc::clone(&asked_), Arc::clone(&release_));
            async move {
                asked.notify_one();
                release.notified().await;
                Ok::<_, io::Error>(Response::new(Bytes::from_static(b"late")))
            }
        });
        (serve(Routes::new(None, Some(MetricsRoutes { source, debug: None })), limits), asked, release)
    }

    #[tokio::test]
    async fn stopping_finishes_what_is_in_flight() {
        let (mut server, asked, release) = held(Limits::default());
        let addr = server.addr;
        let request = exchange(addr, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        let stop = async {
            asked.notified().await;
            server.stop.cancel();
            while TcpStream::connect(addr).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            release.notify_one();
            server.serving.join_next().await
        };
        let (answer, ended) = tokio::join!(request, stop);
        assert_eq!(body(&answer), "late");
        assert!(ended.unwrap().unwrap().is_ok());
    }

    #[tokio::test]
    async fn stopping_does_not_wait_for_ever() {
        let (mut server, asked, _release) = held(Limits { drain: Duration::from_millis(50), ..Limits::default() });
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        asked.notified().await;
        let begin = Instant::now();
        server.stop.cancel();
        assert!(server.serving.join_next().await.unwrap().unwrap().is_ok());
        assert!(begin.elapsed() >= Duration::from_millis(50) && begin.elapsed() < Duration::from_millis(1800));
    }
}
