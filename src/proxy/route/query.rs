//! The query of a request target, as Go's `net/url` reads it. Pure.
//!
//! kube-apiserver drops pairs that have a `;` or a broken escape, silently. A request whose query different readers
//! understand differently is sent as kube-apiserver would understand it, or not at all (api-proxy.md 7.1).

use std::borrow::Cow;

/// Whether every reader understands the query alike: no `;`, no broken escape.
pub(super) fn is_sound(query: &[u8]) -> bool {
    let mut at = 0;
    while let Some(byte) = query.get(at) {
        match byte {
            b';' => return false,
            b'%' if decode_escape(&query[at..]).is_none() => return false,
            b'%' => at += 3,
            _ => at += 1,
        }
    }
    true
}

/// The query as it is sent: the same bytes when it is sound, otherwise the pairs that can be read, sorted by name.
///
/// Follows `net/http/httputil/reverseproxy.go`, `cleanQueryParams`.
pub(super) fn clean(query: &[u8]) -> Cow<'_, [u8]> {
    if is_sound(query) {
        return Cow::Borrowed(query);
    }
    let mut pairs: Vec<_> = pairs(query).collect();
    // Stable: values of one name keep their order.
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut cleaned = Vec::with_capacity(query.len());
    for (name, value) in &pairs {
        if !cleaned.is_empty() {
            cleaned.push(b'&');
        }
        encode(name, &mut cleaned);
        cleaned.push(b'=');
        encode(value, &mut cleaned);
    }
    cleaned.into()
}

/// Names and values that can be read, in order, decoded; the others are left out (`net/url`, `ParseQuery`).
pub(super) fn pairs(query: &[u8]) -> impl Iterator<Item = (Cow<'_, [u8]>, Cow<'_, [u8]>)> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty() && !pair.contains(&b';')).filter_map(|pair| {
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &b""[..]),
        };
        Some((decode(name)?, decode(value)?))
    })
}

/// The first value of a parameter.
pub(super) fn first<'a>(query: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    pairs(query).find(|(found, _)| **found == *name.as_bytes()).map(|(_, value)| value)
}

/// A name or value decoded, `+` as a blank.
fn decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|byte| b"%+".contains(byte)) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'%' => {
                decoded.push(decode_escape(&text[at..])?);
                at += 2;
            }
            b'+' => decoded.push(b' '),
            byte => decoded.push(*byte),
        }
        at += 1;
    }
    Some(decoded.into())
}

/// The byte that an escape at the start of `text` stands for.
fn decode_escape(text: &[u8]) -> Option<u8> {
    super::path::escape(text)
}

/// `net/url`, `QueryEscape`
fn encode(text: &[u8], into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        match byte {
            b' ' => into.push(b'+'),
            byte if super::path::is_unreserved(*byte) => into.push(*byte),
            byte => into.extend([b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sound_queries_keep_their_bytes() {
        for query in ["", "a", "a=b&a=c", "watch=1&&x", "command=%2Fbin%2fsh&command=-c", "a=b+c&=", "q=\u{fc}#?"] {
            assert!(is_sound(query.as_bytes()), "{query}");
            assert_eq!(clean(query.as_bytes()), query.as_bytes());
        }
    }

    #[test]
    fn others_are_sent_as_they_are_understood() {
        for (query, expected) in [
            ("a=1;b=2", ""),
            ("b=2&a=1&c=%", "a=1&b=2"),
            ("b=2&a=z&x;y&a=b", "a=z&a=b&b=2"),
            ("z=%zz&k=a%2Fb+c", "k=a%2Fb+c"),
            ("%=1&a=~._-%7E*", "a=~._-~%2A"),
            (";&a", "a="),
        ] {
            assert!(!is_sound(query.as_bytes()), "{query}");
            assert_eq!(String::from_utf8_lossy(&clean(query.as_bytes())), expected, "{query}");
        }
    }

    #[test]
    fn the_first_value_counts() {
        assert_eq!(first(b"x=1&watch=&watch=0", "watch").as_deref(), Some(&b""[..]));
        assert_eq!(first(b"w%61tch=a%20b", "watch").as_deref(), Some(&b"a b"[..]));
        assert_eq!(first(b"watch=%&watch=2", "watch").as_deref(), Some(&b"2"[..]));
        assert_eq!(first(b"Watch=1", "watch"), None);
    }

    proptest! {
        #[test]
        fn cleaning_is_idempotent_and_loses_no_readable_pair(query in "[a-c=&;%+0-9 ]{0,24}") {
            let cleaned = clean(query.as_bytes()).into_owned();
            prop_assert!(is_sound(&cleaned));
            let mut before: Vec<_> = pairs(query.as_bytes()).map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
            let mut after: Vec<_> = pairs(&cleaned).map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);
        }
    }
}
