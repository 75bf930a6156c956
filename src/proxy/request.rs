//! One request: from its head to the end of its answer.

use std::sync::Arc;

use hyper::StatusCode;

use super::access_log::{Entry, Outcome};
use super::answer::{Client, answer_head, switched};
use super::connection::{Connection, Next};
use super::ended::{Ended, gave_up, upstream_failed};
use super::exchange::{Exchange, Failure};
use super::forward::{self, Prepared};
use super::headers::is_trailer;
use super::hop::Upgrade;
use super::lane::{Lane, Sink, Source};
use super::policy::Decision;
use super::pool::{Link, Repeatable};
use super::reach::{Reached, caller, reach, reach_again};
use super::refusal::{Reason, Refusal};
use super::reply::{self, After};
use super::serve::Shared;
use super::{Mode, ServerTiming};
use crate::http1::{Extensions, Framing, RequestHead};

/// Largest body that is kept until it is known that it need not be sent again.
const LARGEST_COPY: u64 = 64 << 10;

/// How a request was answered by the API server.
enum Answered {
    /// Completely.
    Whole(After),
    /// With another protocol than HTTP on this connection.
    Switched(Box<Link>),
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

/// Lets a request pass, unless it must not.
fn admit(shared: &Shared, decision: &Decision, entry: &Entry) -> Result<(), Refusal> {
    for warning in decision.verdict.as_ref().map_err(Clone::clone)? {
        shared.metrics.unrecorded(*warning);
        entry.warned(*warning);
    }
    Ok(())
}

/// Whether an answer is about the proxy's own credentials: a 401, unless it may come from what a Pod or Service answers.
fn is_ours(shared: &Shared, prepared: &Prepared<'_>, status: StatusCode) -> bool {
    status == StatusCode::UNAUTHORIZED
        && shared.options.mode == Mode::Auth
        && prepared.route.info.subresource != "proxy"
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
