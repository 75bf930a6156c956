//! What was asked of the API server, for tests and demonstrations to look at.
//!
//! Bounded: the oldest requests are forgotten first. Bodies hold Secrets, so formatting a request shows everything
//! but its body.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::route::Query;

/// Most requests remembered.
const REQUESTS: usize = 10_000;

/// Most bytes of bodies remembered.
const BYTES: usize = 16 << 20;

/// One request, and what was answered.
#[derive(Clone, PartialEq)]
pub struct Recorded {
    /// Counts up from 1.
    pub number: u64,
    /// `GET`, `PATCH`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// The query, parsed.
    pub query: Query,
    /// The `Content-Type`, without parameters.
    pub content_type: Option<String>,
    /// The `User-Agent`.
    pub agent: Option<String>,
    /// Who asked: the user name, also when impersonated; `None` when the token is not valid.
    pub user: Option<String>,
    /// The body as JSON; as a text when it is not JSON; `Null` when there is none.
    pub body: Value,
    /// The answer's status; `None` when there was none.
    pub status: Option<u16>,
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        for (n, (key, value)) in self.query.iter().enumerate() {
            write!(f, "{}{key}={value}", if n == 0 { '?' } else { '&' })?;
        }
        match self.status {
            Some(status) => write!(f, " -> {status}"),
            None => f.write_str(" -> no answer"),
        }
    }
}

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The requests so far.
#[derive(Debug, Default)]
pub(super) struct Journal {
    requests: VecDeque<(Arc<Recorded>, usize)>,
    bytes: usize,
    count: u64,
}

impl Journal {
    /// Remembers `request`, whose body has `bytes`, under the next number.
    pub(super) fn push(&mut self, mut request: Recorded, bytes: usize) {
        self.count += 1;
        request.number = self.count;
        self.bytes += bytes;
        self.requests.push_back((Arc::new(request), bytes));
        while self.requests.len() > REQUESTS || self.bytes > BYTES {
            let Some((_, bytes)) = self.requests.pop_front() else { break };
            self.bytes -= bytes;
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Recorded>> {
        self.requests.iter().map(|(request, _)| Arc::clone(request)).collect()
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(body: &str) -> Recorded {
        Recorded {
            number: 0,
            method: "PATCH".to_owned(),
            path: "/api".to_owned(),
            query: Query::from([("a".to_owned(), "b".to_owned())]),
            content_type: None,
            agent: None,
            user: None,
            body: body.into(),
            status: Some(200),
        }
    }

    #[test]
    fn formatting_hides_the_body() {
        let shown = format!("{0} {0:?}", request("hunter2"));
        assert_eq!(shown, "PATCH /api?a=b -> 200 PATCH /api?a=b -> 200");
    }

    #[test]
    fn the_oldest_are_forgotten_and_numbers_go_on() {
        let mut journal = Journal::default();
        for _ in 0..REQUESTS + 5 {
            journal.push(request(""), 1);
        }
        let all = journal.all();
        assert_eq!((all.len(), all[0].number), (REQUESTS, 6));
        journal.push(request(""), BYTES);
        assert_eq!(journal.all().len(), 1);
        journal.clear();
        journal.push(request(""), 1);
        assert_eq!(journal.all()[0].number, u64::try_from(REQUESTS).unwrap() + 7);
    }
}
