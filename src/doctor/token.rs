//! What a service account token says of itself: expiry, audience, Pod. Pure.
//!
//! Nothing is verified, that is the API server's part; and nothing of the token but these claims is ever shown.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::finding::{API_TOKEN, Finding};

/// The kubelet renews a token when 80 % of its life are over; one that has less than this left was not renewed.
const SOON: SignedDuration = SignedDuration::from_mins(2);

/// Pods have no clock of their own.
pub(super) const SET_THE_CLOCK: &str =
    "timedatectl set-ntp true  # on the node, or `systemctl restart chronyd`; Pods share its clock";

/// The claims that matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claims {
    exp: Option<i64>,
    nbf: Option<i64>,
    aud: Audience,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Kubernetes,
}

/// One audience, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
    Other(IgnoredAny),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audience {
    fn shown(&self) -> String {
        match self {
            Self::One(one) => one.clone(),
            Self::Many(many) if !many.is_empty() => many.join(", "),
            Self::Many(_) | Self::Other(_) => "none".to_owned(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Kubernetes {
    pod: Bound,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Bound {
    uid: String,
}

/// Judges the token `text` at `now` in the Pod `pod_uid`.
pub(super) fn judge(text: &str, now: Timestamp, pod_uid: Option<&str>) -> Finding {
    let text = text.trim();
    if text.is_empty() {
        return API_TOKEN.failure(
            "the token file is empty",
            "kubectl delete pod \"$POD_NAME\"  # a new Pod gets a new token\n# and where it is switched off:\nspec:\n  \
             automountServiceAccountToken: true",
        );
    }
    let Some(claims) = claims(text) else {
        return API_TOKEN.ok("the token is not a JWT, so it cannot be seen when it expires");
    };
    let audience = claims.aud.shown();
    let at = |seconds: Option<i64>| seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    if let Some(start) = at(claims.nbf).filter(|start| *start > now) {
        return API_TOKEN
            .failure(format!("the token is not valid before {start}, and here it is {}", seconds(now)), SET_THE_CLOCK);
    }
    if let (Some(bound), Some(own)) = (Some(&claims.kubernetes.pod.uid).filter(|uid| !uid.is_empty()), pod_uid)
        && bound != own
    {
        return API_TOKEN
            .warning(format!("the token was made for the Pod with UID {bound}, and POD_UID is {own}"))
            .remedy("env:\n  - name: POD_UID\n    valueFrom: { fieldRef: { fieldPath: metadata.uid } }");
    }
    match at(claims.exp) {
        None => API_TOKEN.ok(format!("the token never expires; its audience: {audience}")),
        Some(end) if end <= now => API_TOKEN.failure(
            format!("the token expired at {end}; its audience: {audience}"),
            "# the kubelet renews a projected token; one that is copied, or mounted by `subPath`, stays as it was. \
                 Mount it as a whole:\nvolumes:\n  - name: token\n    projected:\n      sources:\n        - \
                 serviceAccountToken: { path: token, expirationSeconds: 3600 }",
        ),
        Some(end) if end.duration_since(now) <= SOON => API_TOKEN
            .warning(format!("the token expires at {end} and was not renewed yet; its audience: {audience}"))
            .remedy("look at it again in two minutes; the kubelet renews tokens after 80 % of their life"),
        Some(end) => API_TOKEN.ok(format!("the token expires at {end}; its audience: {audience}")),
    }
}

/// For whom the token is, when it says so.
pub(super) fn audience(text: &str) -> Option<String> {
    claims(text.trim()).map(|claims| claims.aud.shown())
}

fn claims(text: &str) -> Option<Claims> {
    let mut parts = text.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::finding::Level;

    fn token(claims: &serde_json::Value) -> String {
        format!("e30.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn claims_decide() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let judged = |claims: serde_json::Value, uid| {
            let text = token(&claims);
            let finding = judge(&text, now, uid);
            assert!(!format!("{finding:?}").contains(&text[4..20]), "the token is never shown");
            (finding.level, finding.sentence)
        };
        for (claims, uid, level, part) in [
            (json!({"exp": 1_003_600, "aud": ["https://kubernetes.default.svc"]}), None, Level::Ok, "default.svc"),
            (json!({"exp": 1_003_600, "aud": "one"}), None, Level::Ok, "audience: one"),
            (json!({"exp": 1_003_600}), None, Level::Ok, "audience: none"),
            (json!({"aud": ["a", "b"]}), None, Level::Ok, "never expires; its audience: a, b"),
            (json!({"exp": 1_000_000}), None, Level::Failure, "expired at 1970-01-12T13:46:40Z"),
            (json!({"exp": 1_000_100}), None, Level::Warning, "was not renewed yet"),
            (json!({"exp": 1_003_600, "nbf": 1_000_090}), None, Level::Failure, "not valid before"),
            (json!({"exp": 1_003_600, "kubernetes.io": {"pod": {"uid": "a"}}}), Some("b"), Level::Warning, "UID a"),
            (json!({"exp": 1_003_600, "kubernetes.io": {"pod": {"uid": "a"}}}), Some("a"), Level::Ok, "expires"),
            (json!({"exp": 1_003_600, "aud": 7}), None, Level::Ok, "audience: none"),
        ] {
            let (got, sentence) = judged(claims.clone(), uid);
            assert_eq!(got, level, "{claims}: {sentence}");
            assert!(sentence.contains(part), "{claims}: {sentence}");
        }
    }

    #[test]
    fn what_is_no_jwt_is_not_guessed_at() {
        let now = Timestamp::UNIX_EPOCH;
        for text in ["opaque", "a.b.c", "e30.bm90IGpzb24.x", "a.b"] {
            assert_eq!(judge(text, now, None).level, Level::Ok, "{text}");
        }
        assert_eq!(judge(" \n", now, None).level, Level::Failure);
    }
}
