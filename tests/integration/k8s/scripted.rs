//! An API server that misbehaves on command: TLS on loopback, one scripted answer per request.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tailpod::k8s::Cluster;
use tailpod::sandbox::http::{Hangup, Limits, Listener, Outcome, Server, Writer, cut_off, full, stream};
use tailpod::settings::KubeAccess;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What to do with one request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Status, extra header, body.
    Text(u16, Option<(&'static str, &'static str)>, String),
    /// Close or reset without an answer.
    Hangup(Hangup),
    /// The beginning of a success.
    CutOff(&'static str),
    /// Nothing, for ever.
    Hang,
    /// A success whose body says nothing for this long, and ends.
    Silence(Duration),
    /// A success whose body the test writes.
    Stream(tokio::sync::oneshot::Sender<Writer>),
}

impl Answer {
    pub(crate) fn status(code: u16) -> Self {
        Self::Text(code, None, json!({"kind": "Status", "code": code, "message": format!("status {code}")}).to_string())
    }

    pub(crate) fn with(code: u16, header: &'static str, value: &'static str) -> Self {
        Self::Text(code, Some((header, value)), String::new())
    }

    pub(crate) fn json(body: &Value) -> Self {
        Self::Text(200, None, body.to_string())
    }

    pub(crate) fn text(body: &str) -> Self {
        Self::Text(200, None, body.to_owned())
    }

    /// An access review's answer.
    pub(crate) fn allowed(allowed: bool) -> Self {
        Self::Text(201, None, json!({"status": {"allowed": allowed}}).to_string())
    }

    /// A Secret called `s` with these values.
    pub(crate) fn secret(version: &str, data: &[(&str, &str)]) -> Self {
        Self::json(&secret(version, data))
    }

    /// A success whose body comes through the writer.
    pub(crate) fn streamed() -> (Self, tokio::sync::oneshot::Receiver<Writer>) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        (Self::Stream(sender), receiver)
    }
}

pub(crate) fn secret(version: &str, data: &[(&str, &str)]) -> Value {
    use base64::Engine as _;
    let encode = |value: &str| base64::engine::general_purpose::STANDARD.encode(value);
    let data: serde_json::Map<_, _> =
        data.iter().map(|(key, value)| ((*key).to_owned(), encode(value).into())).collect();
    json!({"kind": "Secret", "metadata": {"name": "s", "resourceVersion": version}, "data": data})
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    /// `GET /path?query`
    pub(crate) line: String,
    headers: hyper::HeaderMap,
    pub(crate) body: Value,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What is answered when nothing else was scripted, by the request's line.
type Usual = Box<dyn Fn(&str) -> Answer + Send>;

struct Script {
    answers: VecDeque<Answer>,
    usual: Usual,
    asked: Vec<Asked>,
    silent: JoinSet<()>,
}

/// The server, and the service account of a Pod that may talk to it.
pub(crate) struct ApiServer {
    script: Arc<Mutex<Script>>,
    server: Option<Server>,
    pub(crate) addr: std::net::SocketAddr,
    pub(crate) ca: String,
    dir: tempfile::TempDir,
}

impl ApiServer {
    /// A server whose certificate is its own root (`CA:TRUE`), as Go's `httptest` servers have them.
    pub(crate) async fn start(answers: impl IntoIterator<Item = Answer>) -> Self {
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .expect("a TLS configuration");

        let script = Arc::new(Mutex::new(Script {
            answers: answers.into_iter().collect(),
            usual: Box::new(|_| Answer::status(500)),
            asked: Vec::new(),
            silent: JoinSet::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let addr = listener.local_addr().expect("an address");
        let server = Server::start(Listener::tls(listener, Arc::new(config)), Limits::default(), {
            let script = Arc::clone(&script);
            move |request| answer(Arc::clone(&script), request)
        });

        let dir = tempfile::tempdir().expect("a directory");
        for (file, content) in [("namespace", "ns\n"), ("token", "token-1\n"), ("ca.crt", &certificate.pem())] {
            std::fs::write(dir.path().join(file), content).expect("a service account");
        }
        Self { script, server: Some(server), addr, ca: certificate.pem(), dir }
    }

    /// The service account's directory.
    pub(crate) fn account(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn access(&self) -> KubeAccess {
        KubeAccess::InCluster { service_account: PathBuf::from(self.dir.path()), url: format!("https://{}", self.addr) }
    }

    pub(crate) async fn cluster(&self) -> Cluster {
        Cluster::connect(&self.access(), "test").await.expect("a client")
    }

    pub(crate) fn then(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().expect("the script").answers.extend(answers);
    }

    /// From now on, what is not scripted is answered by `usual`.
    pub(crate) fn usually(&self, usual: impl Fn(&str) -> Answer + Send + 'static) {
        self.script.lock().expect("the script").usual = Box::new(usual);
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.script.lock().expect("the script").asked.clone()
    }

    /// Method and path of every request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    /// Closes the port.
    pub(crate) fn gone(&mut self) {
        self.server = None;
    }
}

async fn answer(script: Arc<Mutex<Script>>, request: Request<Bytes>) -> Outcome {
    let answering = Arc::clone(&script);
    let answer = {
        let (head, body) = request.into_parts();
        let mut script = script.lock().expect("the script");
        script.asked.push(Asked {
            at: Instant::now(),
            line: format!("{} {}", head.method, head.uri),
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or_default(),
        });
        let line = script.asked.last().map(|asked| asked.line.clone()).unwrap_or_default();
        script.answers.pop_front().unwrap_or_else(|| (script.usual)(&line))
    };
    match answer {
        Answer::Text(code, header, body) => {
            let mut response = Response::new(full(body));
            *response.status_mut() = StatusCode::from_u16(code).expect("a status");
            if let Some((name, value)) = header {
                response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
            }
            Ok(response)
        }
        Answer::Hangup(hangup) => Err(hangup),
        Answer::CutOff(body) => Ok(Response::new(cut_off(body))),
        Answer::Hang => std::future::pending().await,
        Answer::Silence(length) => {
            let (writer, body) = stream();
            let hold = async move {
                tokio::time::sleep(length).await;
                drop(writer);
            };
            answering.lock().expect("the script").silent.spawn(hold);
            Ok(Response::new(body))
        }
        Answer::Stream(sender) => {
            let (writer, body) = stream();
            sender.send(writer).expect("the test takes the writer");
            Ok(Response::new(body))
        }
    }
}
