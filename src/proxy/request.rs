//! One request: from its head to the end of its answer.

use std::sync::Arc;

use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{Method, StatusCode};
use tokio::time::Instant;

use super::access::Peer;
use super::access_log::{Entry, Outcome};
use super::connection::{Connection, Next};
use super::exchange::{Exchange, Failure};
use super::forward::{self, Prepared};
use super::headers::{Upgrade, drop_hop, is_trailer, set_hop, take_hop};
use super::identity::Unknown;
use super::lane::{Lane, Sink, Source};
use super::policy::Decision;
use super::pool::{Link, Repeatable};
use super::refusal::{Reason, Refusal};
use super::reply::{self, After};
use super::serve::Shared;
use super::status::Form;
use super::{Mode, ServerTiming};
use crate::http1::{Extensions, Framing, RequestHead, ResponseHead, Version, response_framing, write_response};
use crate::k8s::upstream::{Credentials, DialError};

/// Largest body that is kept until it is known that it need not be sent again.
const LARGEST_COPY: u64 = 64 << 10;

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// How a request was answered by the API server.
enum Answered {
    /// Completely.
    Whole(After),
    /// With another protocol than HTTP on this connection.
    Switched(Box<Link>),
}

/// What the client gets to know about a request that ended early.
enum Ended {
    /// An answer of ours.
    Refused(Refusal),
    /// Nothing more: it is gone, or something is missing that it must notice.
    Aborted,
}

/// What it takes to send a request.
struct Reached {
    credentials: Credentials,
    link: Link,
}

/// The client's side of a request, as long as no answer has begun.
struct Client {
    method: Method,
    /// Of an answer of ours. Not what it follows from: that would keep the whole head for as long as the answer takes.
    form: Form,
    version: Version,
    /// What follows the head may be no request: a body, or the first bytes of another protocol.
    has_more: bool,
    keeps_alive: bool,
}

/// Serves one request.
pub(super) async fn serve(connection: &mut Connection, head: RequestHead) -> Next {
    let shared = Arc::clone(&connection.shared);
    let client = Client::of(&head);
    let mut entry = Entry::begin(connection.caller.addr(), &head);
    let ended = match forward(connection, &shared, head, &client, &mut entry).await {
        Ok(Answered::Switched(link)) => {
            entry.switched(&shared.metrics);
            return Next::Tunnel(Box::new((*link, entry)));
        }
        Ok(Answered::Whole(after)) => {
            entry.end(&shared.metrics, Outcome::Answered);
            return if after == After::KeepAlive { Next::KeepAlive } else { Next::Close };
        }
        Err(ended) => ended,
    };
    let Ended::Refused(refusal) = ended else {
        entry.end(&shared.metrics, Outcome::Aborted);
        return Next::Abort;
    };
    let may_keep = refusal.reason != Reason::TooMany && !shared.stop.is_cancelled();
    let after = if client.keeps_alive && !client.has_more && may_keep { After::KeepAlive } else { After::Close };
    let bytes = reply::refusal(&refusal, &client.method, client.form, after);
    entry.end(&shared.metrics, Outcome::Refused(&refusal));
    match (connection.write(&bytes).await, after) {
        (false, _) => Next::Abort,
        (true, After::KeepAlive) => Next::KeepAlive,
        (true, After::Close) => Next::Close,
    }
}

async fn forward(
    connection: &mut Connection,
    shared: &Shared,
    mut head: RequestHead,
    client: &Client,
    entry: &mut Entry,
) -> Result<Answered, Ended> {
    let options = &shared.options;
    let base = shared.pool.upstream().base();
    let first = caller(connection, shared, entry).await?;
    entry.identified(&first);
    let asked = forward::read(&mut head, base)?;
    entry.judged(&asked.route);
    let by = |peer| forward::judge(&asked, &head.headers, peer, options.mode, options.unrecorded_streams);
    let mut judgement = by(&first)?;
    shared.metrics.attempted(&judgement.decision);
    if let Err(refusal) = &judgement.decision.verdict {
        return Err(refusal.clone().into());
    }

    // Sent a second time at most once for each reason: a dead connection, credentials that went stale.
    let repeatable = asked.repeatable(&head);
    let mut may_redial = true;
    let mut may_renew = true;
    let mut resend: Option<Vec<u8>> = None;
    let mut reached = reach(connection, shared, repeatable, may_redial, entry).await?;
    // Credentials and connections may have taken their time. Whoever it is by now, and may do, is what counts.
    let peer = caller(connection, shared, entry).await?;
    if peer != first {
        entry.identified(&peer);
        judgement = by(&peer)?;
    }
    admit(shared, &judgement.decision, entry)?;
    let mut prepared = forward::prepare(head, asked, judgement, base)?;
    entry.prepared(prepared.as_whom.as_deref());
    shared.metrics.proxied();
    loop {
        let Reached { credentials, mut link } = reached;
        let bytes = prepared.head(base, credentials.authorization())?;
        let lane = prepared.lane(bytes, resend.as_deref(), shared.options.mode);
        let used = link.used;
        let mut exchange = Exchange::new(
            &mut connection.client,
            &mut connection.inbox,
            &mut link,
            lane,
            client.version,
            options.limits.stuck,
        );
        let answer = match exchange.head().await {
            Ok(answer) => answer,
            Err(Failure::NoAnswer(_))
                if used && may_redial && repeatable == Repeatable::Yes && exchange.is_unheard() =>
            {
                may_redial = false;
                reached = reach_again(connection, shared, repeatable, may_redial, &peer, entry).await?;
                continue;
            }
            Err(failure) => return Err(gave_up(failure, exchange.takes_answer(), shared, entry)),
        };
        entry.answered(answer.status);
        if is_ours(shared, &prepared, answer.status) {
            let copy = exchange.take_copy().or_else(|| resend.take());
            let is_whole =
                prepared.framing == Framing::None && prepared.hop.upgrade.token().is_none() || copy.is_some();
            let may_repeat = is_whole && exchange.is_unheard();
            let renewal = shared.pool.upstream().rejected(&credentials);
            let is_renewed = connection.unless_gone(renewal).await.ok_or(Ended::Aborted)?;
            if is_renewed && std::mem::take(&mut may_renew) && may_repeat {
                resend = copy;
                reached = reach_again(connection, shared, repeatable, may_redial, &peer, entry).await?;
                continue;
            }
            let message = "the API server does not accept the credentials of the proxy at the moment";
            return Err(Refusal::new(Reason::Stale, message).into());
        }
        if answer.status == StatusCode::UNAUTHORIZED && options.mode == Mode::Auth {
            // The client's affair or ours: nobody can tell, and whoever uses nothing else must not be stuck with it.
            shared.pool.upstream().suspected(&credentials);
        }
        // Nothing is sent again from here on, and what follows may last for days: it shall hold none of what was sent.
        let asked = prepared.into_upgrade();
        drop((resend, exchange.take_copy()));
        connection.head_blocks.clear();
        entry.shorten();
        if answer.status == StatusCode::SWITCHING_PROTOCOLS {
            let head = switched(answer, &asked).map_err(|refusal| upstream_failed(refusal, shared))?;
            exchange.answer(head, Source::Done, Sink::Plain, |_, _| {}).await.map_err(|_| Ended::Aborted)?;
            return Ok(Answered::Switched(Box::new(link)));
        }
        let is_kept = answer.keeps_alive();
        // A client need not wait for the 101: what it sent of the other protocol must never be read as requests.
        let may_keep = asked == Upgrade::No;
        let timing = (shared.options.server_timing == ServerTiming::Show).then(|| entry.timing());
        let (head, framing, sink, after) =
            answer_head(answer, client, may_keep && exchange.is_sent() && !shared.stop.is_cancelled(), timing)
                .map_err(|refusal| upstream_failed(refusal, shared))?;
        let source = Source::new(framing, Extensions::Ignore);
        let done = exchange.answer(head, source, sink, |up, down| entry.moved(up, down)).await;
        let is_sent = exchange.is_sent();
        let takes_answer = exchange.takes_answer();
        if let Err(failure) = done {
            if takes_answer {
                return Err(gave_up(failure, takes_answer, shared, entry));
            }
            let is_stuck = matches!(failure, Failure::ClientStuck(_));
            if is_stuck || sink == Sink::Plain && matches!(framing, Framing::Chunked | Framing::UntilClose) {
                // Where the end of the connection is the end of the body, only a reset says that it is not.
                connection.client.forget();
            }
            if !matches!(failure, Failure::ClientGone | Failure::BadBody(_)) {
                entry.failed(&failure);
                if !is_stuck {
                    shared.metrics.upstream_failed();
                }
            }
            return Err(Ended::Aborted);
        }
        if is_kept && is_sent && framing != Framing::UntilClose {
            shared.pool.give_back(link);
        }
        return Ok(Answered::Whole(after));
    }
}

/// Who asks, as of now.
async fn caller(connection: &mut Connection, shared: &Shared, entry: &mut Entry) -> Result<Arc<Peer>, Refusal> {
    connection.caller.peer(&shared.identities).await.map_err(|error| {
        entry.failed(&error);
        match error {
            Unknown::TooMany { .. } => Refusal::new(Reason::TooMany, error.to_string()),
            _ => Refusal::identity(),
        }
    })
}

/// Lets a request pass, unless it must not.
fn admit(shared: &Shared, decision: &Decision, entry: &Entry) -> Result<(), Refusal> {
    for warning in decision.verdict.as_ref().map_err(Clone::clone)? {
        shared.metrics.unrecorded(*warning);
        entry.warned(*warning);
    }
    Ok(())
}

/// What a request needs to be sent: credentials, and a connection, one that waits or else a new one.
async fn reach(
    connection: &mut Connection,
    shared: &Shared,
    repeatable: Repeatable,
    may_wait: bool,
    entry: &mut Entry,
) -> Result<Reached, Ended> {
    let credentials = connection.unless_gone(shared.pool.upstream().credentials()).await.ok_or(Ended::Aborted)?;
    let credentials = credentials.map_err(|error| {
        entry.failed(&error);
        no_credentials()
    })?;
    if may_wait && let Some(link) = shared.pool.take(repeatable) {
        return Ok(Reached { credentials, link });
    }
    let dialled = connection.unless_gone(shared.pool.dial()).await.ok_or(Ended::Aborted)?;
    let link = dialled.map_err(|error| {
        entry.failed(&error);
        if matches!(error, DialError::Credentials(_)) {
            return no_credentials();
        }
        upstream_failed(Refusal::new(Reason::Upstream, format!("cannot reach the API server: {error}")), shared)
    })?;
    Ok(Reached { credentials, link })
}

/// The same for a request that is already written for `peer`, who must still be the one who asks.
async fn reach_again(
    connection: &mut Connection,
    shared: &Shared,
    repeatable: Repeatable,
    may_wait: bool,
    peer: &Peer,
    entry: &mut Entry,
) -> Result<Reached, Ended> {
    let reached = reach(connection, shared, repeatable, may_wait, entry).await?;
    if *caller(connection, shared, entry).await? == *peer {
        return Ok(reached);
    }
    let message = "what you are granted changed while the API server was being reached; ask again";
    Err(Refusal::new(Reason::Stale, message).into())
}

/// For the peer, whom it does not concern how the proxy gets its credentials.
fn no_credentials() -> Refusal {
    Refusal::new(Reason::Credentials, "cannot obtain credentials for the Kubernetes API")
}

/// Whether an answer is about the proxy's own credentials: a 401, unless it may come from what a Pod or Service answers.
fn is_ours(shared: &Shared, prepared: &Prepared<'_>, status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED
        && shared.options.mode == Mode::Auth
        && prepared.route.info.subresource != "proxy"
}

/// Without `takes_answer` the client is in the middle of another one.
fn gave_up(failure: Failure, takes_answer: bool, shared: &Shared, entry: &mut Entry) -> Ended {
    entry.failed(&failure);
    let refusal = match failure {
        Failure::ClientGone | Failure::ClientStuck(_) => return Ended::Aborted,
        Failure::BadBody(error) => Refusal::new(Reason::Request, error.to_string()),
        Failure::NoAnswer(_) | Failure::BadAnswer(_) | Failure::Truncated(_) => {
            upstream_failed(Refusal::new(Reason::Upstream, failure.to_string()), shared)
        }
    };
    if takes_answer { refusal.into() } else { Ended::Aborted }
}

fn upstream_failed(refusal: Refusal, shared: &Shared) -> Refusal {
    shared.metrics.upstream_failed();
    refusal
}

/// The head of a 101 for the client, if it switches to what the client asked for.
fn switched(mut answer: ResponseHead, asked: &Upgrade) -> Result<Vec<u8>, Refusal> {
    let bad = |why: &str| Refusal::new(Reason::Upstream, format!("the API server switched protocols, but {why}"));
    let hop = take_hop(&mut answer.headers).map_err(|_| bad("to more than one"))?;
    if asked.token().is_none() || hop.upgrade != *asked {
        return Err(bad("not to the one that was asked for"));
    }
    set_hop(&mut answer.headers, &hop);
    answer.headers.remove(CONTENT_LENGTH);
    let mut bytes = Vec::with_capacity(256);
    write_response(&mut bytes, answer.status, &answer.reason, &answer.headers);
    Ok(bytes)
}

/// The head for the client, how the body arrives and leaves, and what follows it.
fn answer_head(
    mut answer: ResponseHead,
    client: &Client,
    may_keep: bool,
    timing: Option<HeaderValue>,
) -> Result<(Vec<u8>, Framing, Sink, After), Refusal> {
    let bad = |why: String| Refusal::new(Reason::Upstream, format!("the API server's answer is malformed: {why}"));
    let framing = response_framing(&client.method, &answer).map_err(|error| bad(error.to_string()))?;
    drop_hop(&mut answer.headers);
    let headers = &mut answer.headers;
    let declared = headers.remove(CONTENT_LENGTH);
    let is_http11 = client.version == Version::Http11;
    // A body of the request that nobody read stands before the next request.
    let mut after = if client.keeps_alive && may_keep { After::KeepAlive } else { After::Close };
    let sink = match framing {
        Framing::Length(length) => {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            Sink::Plain
        }
        Framing::None => {
            if let Some(length) = declared.filter(|_| answer.status != StatusCode::NO_CONTENT) {
                headers.insert(CONTENT_LENGTH, length);
            }
            Sink::Plain
        }
        Framing::Chunked | Framing::UntilClose if is_http11 => {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            Sink::Chunked
        }
        Framing::Chunked | Framing::UntilClose => {
            after = After::Close;
            Sink::Plain
        }
    };
    if after == After::Close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(timing) = timing {
        headers.append(SERVER_TIMING, timing);
    }
    let mut bytes = Vec::with_capacity(512);
    write_response(&mut bytes, answer.status, &answer.reason, headers);
    Ok((bytes, framing, sink, after))
}

impl Prepared<'_> {
    /// What sends the request: its head, and the body as it comes, or once more as it came.
    fn lane(&self, mut head: Vec<u8>, resend: Option<&[u8]>, mode: Mode) -> Lane {
        let sink = if self.framing == Framing::Chunked { Sink::Chunked } else { Sink::Plain };
        if let Some(body) = resend {
            head.extend_from_slice(body);
            return Lane::new(head, Source::Done, sink, is_trailer);
        }
        let mut lane = Lane::new(head, Source::new(self.framing, Extensions::Refuse), sink, is_trailer);
        if mode == Mode::Auth && matches!(self.framing, Framing::Length(length) if length <= LARGEST_COPY) {
            lane.keep_copy();
        }
        lane
    }

    /// What it would switch to; the rest is gone.
    fn into_upgrade(self) -> Upgrade {
        self.hop.upgrade
    }
}

impl Client {
    fn of(head: &RequestHead) -> Self {
        Self {
            method: head.method.clone(),
            form: Form::asked_for(&head.headers),
            version: head.version,
            has_more: head.framing != Framing::None || head.headers.contains_key(UPGRADE),
            keeps_alive: head.version == Version::Http11 && head.keeps_alive(),
        }
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The value of `Server-Timing`: who asks, and the API server's part.
pub(super) fn server_timing(begun: Instant, identified: Option<Instant>, answered: Instant) -> HeaderValue {
    let identified = identified.unwrap_or(begun);
    let text = format!(
        "identity;dur={:.3}, upstream;dur={:.3}",
        identified.duration_since(begun).as_secs_f64() * 1e3,
        answered.duration_since(identified).as_secs_f64() * 1e3
    );
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
