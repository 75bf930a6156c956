//! tailscaled's own metrics as a source for a local `/metrics`.

use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request, Response};

use crate::health::{MetricsSource, metrics_source};
use crate::localapi::LocalApi;
use crate::shutdown::TaskError;

/// The daemon's client metrics are some tens of KiB.
const LARGEST: usize = 16 << 20;

/// Text of one's own, made for each scrape.
pub type OwnMetrics = std::sync::Arc<dyn Fn() -> String + Send + Sync>;

/// What `usermetrics` answers.
pub fn of_daemon(api: LocalApi) -> MetricsSource {
    metrics_source(move |request: Request<Bytes>| {
        let api = api.clone();
        async move { usermetrics(&api, request.method().clone(), request.headers()).await }
    })
}

/// What `usermetrics` answers, and `own` after it. While tailscaled does not answer, `own` alone.
pub fn of_daemon_and(api: LocalApi, own: OwnMetrics) -> MetricsSource {
    metrics_source(move |request: Request<Bytes>| {
        let (api, own) = (api.clone(), own.clone());
        async move {
            // Plain text only: what is added to it could not follow a compressed body.
            let mut headers = request.headers().clone();
            headers.remove(header::ACCEPT_ENCODING);
            let mut answer = match usermetrics(&api, request.method().clone(), &headers).await {
                Ok(answer) if answer.status().is_success() => answer,
                Ok(answer) => {
                    tracing::debug!(status = %answer.status(), "tailscaled gives no metrics");
                    Response::new(Bytes::new())
                }
                Err(error) => {
                    tracing::debug!(%error, "tailscaled gives no metrics");
                    Response::new(Bytes::new())
                }
            };
            if request.method() != Method::HEAD {
                let mut body = BytesMut::from(&answer.body()[..]);
                if !body.is_empty() && !body.ends_with(b"\n") {
                    body.extend_from_slice(b"\n");
                }
                body.extend_from_slice(own().as_bytes());
                *answer.body_mut() = body.freeze();
            }
            answer
                .headers_mut()
                .entry(header::CONTENT_TYPE)
                .or_insert(header::HeaderValue::from_static("text/plain; version=0.0.4"));
            Ok::<_, TaskError>(answer)
        }
    })
}

async fn usermetrics(api: &LocalApi, method: Method, headers: &HeaderMap) -> Result<Response<Bytes>, TaskError> {
    let mut passed = api.pass("usermetrics", method, headers).await?;
    let mut body = BytesMut::new();
    while let Some(chunk) = passed.chunk().await? {
        if body.len() + chunk.len() > LARGEST {
            return Err(TaskError::from("tailscaled's metrics are too large"));
        }
        body.extend_from_slice(&chunk);
    }
    let mut answer = Response::new(body.freeze());
    *answer.status_mut() = passed.status;
    *answer.headers_mut() = passed.headers;
    Ok(answer)
}
