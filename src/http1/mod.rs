//! HTTP/1.1 as bytes: strict heads, body framing, chunks, and writing all of them afresh. Pure.
//!
//! Made for a proxy that stands in front of something valuable: whatever two parsers could read differently is an
//! error here (api-proxy.md 10.1). No socket and no clock: bytes in, values out, and any split of the bytes gives
//! the same values.

mod chunked;
mod framing;
mod head;
mod write;

use bytes::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};

pub use self::chunked::{ChunkError, Chunks, Extensions, Step};
pub use self::framing::{Framing, request_framing, response_framing};
pub use self::head::{BadHead, Scanner};
pub use self::write::{CHUNK_HEAD, chunk_head, write_request, write_response, write_trailers};

/// Largest head, in bytes.
pub const LARGEST_HEAD: usize = 1 << 20;
/// Longest method, in bytes; the longest that is registered anywhere has 17. It is kept for as long as an answer takes.
pub const LONGEST_METHOD: usize = 32;
/// Most header fields of one head.
pub const MOST_FIELDS: usize = 1_000;
/// Most header fields of one name.
pub const MOST_FIELDS_OF_A_NAME: usize = 100;

/// The version of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// The head of a request, with everything in it checked.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Path and query, byte for byte as they came; begins with `/`.
    pub target: Bytes,
    /// The version.
    pub version: Version,
    /// The header fields, in order within a name.
    pub headers: HeaderMap,
    /// How the body is framed.
    pub framing: Framing,
}

/// The head of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The version.
    pub version: Version,
    /// The status.
    pub status: StatusCode,
    /// The reason phrase as it came.
    pub reason: Bytes,
    /// The header fields, in order within a name.
    pub headers: HeaderMap,
}
