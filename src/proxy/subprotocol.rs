//! The bearer token that a browser offers as a WebSocket subprotocol, because it can set no `Authorization`. Pure.
//!
//! kube-apiserver takes it for credentials as good as the header (`k8s.io/apiserver`,
//! `pkg/authentication/request/websocket/protocol.go`), so in mode `auth` it goes like everything else with which a client
//! could say who it is. What else is offered stays, in its order.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::headers::is_folded;

const OFFERED: &str = "sec-websocket-protocol";

/// How such a subprotocol begins. The token follows, as unpadded base64url.
const TOKEN: &[u8] = b"base64url.bearer.authorization.k8s.io.";

/// Removes offered subprotocols that are tokens; of a line with nothing else in it nothing stays.
pub fn strip_token(headers: &mut HeaderMap) {
    while let Some(name) = token_header(headers).cloned() {
        let kept: Vec<HeaderValue> = headers.get_all(&name).iter().filter_map(without_token).collect();
        headers.remove(&name);
        for value in kept {
            headers.append(&name, value);
        }
    }
}

/// The header that offers a token as a subprotocol, if there is one.
pub fn token_header(headers: &HeaderMap) -> Option<&HeaderName> {
    let offering = headers.iter().filter(|(name, _)| is_folded(name.as_str(), OFFERED));
    offering.filter(|(_, value)| is_token(value.as_bytes())).map(|(name, _)| name).next()
}

fn without_token(value: &HeaderValue) -> Option<HeaderValue> {
    if !is_token(value.as_bytes()) {
        return Some(value.clone());
    }
    let offered = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let kept: Vec<&[u8]> = offered.filter(|protocol| !is_token(protocol)).collect();
    let kept = kept.join(&b", "[..]);
    if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept).ok() }
}

/// Whether a token is in there, wherever it begins: Go trims more than ASCII white space before it looks.
fn is_token(offered: &[u8]) -> bool {
    offered.windows(TOKEN.len()).any(|part| part.eq_ignore_ascii_case(TOKEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(lines: &[(&'static str, &[u8])]) -> Vec<(String, Vec<u8>)> {
        let mut headers: HeaderMap = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap()))
            .collect();
        strip_token(&mut headers);
        assert_eq!(token_header(&headers), None);
        headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_token_goes_and_the_rest_stays_in_its_order() {
        for (offered, kept) in [
            (&b"v5.channel.k8s.io"[..], Some(&b"v5.channel.k8s.io"[..])),
            (b"a,b ,  c", Some(b"a,b ,  c")),
            (b"base64url.bearer.authorization.k8s.io.dG9r", None),
            (b"base64url.bearer.authorization.k8s.io.", None),
            (b"base64url.bearer.authorization.k8s.io.dG9r, v5.channel.k8s.io,v4", Some(b"v5.channel.k8s.io, v4")),
            (b"v5, Base64URL.Bearer.authorization.K8S.io.dG9r ,v4", Some(b"v5, v4")),
            (b"a,base64url.bearer.authorization.k8s.io.x,base64url.bearer.authorization.k8s.io.y", Some(b"a")),
            // Go's `TrimSpace` takes a no-break space off.
            (b"a, \xc2\xa0base64url.bearer.authorization.k8s.io.x", Some(b"a")),
            (b"a, base64url.bearer.authorization.k8s.iox", Some(b"a, base64url.bearer.authorization.k8s.iox")),
        ] {
            let got = strip(&[(OFFERED, offered)]);
            let expected: Vec<_> = kept.iter().map(|kept| (OFFERED.to_owned(), kept.to_vec())).collect();
            assert_eq!(got, expected, "{}", String::from_utf8_lossy(offered));
        }
    }

    #[test]
    fn it_goes_out_of_every_line_and_from_under_every_spelling_of_the_name() {
        let token = &b"base64url.bearer.authorization.k8s.io.x"[..];
        let got = strip(&[
            (OFFERED, b"a"),
            (OFFERED, token),
            (OFFERED, b"b"),
            ("sec_websocket-protocol", token),
            ("x-other", token),
        ]);
        let expected = [(OFFERED, &b"a"[..]), (OFFERED, b"b"), ("x-other", token)]
            .map(|(name, value)| (name.to_owned(), value.to_vec()));
        let mut got = got;
        got.sort();
        assert_eq!(got, expected);
    }
}
