//! LocalAPI's endpoints over HTTP, answered from the pretend daemon.
//!
//! Keeps the parts of upstream's contract that clients trip over: the Host rule, the version headers, plain 404
//! for what a release does not have, 400 where others would say 405, an empty 200 for a failed reload. Follows
//! upstream's `ipn/localapi/localapi.go` and `ipn/ipnserver/server.go`.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{HOST, HeaderValue, IF_MATCH, ORIGIN, REFERER};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::daemon::{Daemon, Fault};
use super::http::{Hangup, Outcome, Reply, cut_off, full};
use super::inner::{FELL_BEHIND, Watching, line_of};
use super::record::Call;
use super::view::complete;
use crate::digest;
use crate::secret::Secret;
use crate::settings::parse;

/// The only Host tailscaled accepts, beside an empty one.
const LOCAL_HOST: &str = "local-tailscaled.sock";

/// Answers one request.
pub(crate) async fn answer(daemon: Daemon, request: Request<Bytes>) -> Outcome {
    match request.uri().path() {
        "/" => return Ok(text(StatusCode::OK, "<html><body>tailscaled</body></html>\n")),
        "/server-status" => return Ok(with_json(StatusCode::OK, &json!({}))),
        _ => {}
    }
    let mut answer = if is_local(&request) {
        route(&daemon, request).await?
    } else {
        return Ok(text(StatusCode::FORBIDDEN, "invalid localapi request\n"));
    };
    let inner = daemon.lock();
    let headers = answer.headers_mut();
    for (name, value) in [
        ("Tailscale-Version", inner.version().long.clone()),
        ("Tailscale-Cap", inner.version().capability().to_string()),
        ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'".to_owned()),
        ("X-Frame-Options", "DENY".to_owned()),
        ("X-Content-Type-Options", "nosniff".to_owned()),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    drop(inner);
    Ok(answer)
}

/// Upstream's check that a request does not come out of a browser.
fn is_local(request: &Request<Bytes>) -> bool {
    let header = |name| request.headers().get(name).map_or(&[][..], HeaderValue::as_bytes);
    let host = header(HOST);
    (host.is_empty() || host == LOCAL_HOST.as_bytes()) && header(REFERER).is_empty() && header(ORIGIN).is_empty()
}

/// What every endpoint gets.
struct Asked {
    method: Method,
    call: Call,
    if_match: Option<String>,
}

impl Asked {
    fn body(&self) -> &[u8] {
        self.call.body.expose()
    }

    fn object(&self) -> Option<&Map<String, Value>> {
        self.call.json.as_ref().and_then(Value::as_object)
    }
}

async fn route(daemon: &Daemon, request: Request<Bytes>) -> Outcome {
    let (head, body) = request.into_parts();
    let Some(endpoint) = head.uri.path().strip_prefix("/localapi/v0/") else { return Ok(not_found()) };
    let header = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let call = Call {
        method: head.method.to_string(),
        endpoint: endpoint.to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.to_string(), header(value))).collect(),
        json: serde_json::from_slice(&body).ok(),
        body: Secret::new(body),
    };
    match daemon.called(call.clone()) {
        None => {}
        Some(Fault::Hold) => daemon.healed().await,
        Some(fault) => return fail(fault).await,
    }
    let is_whois = endpoint == "whois";
    let asked = Asked { if_match: head.headers.get(IF_MATCH).map(header), method: head.method, call };
    Ok(if is_whois { whois(daemon, &asked).await } else { dispatch(daemon, &asked) })
}

async fn fail(fault: Fault) -> Outcome {
    match fault {
        Fault::Status(code, body) => {
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Ok(text(code, &body))
        }
        Fault::RateLimited(seconds) => {
            let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "too many certificates\n");
            answer.headers_mut().insert("Retry-After", HeaderValue::from(seconds));
            Ok(answer)
        }
        Fault::Hang | Fault::Hold => std::future::pending().await,
        Fault::Close => Err(Hangup::Close),
        Fault::CutOff(start) => Ok(Response::new(cut_off(start))),
        Fault::Huge(bytes) => Ok(Response::new(huge(bytes))),
    }
}

fn dispatch(daemon: &Daemon, asked: &Asked) -> Response<Reply> {
    let minor = daemon.lock().version().minor;
    let post = asked.method == Method::POST;
    match asked.call.endpoint.as_str() {
        "watch-ipn-bus" => watch(daemon, asked),
        "status" => {
            let with_peers = asked.call.query_value("peers") != Some("false");
            with_json(StatusCode::OK, &daemon.lock().status(with_peers))
        }
        "prefs" => prefs(daemon, asked),
        "check-prefs" if post => with_json(StatusCode::OK, &json!({})),
        "start" | "login-interactive" | "logout" | "reset-auth" if !post => {
            text(StatusCode::BAD_REQUEST, "want POST\n")
        }
        "start" => start(daemon, asked),
        "login-interactive" => {
            daemon.login_interactive();
            no_content()
        }
        "logout" | "reset-auth" => {
            daemon.logout();
            no_content()
        }
        "disconnect-control" if minor >= 78 => {
            if post {
                daemon.disconnect_control();
                text(StatusCode::OK, "")
            } else {
                method_not_allowed()
            }
        }
        "reload-config" => {
            if post {
                // An empty 200 is how the real daemon reports a failure.
                daemon
                    .reload_config()
                    .map_or_else(|| text(StatusCode::OK, ""), |answer| with_json(StatusCode::OK, &answer))
            } else {
                method_not_allowed()
            }
        }
        "dns-config" if minor >= 98 => match daemon.lock().view.dns_config() {
            Some(dns) => with_json(StatusCode::OK, &dns),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "no netmap\n"),
        },
        "cert-domains" if minor >= 98 => {
            let dns = daemon.lock().view.dns_config().unwrap_or_default();
            let mut names: Vec<Value> = dns["CertDomains"].as_array().cloned().unwrap_or_default();
            names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
            with_json(StatusCode::OK, &if names.is_empty() { Value::Null } else { names.into() })
        }
        "serve-config" => serve_config(daemon, asked),
        "usermetrics" if minor < 78 => text(StatusCode::FORBIDDEN, "usermetrics debug flag not enabled\n"),
        "usermetrics" => text(StatusCode::OK, METRICS),
        "set-udp-gro-forwarding" | "check-udp-gro-forwarding" | "check-ip-forwarding" => {
            with_json(StatusCode::OK, &json!({"Warning": ""}))
        }
        "check-so-mark-in-use" => with_json(StatusCode::OK, &json!({"UseSOMark": false})),
        "shutdown" => text(StatusCode::FORBIDDEN, "shutdown access denied by policy\n"),
        endpoint if endpoint.starts_with("cert/") => certificate(daemon, asked),
        _ => not_found(),
    }
}

/// What `usermetrics` answers.
const METRICS: &str = "# TYPE tailscaled_health_messages gauge
# HELP tailscaled_health_messages Number of health messages broken down by type.
tailscaled_health_messages{type=\"warning\"} 0
# TYPE tailscaled_inbound_bytes_total counter
# HELP tailscaled_inbound_bytes_total Counts the number of bytes received from other peers
tailscaled_inbound_bytes_total{path=\"direct_ipv4\"} 0
";

fn watch(daemon: &Daemon, asked: &Asked) -> Response<Reply> {
    let mask = match asked.call.query_value("mask") {
        None | Some("") => 0,
        Some(mask) => match mask.parse::<u64>() {
            Ok(mask) => mask,
            Err(_) => return text(StatusCode::BAD_REQUEST, "bad mask\n"),
        },
    };
    if daemon.lock().version().refuses(mask) {
        return text(StatusCode::BAD_REQUEST, "bad mask: unsupported combination of bits\n");
    }
    let Watching { queue, lagged } = daemon.open_watch(mask);
    let version = daemon.lock().version().clone();
    let lines = stream::unfold(Some(queue), move |queue| {
        let (lagged, version) = (lagged.clone(), version.clone());
        async move {
            let mut queue = queue?;
            match queue.recv().await {
                Some(message) => Some((Bytes::from(line_of(&message)), Some(queue))),
                None if lagged.load(Ordering::Acquire) => {
                    let last = complete(&json!({"ErrMessage": FELL_BEHIND}), &version);
                    Some((Bytes::from(line_of(&last)), None))
                }
                None => None,
            }
        }
    });
    // The real daemon flushes the headers at once; a first, empty line would not be JSON.
    json_type(Response::new(streamed(lines)))
}

fn prefs(daemon: &Daemon, asked: &Asked) -> Response<Reply> {
    match asked.method {
        Method::GET | Method::HEAD => with_json(StatusCode::OK, &daemon.prefs()),
        Method::PATCH => {
            let Some(masked) = asked.object() else {
                return text(StatusCode::BAD_REQUEST, "body is not a JSON object\n");
            };
            match daemon.patch_prefs(masked) {
                Ok(prefs) => with_json(StatusCode::OK, &prefs),
                Err(error) => with_json(StatusCode::BAD_REQUEST, &json!({"Error": error})),
            }
        }
        _ => method_not_allowed(),
    }
}

fn start(daemon: &Daemon, asked: &Asked) -> Response<Reply> {
    match asked.object() {
        Some(options) => {
            daemon.start_backend(options);
            no_content()
        }
        None => text(StatusCode::BAD_REQUEST, "body is not a JSON object\n"),
    }
}

fn serve_config(daemon: &Daemon, asked: &Asked) -> Response<Reply> {
    let current = daemon.serve_config();
    let etag = digest::sha256_hex(current.to_string().as_bytes());
    match asked.method {
        Method::GET => {
            let mut answer = with_json(StatusCode::OK, &current);
            if let Ok(etag) = HeaderValue::from_str(&etag) {
                answer.headers_mut().insert("Etag", etag);
            }
            answer
        }
        Method::POST => {
            let config = match serde_json::from_slice::<Value>(asked.body()) {
                Ok(config) if config.is_object() || config.is_null() => config,
                Ok(_) => return server_error("decoding config: json: cannot unmarshal into ipn.ServeConfig"),
                Err(error) => return server_error(&format!("decoding config: {error}")),
            };
            if asked.if_match.as_ref().is_some_and(|wanted| !wanted.is_empty() && *wanted != etag) {
                return text(StatusCode::PRECONDITION_FAILED, "etag mismatch\n");
            }
            match daemon.set_serve_config(config) {
                Ok(()) => text(StatusCode::OK, ""),
                Err(error) => server_error(&format!("updating config: {error}")),
            }
        }
        _ => method_not_allowed(),
    }
}

fn certificate(daemon: &Daemon, asked: &Asked) -> Response<Reply> {
    let name = asked.call.endpoint.trim_start_matches("cert/");
    if let Some(pair) = daemon.lock().certificates.given.get(name) {
        return text(StatusCode::OK, pair);
    }
    let validity = parse::duration(asked.call.query_value("min_validity").unwrap_or("0s"));
    let Ok(min_validity) = validity else {
        return text(StatusCode::BAD_REQUEST, "invalid validity parameter\n");
    };
    let answer = daemon.change(|inner| {
        let allowed = inner.view.dns_config().map(|dns| {
            let names = dns["CertDomains"].as_array().into_iter().flatten().filter_map(Value::as_str);
            names.map(str::to_owned).collect::<Vec<_>>()
        });
        inner.certificates.ask(name, allowed.as_deref(), min_validity.deadline(), jiff::Timestamp::now())
    });
    match (answer, asked.call.query_value("type")) {
        (Err(error), _) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        (Ok(kept), None | Some("" | "cert" | "crt")) => text(StatusCode::OK, &kept.chain),
        (Ok(kept), Some("key")) => text(StatusCode::OK, &kept.key),
        (Ok(kept), Some("pair")) => text(StatusCode::OK, &format!("{}{}", kept.key, kept.chain)),
        (Ok(_), Some(_)) => text(StatusCode::BAD_REQUEST, "invalid type; want \"cert\", \"key\" or \"pair\"\n"),
    }
}

async fn whois(daemon: &Daemon, asked: &Asked) -> Response<Reply> {
    let Some(addr) = asked.call.query_value("addr") else {
        return text(StatusCode::BAD_REQUEST, "missing 'addr' parameter\n");
    };
    let addr = addr.replace("%3A", ":").replace("%3a", ":").replace("%5B", "[").replace("%5D", "]");
    match daemon.look_up(&addr, asked.call.query_value("svc_name")).await {
        Some(answer) => with_json(StatusCode::OK, &answer),
        None => text(StatusCode::NOT_FOUND, "no match for IP:port\n"),
    }
}

// === Answers ===

/// A body of `parts`, each made when the client has read what came before.
fn streamed(parts: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    StreamBody::new(parts.map(|part| Ok(Frame::data(part)))).boxed_unsync()
}

fn text(status: StatusCode, body: &str) -> Response<Reply> {
    let mut answer = Response::new(full(body.to_owned()));
    *answer.status_mut() = status;
    answer.headers_mut().insert("Content-Type", HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn json_type(mut answer: Response<Reply>) -> Response<Reply> {
    answer.headers_mut().insert("Content-Type", HeaderValue::from_static("application/json"));
    answer
}

fn with_json(status: StatusCode, body: &Value) -> Response<Reply> {
    let mut answer = json_type(Response::new(full(format!("{body}\n"))));
    *answer.status_mut() = status;
    answer
}

fn server_error(error: &str) -> Response<Reply> {
    with_json(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": error}))
}

fn no_content() -> Response<Reply> {
    text(StatusCode::NO_CONTENT, "")
}

fn not_found() -> Response<Reply> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn method_not_allowed() -> Response<Reply> {
    text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n")
}

/// A JSON string of `bytes` bytes, made as it is read.
fn huge(bytes: usize) -> Reply {
    const CHUNK: usize = 64 << 10;
    let parts = std::iter::once(Bytes::from_static(b"\""))
        .chain((0..bytes / CHUNK).map(|_| Bytes::from(vec![b'x'; CHUNK])))
        .chain([Bytes::from(vec![b'x'; bytes % CHUNK]), Bytes::from_static(b"\"\n")]);
    streamed(stream::iter(parts))
}
