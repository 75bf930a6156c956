//! Trouble on demand: what the API server does to the next matching requests instead of behaving.

use std::collections::VecDeque;
use std::time::Duration;

use hyper::Method;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is not carried out and answered with this.
    Answer {
        /// The HTTP status.
        code: u16,
        /// Headers, `Retry-After` for example; `Content-Type` is JSON unless it is among them.
        headers: Vec<(String, String)>,
        /// Any bytes.
        body: Vec<u8>,
    },
    /// The request is not carried out and never answered.
    Hang,
    /// The request is not carried out; the connection is closed.
    Close,
    /// The request is not carried out; the connection is reset.
    Reset,
    /// The request is carried out; the connection is reset instead of answered.
    LoseAnswer,
    /// The request is carried out; the answer breaks off in the middle.
    CutOff,
    /// The request is carried out; the answer is complete as HTTP, its JSON is not.
    Truncate,
    /// The request is carried out; the answer has no body, as upstream's own fake answers a PATCH.
    EmptyBody,
    /// The request is carried out and answered, later.
    Delay(Duration),
}

impl Fault {
    /// A `Status` document with `code`, `reason` and `message`.
    pub fn status(code: u16, reason: &str, message: &str) -> Self {
        let body = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": reason, "code": code,
        });
        Self::Answer { code, headers: Vec::new(), body: body.to_string().into_bytes() }
    }

    /// 429 with `Retry-After`, in whole seconds.
    pub fn too_many_requests(retry_after: u64) -> Self {
        match Self::status(429, "TooManyRequests", "too many requests, please try again later") {
            Self::Answer { code, body, .. } => {
                Self::Answer { code, headers: vec![("Retry-After".to_owned(), retry_after.to_string())], body }
            }
            other => other,
        }
    }

    /// A page as a proxy in between would send it.
    pub fn html(code: u16) -> Self {
        let headers = vec![("Content-Type".to_owned(), "text/html".to_owned())];
        Self::Answer { code, headers, body: b"<html><body>Bad Gateway</body></html>\n".to_vec() }
    }
}

/// Which requests a fault is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    method: Option<Method>,
    path: Option<String>,
}

impl Scope {
    /// All requests.
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests with `method`.
    pub fn method(method: Method) -> Self {
        Self { method: Some(method), path: None }
    }

    /// Of those, the ones whose path contains `part`.
    #[must_use]
    pub fn path(mut self, part: impl Into<String>) -> Self {
        self.path = Some(part.into());
        self
    }

    fn covers(&self, method: &Method, path: &str) -> bool {
        self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.path.as_ref().is_none_or(|part| path.contains(part.as_str()))
    }
}

/// How often a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// To that many requests.
    Only(u32),
    /// Until [`super::ApiServer::heal`].
    Always,
}

/// The faults to come, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults(VecDeque<(Scope, Fault, Times)>);

impl Faults {
    pub(super) fn push(&mut self, scope: Scope, fault: Fault, times: Times) {
        self.0.push_back((scope, fault, times));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault for a request, used up as far as it was limited.
    pub(super) fn take(&mut self, method: &Method, path: &str) -> Option<Fault> {
        self.0.retain(|(_, _, times)| *times != Times::Only(0));
        let (_, fault, times) = self.0.iter_mut().find(|(scope, ..)| scope.covers(method, path))?;
        if let Times::Only(left) = times {
            *left -= 1;
        }
        Some(fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_used_in_order_by_the_requests_they_are_for() {
        let mut faults = Faults::default();
        faults.push(Scope::method(Method::PATCH).path("secrets/x"), Fault::Reset, Times::Only(2));
        faults.push(Scope::any(), Fault::Hang, Times::Only(0));
        faults.push(Scope::any().path("events"), Fault::Close, Times::Always);
        for (method, path, expected) in [
            (Method::GET, "/secrets/x", None),
            (Method::PATCH, "/secrets/x", Some(Fault::Reset)),
            (Method::GET, "/events/e", Some(Fault::Close)),
            (Method::PATCH, "/secrets/x", Some(Fault::Reset)),
            (Method::PATCH, "/secrets/x", None),
            (Method::PATCH, "/events/e", Some(Fault::Close)),
        ] {
            assert_eq!(faults.take(&method, path), expected, "{method} {path}");
        }
        faults.clear();
        assert_eq!(faults.take(&Method::GET, "/events"), None);
    }
}
