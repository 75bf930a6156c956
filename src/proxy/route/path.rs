//! The path of a request target: decoded once, cut into the tokens that kube-apiserver sees, written again. Pure.
//!
//! kube-apiserver is a Go program: it decodes the whole path, then trims and splits it at `/`. An escaped slash is
//! therefore a slash to it, and a path can be written in many ways that mean the same. api-proxy.md 10.3.

use std::borrow::Cow;

/// Why a request target cannot be classified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It begins with something other than `/`: the asterisk form, or an authority.
    #[error("the request target does not begin with `/`")]
    NotAPath,
    /// A `%` that two hexadecimal digits do not follow.
    #[error("the path has an invalid percent escape at offset {0}")]
    Escape(usize),
    /// A control byte, raw or escaped.
    #[error("the path has a control byte at offset {0}")]
    Control(usize),
    /// A backslash, raw or escaped: some readers take it for a slash.
    #[error("the path has a backslash at offset {0}")]
    Backslash(usize),
    /// More slashes than anybody needs: each costs memory before anything is decided.
    #[error("the path has more than {SEGMENTS} segments")]
    Segments,
    /// A raw byte that no path may have: readers disagree where the path ends.
    #[error("the path has the raw byte {byte:#04x} at offset {at}, which must be escaped")]
    Raw {
        /// The byte.
        byte: u8,
        /// Where.
        at: usize,
    },
}

/// Most slashes in a path. What a Service behind the API server is asked for may be long, but not so.
const SEGMENTS: usize = 1000;

/// The path of a target, and what stands after its first `?`.
pub(super) fn split_target(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match target.iter().position(|byte| *byte == b'?') {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// The path decoded once. Borrowed when it has no escape.
pub(super) fn decode(path: &[u8]) -> Result<Cow<'_, [u8]>, BadPath> {
    if path.first() != Some(&b'/') {
        return Err(BadPath::NotAPath);
    }
    let mut decoded: Option<Vec<u8>> = None;
    let mut at = 0;
    while let Some(&raw) = path.get(at) {
        let (byte, width) = match raw {
            b'%' => (escape(&path[at..]).ok_or(BadPath::Escape(at))?, 3),
            // Go's parser takes these as they are; others end the path or the request line there.
            b'#' | b' ' => return Err(BadPath::Raw { byte: raw, at }),
            _ => (raw, 1),
        };
        match byte {
            0..=0x1f | 0x7f => return Err(BadPath::Control(at)),
            b'\\' => return Err(BadPath::Backslash(at)),
            _ => {}
        }
        if width > 1 && decoded.is_none() {
            decoded = Some(path[..at].to_vec());
        }
        if let Some(decoded) = &mut decoded {
            decoded.push(byte);
        }
        at += width;
    }
    let decoded = decoded.map_or(Cow::Borrowed(path), Cow::Owned);
    if decoded.split(|byte| *byte == b'/').nth(SEGMENTS + 1).is_some() {
        return Err(BadPath::Segments);
    }
    Ok(decoded)
}

/// The byte that an escape at the start of `text` stands for.
pub(super) fn escape(text: &[u8]) -> Option<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// The tokens of a decoded path: slashes at both ends trimmed, the rest split at each slash. Empty for `/`.
pub(super) fn tokens(decoded: &[u8]) -> Vec<&[u8]> {
    let start = decoded.iter().position(|byte| *byte != b'/').unwrap_or(decoded.len());
    let end = decoded.iter().rposition(|byte| *byte != b'/').map_or(start, |at| at + 1);
    if start == end {
        return Vec::new();
    }
    decoded[start..end].split(|byte| *byte == b'/').collect()
}

/// Whether a decoded path has a token that goes nowhere or up, for whoever cleans it.
pub(super) fn has_dots(decoded: &[u8]) -> bool {
    decoded.split(|byte| *byte == b'/').any(|token| matches!(token, b"." | b".."))
}

/// What may follow the part of a path that decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// Other tokens, as long as they stay below it, but no slash behind the last one that decides.
    Closed,
    /// The same, and one trailing slash.
    Slash,
    /// Anything that stays below it, however it is written: it belongs to somebody else.
    Open,
}

/// Whether the first `count` tokens are written in the one way that every reader understands alike.
///
/// No segment is empty, none is `.` or `..`, no slash is escaped, and no byte is escaped that never has to be (RFC 3986
/// 2.3, 6.2.2.2). Bytes that some clients escape and others do not, such as `:`, may be written either way: they decide
/// nothing.
pub(super) fn is_canonical(path: &[u8], tokens: &[&[u8]], count: usize, rest: Rest) -> bool {
    let Some(path) = path.strip_prefix(b"/") else { return false };
    if tokens.is_empty() {
        return path.is_empty();
    }
    let mut segments = path.split(|byte| *byte == b'/');
    for token in &tokens[..count.min(tokens.len())] {
        let segment = segments.next().unwrap_or_default();
        if !is_plain(segment) || !is_written_as(segment, token) {
            return false;
        }
    }
    match rest {
        // The first tokens were written plainly, so those behind them begin where these segments do.
        _ if rest == Rest::Open || count < tokens.len() => {
            !climbs(segments.map(unescaped_dots)) && !climbs(tokens.iter().skip(count).copied())
        }
        Rest::Open | Rest::Closed => segments.next().is_none(),
        Rest::Slash => segments.next().is_none_or(<[u8]>::is_empty) && segments.next().is_none(),
    }
}

/// Whether whoever cleans this path leaves the place where it begins.
///
/// As Go's `path.Clean` does it: empty segments go first. To those who keep them, `..` leads less far up.
fn climbs<'a>(segments: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut depth = 0_usize;
    for segment in segments {
        match segment {
            b"" | b"." => {}
            b".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return true,
            },
            _ => depth += 1,
        }
    }
    false
}

/// A raw segment as those read it who split at slashes before they decode; only its dots matter.
fn unescaped_dots(segment: &[u8]) -> &[u8] {
    let dots: [&[u8]; 2] = [b".", b".."];
    dots.into_iter().find(|dots| is_written_as(segment, dots)).unwrap_or(segment)
}

/// Whether a segment is not empty, no dot segment and escapes nothing that is unreserved.
fn is_plain(segment: &[u8]) -> bool {
    let is_dots = matches!(segment, b"" | b"." | b"..");
    let mut escapes = segment.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    !is_dots && escapes.all(|(at, _)| escape(&segment[at..]).is_some_and(|byte| !is_unreserved(byte)))
}

/// Whether a raw segment decodes to a token.
fn is_written_as(segment: &[u8], token: &[u8]) -> bool {
    let mut token = token.iter();
    let mut at = 0;
    while let Some(&raw) = segment.get(at) {
        let (byte, width) = if raw == b'%' { (escape(&segment[at..]), 3) } else { (Some(raw), 1) };
        if byte.is_none() || byte.as_ref() != token.next() {
            return false;
        }
        at += width;
    }
    token.next().is_none()
}

/// The path that says these tokens and nothing else.
pub(super) fn encode(tokens: &[&[u8]]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut path = Vec::with_capacity(tokens.iter().map(|token| token.len() + 1).sum::<usize>().max(1));
    if tokens.is_empty() {
        path.push(b'/');
    }
    for token in tokens {
        path.push(b'/');
        for byte in *token {
            // What a path segment may hold unescaped (RFC 3986 3.3).
            if is_unreserved(*byte) || b"!$&'()*+,;=:@".contains(byte) {
                path.push(*byte);
            } else {
                path.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]);
            }
        }
    }
    path
}

/// RFC 3986 2.3
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(path: &str) -> bool {
        let decoded = decode(path.as_bytes()).unwrap();
        let tokens = tokens(&decoded);
        is_canonical(path.as_bytes(), &tokens, tokens.len(), Rest::Closed)
    }

    #[test]
    fn decoded_once() {
        for (path, expected) in [
            ("/", Ok("/")),
            ("/a/b", Ok("/a/b")),
            ("/%65xec", Ok("/exec")),
            ("/a%2Fb%2fc", Ok("/a/b/c")),
            ("/%2565xec", Ok("/%65xec")),
            ("/a+b", Ok("/a+b")),
            ("/%C3%BC/ü", Ok("/ü/ü")),
            ("", Err(BadPath::NotAPath)),
            ("*", Err(BadPath::NotAPath)),
            ("a/b", Err(BadPath::NotAPath)),
            ("https://h/a", Err(BadPath::NotAPath)),
            ("/a%", Err(BadPath::Escape(2))),
            ("/a%2", Err(BadPath::Escape(2))),
            ("/a%2g", Err(BadPath::Escape(2))),
            ("/a%+1", Err(BadPath::Escape(2))),
            ("/%00", Err(BadPath::Control(1))),
            ("/a%0d%0aHost:", Err(BadPath::Control(2))),
            ("/a\tb", Err(BadPath::Control(2))),
            ("/%7f", Err(BadPath::Control(1))),
            ("/a\\b", Err(BadPath::Backslash(2))),
            ("/a%5Cb", Err(BadPath::Backslash(2))),
            ("/a#b", Err(BadPath::Raw { byte: b'#', at: 2 })),
            ("/a b", Err(BadPath::Raw { byte: b' ', at: 2 })),
        ] {
            let got = decode(path.as_bytes());
            assert_eq!(got.as_deref().map(|bytes| std::str::from_utf8(bytes).unwrap()), expected.as_ref().copied());
        }
    }

    #[test]
    fn tokens_are_those_of_a_trimmed_path() {
        let of = |path: &str| tokens(path.as_bytes()).iter().map(|t| String::from_utf8_lossy(t).into()).collect();
        for (path, expected) in [
            ("/", vec![]),
            ("///", vec![]),
            ("/a", vec!["a"]),
            ("//a//b/", vec!["a", "", "b"]),
            ("/a/./b/../", vec!["a", ".", "b", ".."]),
        ] {
            let got: Vec<String> = of(path);
            assert_eq!(got, expected, "{path}");
        }
    }

    #[test]
    fn one_way_to_write_it() {
        for (path, expected) in [
            ("/", true),
            ("/api/v1/pods", true),
            ("/api/v1/clusterroles/system:node", true),
            ("/api/v1/clusterroles/system%3Anode", true),
            ("/api/v1/clusterroles/system%3anode", true),
            ("/a/%C3%BC", true),
            ("//", false),
            ("//api", false),
            ("/api//v1", false),
            ("/api/v1/", false),
            ("/api/./v1", false),
            ("/api/../v1", false),
            ("/api/%2e/v1", false),
            ("/api/%2e%2E/v1", false),
            ("/api/.%2e/v1", false),
            ("/api%2Fv1", false),
            ("/api/v1%2F", false),
            ("/api/v1/pods/p/%65xec", false),
            ("/api/v1/pods/p/exec%2f", false),
            ("/api/v1/pods/p/...", true),
        ] {
            assert_eq!(canonical(path), expected, "{path}");
        }
    }

    #[test]
    fn only_the_first_tokens_count_when_only_they_are_asked_for() {
        let path = b"/api/v1/namespaces/n/services/s/proxy//a/../b%2Fc/";
        let decoded = decode(path).unwrap();
        let tokens = tokens(&decoded);
        assert!(is_canonical(path, &tokens, 7, Rest::Open));
        assert!(is_canonical(path, &tokens, 7, Rest::Closed));
        assert!(!is_canonical(path, &tokens, 8, Rest::Open));
        assert!(!is_canonical(b"/a%2Fb/c", &[b"a", b"b", b"c"], 1, Rest::Open));
    }

    #[test]
    fn what_belongs_to_somebody_else_stays_below() {
        for (rest, stays) in [
            ("", true),
            ("/", true),
            ("//", true),
            ("/..", false),
            ("/../", false),
            ("/x/..", true),
            ("/x/../..", false),
            ("/x/../../proxy/y", false),
            ("//../x", false),
            ("/./../x", false),
            ("/x//../../y", false),
            ("/%2e%2E/x", false),
            ("/.%2e/x", false),
            ("/x%2F..%2F..", false),
            ("/..%2Fx", false),
            // One segment or two, according to the reader: the lower count decides.
            ("/a%2Fb/../../c", false),
            ("/a%2Fb/../c", true),
            ("/a/b/../../c", true),
            ("/...", true),
            ("/..x/.x./x..", true),
            ("/%252e%252e/x", true),
        ] {
            let path = format!("/a/proxy{rest}");
            let decoded = decode(path.as_bytes()).unwrap();
            assert_eq!(is_canonical(path.as_bytes(), &tokens(&decoded), 2, Rest::Open), stays, "{path}");
        }
    }

    #[test]
    fn what_may_follow() {
        let tokens: &[&[u8]] = &[b"a", b"b"];
        for (path, closed, slash, open) in [
            ("/a/b", true, true, true),
            ("/a/b/", false, true, true),
            ("/a/b//", false, false, true),
            ("/a/b%2F", false, false, false),
        ] {
            let of = |rest| is_canonical(path.as_bytes(), tokens, 2, rest);
            assert_eq!((of(Rest::Closed), of(Rest::Slash), of(Rest::Open)), (closed, slash, open), "{path}");
        }
    }

    proptest! {
        /// What is written from tokens is canonical, and is read as the same tokens.
        #[test]
        fn encoding_is_canonical(path in "/[a-z.%/:\u{80}-\u{ff}~@ -]{0,24}") {
            let path = path.replace('%', "%25").replace(' ', "%20");
            let decoded = decode(path.as_bytes()).unwrap();
            let before = tokens(&decoded);
            let written = encode(&before);
            let again = decode(&written).unwrap();
            prop_assert_eq!(&tokens(&again), &before);
            let has_odd_token = before.iter().any(|token| matches!(*token, b"" | b"." | b".."));
            prop_assert_eq!(is_canonical(&written, &before, before.len(), Rest::Closed), !has_odd_token);
        }

        #[test]
        fn anything_at_all(path in proptest::collection::vec(any::<u8>(), 0..48)) {
            if let Ok(decoded) = decode(&path) {
                let tokens = tokens(&decoded);
                is_canonical(&path, &tokens, tokens.len(), Rest::Closed);
                prop_assert!(decode(&encode(&tokens)).is_ok());
            }
        }
    }
}
