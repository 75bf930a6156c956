//! The value of `Authorization`, wiped from memory with its last copy. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hyper::header::HeaderValue;
use zeroize::Zeroizing;

/// What the API server is shown in `Authorization`.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Authorization(HeaderValue);

/// A token or password that no header can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it holds characters that no token has")]
pub(super) struct NotAToken;

impl Authorization {
    /// `Bearer <token>`. The token is used as it is: only printable ASCII.
    pub(super) fn bearer(token: &str) -> Result<Self, NotAToken> {
        Self::new("Bearer ", token.as_bytes())
    }

    /// `Basic …` (RFC 7617).
    pub(super) fn basic(user: &str, password: &str) -> Result<Self, NotAToken> {
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let encoded = Zeroizing::new(BASE64.encode(pair.as_bytes()));
        Self::new("Basic ", encoded.as_bytes())
    }

    fn new(scheme: &str, secret: &[u8]) -> Result<Self, NotAToken> {
        if secret.is_empty() || !secret.iter().all(u8::is_ascii_graphic) {
            return Err(NotAToken);
        }
        let mut value = Zeroizing::new(Vec::with_capacity(scheme.len() + secret.len()));
        value.extend_from_slice(scheme.as_bytes());
        value.extend_from_slice(secret);
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(value)).map_err(|_| NotAToken)?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    /// For a request. Marked as sensitive.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.0
    }
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_header_can_carry_becomes_one() {
        assert_eq!(Authorization::bearer("abc").unwrap().header(), "Bearer abc");
        assert_eq!(Authorization::basic("u", "p").unwrap().header(), "Basic dTpw");
        for bad in ["", "a\nb", "a\r\nImpersonate-User: root", "tök", "a b", "a\0", "a\u{7f}"] {
            assert_eq!(Authorization::bearer(bad), Err(NotAToken), "{bad:?}");
        }
        let token = Authorization::bearer("abc").unwrap();
        assert!(token.header().is_sensitive() && !format!("{token:?}{:?}", token.header()).contains("abc"));
    }
}
