//! The requests with bad intentions of tests/fixtures/proxy/hostile.txt, byte for byte through the front door.
//!
//! All of it goes through a real tailnet to the real API server, too: tests/real/cases/proxy_hostile.sh.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tailpod::proxy::headers::says_identity;
use tailpod::proxy::route::{Kind, kind_of};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::upstream::{Seen, Step, Upstream};
use super::world::{ANN, CAPABILITY, TOKEN, World, proxy_header, user};
use crate::support::SOON;

static LIST: LazyLock<String> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/proxy/hostile.txt");
    std::fs::read_to_string(path).unwrap()
});

/// One line of the list.
struct Case {
    name: &'static str,
    scene: &'static str,
    answers: Vec<&'static str>,
    /// Method and target of each request that the API server gets.
    sent: Vec<&'static str>,
    bytes: Vec<u8>,
}

/// Who calls in a scene, and what whois says about it. `bare` and `noauth` are the usual peer.
fn callers() -> Vec<(&'static str, &'static str, Option<Value>)> {
    const LEGACY: &str = "https://tailscale.com/cap/kubernetes";
    let view = json!({"groups": ["view"]});
    let ann = |rules: Value| user("ann@example.com", &json!({ CAPABILITY: rules }));
    let recorder = json!(["100.64.0.5:80"]);
    vec![
        ("user", ANN, Some(ann(json!([{"impersonate": view}])))),
        ("bare", ANN, None),
        ("noauth", ANN, None),
        ("asking", "100.64.0.10:51000", Some(ann(json!([{"impersonate": {"groups": ["view"], "allow": ["edit"]}}])))),
        ("enforced", "100.64.0.11:51000", Some(ann(json!([{"impersonate": view, "enforceRecorder": true}])))),
        (
            "recorded",
            "100.64.0.12:51000",
            Some(ann(json!([{"impersonate": view, "enforceRecorder": true, "recorderAddrs": recorder}]))),
        ),
        ("open", "100.64.0.13:51000", Some(ann(json!([{"impersonate": view, "recorderAddrs": recorder}])))),
        ("nobody", "100.64.0.99:51000", None),
        ("unreadable", "100.64.0.14:51000", Some(ann(json!([{"impersonate": view}, "x"])))),
        ("unreadable-legacy", "100.64.0.15:51000", Some(user("ann@example.com", &json!({ LEGACY: [[]] })))),
        ("no-login", "100.64.0.16:51000", Some(user("", &json!({})))),
        ("evil-login", "100.64.0.17:51000", Some(user("a\r\nImpersonate-Group: system:masters", &json!({})))),
        ("service-account", "100.64.0.18:51000", Some(user("system:serviceaccount:kube-system:x", &json!({})))),
    ]
}

#[tokio::test]
async fn each_is_refused_or_provably_harmless() {
    let cases = cases();
    let world = start(&[]).await;
    let callers = callers();
    let mut problems = Vec::new();
    for case in cases.iter().filter(|case| case.scene != "noauth") {
        let (_, addr, _) = callers.iter().find(|(scene, ..)| *scene == case.scene).unwrap();
        problems.extend(case.run(&world, addr).await.err().map(|problem| format!("{}: {problem}", case.name)));
    }
    assert!(problems.is_empty(), "{} of {}:\n{}", problems.len(), cases.len(), problems.join("\n"));
    nothing_came_late(&world, "user", cases.iter().filter(|case| case.scene != "noauth")).await;
    world.stops().await;
}

#[tokio::test]
async fn without_authentication_nothing_of_ours_is_given_away() {
    let cases = cases();
    let world = start(&["--mode", "noauth"]).await;
    let mut problems = Vec::new();
    for case in cases.iter().filter(|case| case.scene == "noauth") {
        problems.extend(case.run(&world, ANN).await.err().map(|problem| format!("{}: {problem}", case.name)));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    nothing_came_late(&world, "noauth", cases.iter().filter(|case| case.scene == "noauth")).await;
    world.stops().await;
}

#[test]
fn the_list_is_long_and_names_nothing_twice() {
    let cases = cases();
    assert!(cases.len() >= 200, "{}", cases.len());
    let names: std::collections::BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len());
    for area in ["framing", "chunks", "head", "header", "path", "upgrade", "proxy", "noauth"] {
        assert!(names.iter().any(|name| name.starts_with(&format!("{area}/"))), "{area}");
    }
}

async fn start(flags: &[&str]) -> World {
    let world = World::start(flags).await;
    for (_, addr, answer) in callers() {
        if let Some(answer) = answer {
            world.daemon().set_whois(addr, answer);
        }
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok".to_vec();
    world.upstream.always([Step::Body, Step::Say(answer), Step::Drain]);
    world
}

/// What nobody waited for would show up now: a request of its own is the last one there is.
async fn nothing_came_late(world: &World, scene: &'static str, cases: impl Iterator<Item = &Case>) {
    let expected: usize = cases.filter(|case| !case.is_cut()).map(|case| case.sent.len()).sum();
    let last = Case {
        name: "last",
        scene,
        answers: vec!["200"],
        sent: vec!["GET /last"],
        bytes: b"GET /last HTTP/1.1\r\nHost: proxy.ts.net\r\n\r\n".to_vec(),
    };
    assert_eq!(last.run(world, ANN).await, Ok(()));
    let seen = world.upstream.seen();
    let whole = seen.iter().filter(|seen| is_whole(seen)).count();
    assert_eq!(whole, expected + 1, "requests that nobody expected");
}

impl Case {
    fn is_cut(&self) -> bool {
        self.answers == ["cut"]
    }

    async fn run(&self, world: &World, addr: &str) -> Result<(), String> {
        let before = world.upstream.seen().len();
        let mut stream = TcpStream::connect(world.addr).await.unwrap();
        let header = if self.scene == "bare" { Vec::new() } else { proxy_header(addr) };
        let sending = [header, self.bytes.clone()].concat();
        let (mut reader, mut writer) = stream.split();
        // A proxy that has had enough answers before everything is written.
        let sent = async {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut writer, &sending).await;
        };
        let read = timeout(SOON, async { tokio::join!(self.read(&mut reader), sent).0 });
        read.await.map_err(|_| "no end of the answer".to_owned())??;
        drop(stream);
        self.check_upstream(&world.upstream, before).await
    }

    /// Reads the answers, each in full.
    async fn read(&self, reader: &mut (impl AsyncReadExt + Unpin)) -> Result<(), String> {
        let mut got = Vec::new();
        for wanted in &self.answers {
            match *wanted {
                "close" => {
                    to_end(reader, &mut got).await;
                    if !got.is_empty() {
                        return Err(format!("more bytes instead of the end: {:?}", String::from_utf8_lossy(&got)));
                    }
                }
                "cut" => {
                    to_end(reader, &mut got).await;
                    if is_told(&got) || !got.is_empty() && !got.starts_with(b"HTTP/1.1 400 ") {
                        return Err(format!("answered {:?}", String::from_utf8_lossy(&got)));
                    }
                }
                code => {
                    let (status, body) = answer(reader, &mut got).await?;
                    if status != code {
                        return Err(format!("answered {status}, want {code}: {body}"));
                    }
                    let is_ours = serde_json::from_str(&body).is_ok_and(|body: Value| {
                        body["kind"] == "Status"
                            && body["code"].as_u64() == code.parse().ok()
                            && body["message"].as_str().is_some_and(|message| !message.is_empty())
                    });
                    if code != "200" && !is_ours {
                        return Err(format!("no Status: {body}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// The requests that the API server got, and what they say.
    async fn check_upstream(&self, upstream: &Upstream, before: usize) -> Result<(), String> {
        let mine = |seen: &[Seen]| seen[before..].to_vec();
        if self.is_cut() {
            let seen =
                upstream.wait("end of what was cut", |seen| seen[before..].iter().all(|seen| seen.is_gone)).await;
            return match mine(&seen).iter().find(|seen| is_whole(seen)) {
                Some(whole) => Err(format!("{:?} arrived in full", whole.line())),
                None => mine(&seen).iter().try_for_each(|seen| self.check(seen)),
            };
        }
        // Answered means that it has arrived; what comes behind it would be on the same connection, so wait for its end.
        let wanted = before + self.sent.len();
        let is_done = |seen: &[Seen]| seen.len() >= wanted && seen[before..].iter().all(|seen| seen.is_gone);
        let seen = mine(&upstream.wait(self.name, is_done).await);
        let lines: Vec<_> = seen.iter().map(|seen| seen.line().trim_end_matches(" HTTP/1.1")).collect();
        if lines != self.sent {
            return Err(format!("the API server got {lines:?}, want {:?}", self.sent));
        }
        for seen in &seen {
            self.check(seen)?;
            if !is_whole(seen) {
                return Err(format!("{:?} has not the body that it announced: {:?}", seen.line(), seen.body));
            }
        }
        Ok(())
    }

    /// What holds for everything that ever reaches the API server.
    fn check(&self, seen: &Seen) -> Result<(), String> {
        let fail = |what: &str| Err(format!("{what}: {}", seen.head));
        if seen.all("host").len() != 1 {
            return fail("not one Host");
        }
        if !seen.all("connection").is_empty() || !seen.all("upgrade").is_empty() {
            let is_known = ["SPDY/3.1", "websocket"].map(|token| vec![token]).contains(&seen.all("upgrade"));
            if seen.all("connection") != ["Upgrade"] || !is_known {
                return fail("undecided connection options");
            }
        }
        let names: Vec<String> = fields(&seen.head).map(str::to_lowercase).collect();
        let forwarding = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];
        let hop = ["keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "trailer"];
        if names.iter().any(|name| forwarding.contains(&name.as_str()) || hop.contains(&name.as_str())) {
            return fail("headers of another connection");
        }
        if self.scene == "noauth" {
            return if seen.head.contains(TOKEN) { fail("our credentials") } else { Ok(()) };
        }
        if seen.all("impersonate-user") != ["ann@example.com"] || seen.all("impersonate-group") != ["view"] {
            return fail("not the caller");
        }
        if seen.all("authorization") != [format!("Bearer {TOKEN}")] {
            return fail("not our credentials");
        }
        let known = ["impersonate-user", "impersonate-group", "authorization"];
        if names.iter().any(|name| says_identity(name) && !known.contains(&name.as_str())) {
            return fail("another identity");
        }
        if seen.head.to_lowercase().contains("base64url.bearer.") {
            return fail("a token among the subprotocols");
        }
        let body = String::from_utf8_lossy(&seen.body).to_lowercase();
        if body.contains("impersonate") || body.contains("authorization") || body.contains("transfer-encoding") {
            return fail("identity or framing in a trailer");
        }
        let target = seen.line().split(' ').nth(1).unwrap_or_default();
        let kind = kind_of(target.as_bytes()).map_err(|error| format!("{error}: {target}"))?;
        let must_not_pass = matches!(kind, Kind::Session(_) | Kind::NodeCommand);
        if must_not_pass && ["enforced", "recorded"].contains(&self.scene) {
            return fail("a session without a recorder");
        }
        Ok(())
    }
}

/// The names of the header fields.
fn fields(head: &str) -> impl Iterator<Item = &str> {
    head.lines().skip(1).filter_map(|line| line.split_once(": ").map(|(name, _)| name))
}

/// Whether a request has its whole body, framed in one way, and nothing behind it.
fn is_whole(seen: &Seen) -> bool {
    match (seen.all("transfer-encoding").as_slice(), seen.all("content-length").as_slice()) {
        ([], []) => seen.body.is_empty(),
        ([], [length]) => length.parse() == Ok(seen.body.len()),
        (["chunked"], []) => is_chunked(&seen.body),
        _ => false,
    }
}

/// Whether these bytes are one chunked body and nothing else.
fn is_chunked(mut body: &[u8]) -> bool {
    let line = |body: &[u8]| body.windows(2).position(|pair| pair == b"\r\n");
    while let Some(end) = line(body) {
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        match size {
            Some(0) => {
                let rest = &body[end + 2..];
                return rest.windows(4).position(|four| four == b"\r\n\r\n") == rest.len().checked_sub(4)
                    || rest == b"\r\n";
            }
            Some(size) if body.len() >= end + 4 + size && body[end + 2 + size..].starts_with(b"\r\n") => {
                body = &body[end + 4 + size..];
            }
            _ => return false,
        }
    }
    false
}

async fn to_end(reader: &mut (impl AsyncReadExt + Unpin), got: &mut Vec<u8>) {
    // A reset is an end, too.
    let _ = reader.read_to_end(got).await;
}

/// Whether a client is told the credentials with which the proxy comes.
fn is_told(got: &[u8]) -> bool {
    got.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes())
}

/// One answer with a length: its code and its body.
async fn answer(reader: &mut (impl AsyncReadExt + Unpin), got: &mut Vec<u8>) -> Result<(String, String), String> {
    loop {
        if let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&got[..end]).into_owned();
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())
                .ok_or_else(|| format!("an answer without a length: {head}"))?;
            if got.len() >= end + 4 + length {
                if is_told(got) {
                    return Err(format!("our credentials: {:?}", String::from_utf8_lossy(got)));
                }
                let body = String::from_utf8_lossy(&got[end + 4..end + 4 + length]).into_owned();
                got.drain(..end + 4 + length);
                return Ok((head.split(' ').nth(1).unwrap_or_default().to_owned(), body));
            }
        }
        match reader.read_buf(got).await {
            Ok(1..) => {}
            end => return Err(format!("{end:?} within an answer: {:?}", String::from_utf8_lossy(got))),
        }
    }
}

fn cases() -> Vec<Case> {
    let lines = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut parts = line.splitn(5, " | ");
            let mut next = || parts.next().unwrap_or_else(|| panic!("five parts: {line}"));
            let (name, scene, answers, sent, bytes) = (next(), next(), next(), next(), next());
            assert!(callers().iter().any(|(known, ..)| *known == scene), "no scene {scene}: {line}");
            let sent = if sent == "-" { Vec::new() } else { sent.split("; ").collect() };
            Case { name, scene, answers: answers.split(' ').collect(), sent, bytes: unescape(&expand(bytes)) }
        })
        .collect()
}

/// `{H}`, `{N*text}` and `{n:text}`.
fn expand(text: &str) -> String {
    let Some(open) = text.find('{') else { return text.to_owned() };
    let mut depth = 0_usize;
    let close = text[open..].char_indices().find(|(_, char)| {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    let close = open + close.unwrap_or_else(|| panic!("no end of a brace: {text}")).0;
    let inner = &text[open + 1..close];
    let expanded = if inner == "H" {
        "Host: proxy.ts.net\\r\\n".to_owned()
    } else if let Some(text) = inner.strip_prefix("n:") {
        unescape(&expand(text)).len().to_string()
    } else if let Some((count, text)) = inner.split_once('*') {
        let text = expand(text);
        (0..count.parse().unwrap()).map(|number: usize| text.replace('#', &number.to_string())).collect()
    } else {
        panic!("what is {{{inner}}}?")
    };
    [&text[..open], &expanded, &expand(&text[close + 1..])].concat()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        let (escaped, after) = rest.split_first().unwrap();
        rest = after;
        bytes.push(match escaped {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).unwrap();
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).unwrap()
            }
            other => panic!("what is \\{}?", char::from(*other)),
        });
    }
    bytes
}
