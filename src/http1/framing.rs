//! Where a body ends. Pure.

use hyper::header::{self, HeaderMap};
use hyper::{Method, StatusCode};

use super::head::BadHead;
use super::{ResponseHead, Version};

/// How the end of a body is told (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes; more than none.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By the end of the connection; responses only.
    UntilClose,
}

/// The framing of a request.
///
/// # Errors
/// Two ways to frame it, or one that is not `chunked`, or one that HTTP/1.0 does not have.
pub fn request_framing(version: Version, headers: &HeaderMap) -> Result<Framing, BadHead> {
    Ok(declared(version, headers)?.unwrap_or(Framing::None))
}

/// The framing of the response to a request of this method.
///
/// # Errors
/// As [`request_framing`].
pub fn response_framing(method: &Method, head: &ResponseHead) -> Result<Framing, BadHead> {
    // Even where no body follows, a head that could be read in two ways is one.
    let declared = declared(head.version, &head.headers)?;
    let bodiless = method == Method::HEAD
        || head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(if bodiless { Framing::None } else { declared.unwrap_or(Framing::UntilClose) })
}

fn declared(version: Version, headers: &HeaderMap) -> Result<Option<Framing>, BadHead> {
    let (mut coding, mut length) = (None, None);
    for (name, value) in headers {
        let (said, may_repeat) = if *name == header::TRANSFER_ENCODING {
            (&mut coding, false)
        } else if *name == header::CONTENT_LENGTH {
            (&mut length, true)
        } else {
            continue;
        };
        let before = said.replace(value);
        if before.is_some_and(|before| !may_repeat || before != value) {
            return Err(BadHead::Framing);
        }
    }
    match (coding, length) {
        (None, None) => Ok(None),
        (None, Some(length)) => match parse_length(length.as_bytes()).ok_or(BadHead::Framing)? {
            0 => Ok(Some(Framing::None)),
            length => Ok(Some(Framing::Length(length))),
        },
        (Some(coding), None) if version == Version::Http11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Ok(Some(Framing::Chunked))
        }
        _ => Err(BadHead::Framing),
    }
}

/// Digits only: no sign, no list, nothing beyond what every implementation can count to.
fn parse_length(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length =
        text.iter().try_fold(0_u64, |length, digit| length.checked_mul(10)?.checked_add(u64::from(digit - b'0')));
    length.filter(|&length| i64::try_from(length).is_ok())
}
