//! Heads, chunk heads and trailers as bytes, always written afresh. Pure.

use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, StatusCode};

/// Appends the head of a request. The fields are those of `headers` and nothing else.
pub fn write_request(out: &mut Vec<u8>, method: &Method, target: &[u8], headers: &HeaderMap) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // First, as RFC 9110 7.2 recommends.
    for host in headers.get_all(header::HOST) {
        write_field(out, &header::HOST, host.as_bytes());
    }
    for (name, value) in headers.iter().filter(|(name, _)| *name != header::HOST) {
        write_field(out, name, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the head of a response.
pub fn write_response(out: &mut Vec<u8>, status: StatusCode, reason: &[u8], headers: &HeaderMap) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
    write_fields(out, headers);
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a chunked body.
pub fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    write_fields(out, trailers);
    out.extend_from_slice(b"\r\n");
}

/// The head of a chunk of `length` bytes, right-aligned: the bytes, and where they begin.
pub fn chunk_head(length: usize) -> ([u8; CHUNK_HEAD], usize) {
    let mut bytes = *b"00000000\r\n";
    let mut at = CHUNK_HEAD - 2;
    let mut left = length & 0xffff_ffff;
    loop {
        at -= 1;
        bytes[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            return (bytes, at);
        }
    }
}

/// Most bytes of a chunk's head.
pub const CHUNK_HEAD: usize = 10;

fn write_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        write_field(out, name, value.as_bytes());
    }
}

fn write_field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
