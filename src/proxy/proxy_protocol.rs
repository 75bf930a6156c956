//! The PROXY protocol, version 2, as tailscaled sends it in front of each connection. Pure.
//!
//! Far less than the protocol allows is accepted (api-proxy.md 2.2): what the header says is who the client is, so only
//! what tailscaled really sends counts. Written from the protocol's own document, section 2.2 ("Binary header format").

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// How a version 2 header begins.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The largest header, additional fields included: 16 bytes fixed and what may follow.
pub const MAX_LEN: usize = 536;

/// Version and command, family, length: what stands after the signature and before the addresses.
const FIXED_LEN: usize = 16;

/// Who is connected to whom, as tailscaled saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The tailnet peer; an IPv4-mapped address is plain IPv4 here.
    pub source: SocketAddr,
    /// The address it had dialled.
    pub destination: SocketAddr,
}

/// Why a connection does not begin with a header that counts. The connection is closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Something else begins there.
    #[error("the connection does not begin with a PROXY protocol header")]
    NotThere,
    /// The text form; tailscaled never sends it.
    #[error("a PROXY protocol header of version 1 is not accepted")]
    Version1,
    /// A version that does not exist yet.
    #[error("the PROXY protocol header has version {0}; expected 2")]
    Version(u8),
    /// The sender speaks for itself, so there is no client.
    #[error("a PROXY protocol header with the LOCAL command is not accepted")]
    Local,
    /// Neither LOCAL nor PROXY.
    #[error("the PROXY protocol header has the unknown command {0}")]
    Command(u8),
    /// Unspecified, Unix, or not a stream.
    #[error("the PROXY protocol header has address family and protocol {0:#04x}; expected TCP over IPv4 or IPv6")]
    Family(u8),
    /// The addresses do not fit in.
    #[error("the PROXY protocol header has room for {0} bytes of addresses; expected at least {1}")]
    TooShort(u16, u16),
    /// More additional fields than anybody sends.
    #[error("the PROXY protocol header announces {0} more bytes; at most {max} are accepted", max = MAX_LEN - FIXED_LEN)]
    TooLong(u16),
}

/// Reads the header at the start of `bytes`.
///
/// `Ok(None)` means that all bytes so far are right and more are needed, never more than [`MAX_LEN`] in total. Otherwise
/// the header and how many bytes it took; what follows belongs to the connection. An error is found at the first byte
/// that is wrong, not when the header is complete.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, HeaderError> {
    let seen = bytes.len().min(SIGNATURE.len());
    if bytes[..seen] != SIGNATURE[..seen] {
        return Err(if bytes.starts_with(b"PROXY ") { HeaderError::Version1 } else { HeaderError::NotThere });
    }
    if let Some(byte) = bytes.get(12) {
        match (byte >> 4, byte & 0xf) {
            (2, 1) => {}
            (2, 0) => return Err(HeaderError::Local),
            (2, command) => return Err(HeaderError::Command(command)),
            (version, _) => return Err(HeaderError::Version(version)),
        }
    }
    let needed = match bytes.get(13) {
        None => return Ok(None),
        Some(0x11) => 12,
        Some(0x21) => 36,
        Some(family) => return Err(HeaderError::Family(*family)),
    };
    let Some(length) = bytes.get(14..FIXED_LEN) else { return Ok(None) };
    let length = u16::from_be_bytes([length[0], length[1]]);
    if length < needed {
        return Err(HeaderError::TooShort(length, needed));
    }
    let end = FIXED_LEN + usize::from(length);
    if end > MAX_LEN {
        return Err(HeaderError::TooLong(length));
    }
    let Some(rest) = bytes.get(FIXED_LEN..end) else { return Ok(None) };
    Ok(Some((if needed == 12 { ipv4(rest) } else { ipv6(rest) }, end)))
}

fn ipv4(rest: &[u8]) -> Header {
    let addr = |at: usize| IpAddr::V4(Ipv4Addr::new(rest[at], rest[at + 1], rest[at + 2], rest[at + 3]));
    Header { source: SocketAddr::new(addr(0), port(rest, 8)), destination: SocketAddr::new(addr(4), port(rest, 10)) }
}

fn ipv6(rest: &[u8]) -> Header {
    let addr = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&rest[at..at + 16]);
        Ipv6Addr::from(octets).to_canonical()
    };
    Header { source: SocketAddr::new(addr(0), port(rest, 32)), destination: SocketAddr::new(addr(16), port(rest, 34)) }
}

fn port(rest: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([rest[at], rest[at + 1]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 100.64.0.9:51000 to 100.64.0.2:80, the example of api-proxy.md 2.2.
    const EXAMPLE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x64\x40\0\x09\x64\x40\0\x02\xc7\x38\0\x50";

    fn v6(source: &str, tail: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0x21, 0x21]);
        bytes.extend(u16::try_from(36 + tail.len()).unwrap().to_be_bytes());
        bytes.extend(source.parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend("fd7a:115c:a1e0::2".parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend(51000_u16.to_be_bytes());
        bytes.extend(80_u16.to_be_bytes());
        bytes.extend(tail);
        bytes
    }

    #[test]
    fn the_example_of_the_contract() {
        let (header, len) = parse(EXAMPLE).unwrap().unwrap();
        assert_eq!(header.source, "100.64.0.9:51000".parse().unwrap());
        assert_eq!(header.destination, "100.64.0.2:80".parse().unwrap());
        assert_eq!(len, EXAMPLE.len());
    }

    #[test]
    fn what_follows_is_not_touched_and_additional_fields_are_skipped() {
        let mut bytes = v6("fd7a:115c:a1e0::9", b"\x04\0\x01x");
        let len = bytes.len();
        bytes.extend(b"GET / HTTP/1.1\r\n");
        let (header, used) = parse(&bytes).unwrap().unwrap();
        assert_eq!((header.source, used), ("[fd7a:115c:a1e0::9]:51000".parse().unwrap(), len));
    }

    #[test]
    fn a_mapped_address_is_the_plain_one() {
        let (header, _) = parse(&v6("::ffff:100.64.0.9", b"")).unwrap().unwrap();
        assert_eq!(header.source, "100.64.0.9:51000".parse().unwrap());
    }

    #[test]
    fn the_cap_is_536_bytes_in_all() {
        let longest = v6("fd7a::9", &[0; 536 - 16 - 36]);
        assert_eq!(longest.len(), MAX_LEN);
        assert!(parse(&longest).unwrap().is_some());
        assert_eq!(parse(&v6("fd7a::9", &[0; 536 - 16 - 35])[..16]), Err(HeaderError::TooLong(521)));
    }

    #[test]
    fn wrong_ones_are_refused_at_the_first_wrong_byte() {
        let with = |at: usize, byte: u8| {
            let mut bytes = EXAMPLE.to_vec();
            bytes[at] = byte;
            bytes.truncate(if at < 14 { at + 1 } else { 16 });
            bytes
        };
        for (bytes, expected) in [
            (b"GET / HTTP/1.1\r\n".to_vec(), HeaderError::NotThere),
            (b"G".to_vec(), HeaderError::NotThere),
            (b"\r\n\r\r".to_vec(), HeaderError::NotThere),
            (b"PROXY TCP4 100.64.0.9 100.64.0.2 51000 80\r\n".to_vec(), HeaderError::Version1),
            (b"\x16\x03\x01".to_vec(), HeaderError::NotThere),
            (with(12, 0x20), HeaderError::Local),
            (with(12, 0x22), HeaderError::Command(2)),
            (with(12, 0x11), HeaderError::Version(1)),
            (with(12, 0x31), HeaderError::Version(3)),
            (with(13, 0x00), HeaderError::Family(0)),
            (with(13, 0x12), HeaderError::Family(0x12)),
            (with(13, 0x22), HeaderError::Family(0x22)),
            (with(13, 0x31), HeaderError::Family(0x31)),
            (with(15, 11), HeaderError::TooShort(11, 12)),
            (with(14, 0xff), HeaderError::TooLong(0xff0c)),
        ] {
            assert_eq!(parse(&bytes), Err(expected), "{bytes:x?}");
        }
    }

    proptest! {
        /// However the bytes arrive, the answer is the same, and nothing is consumed that is not there.
        #[test]
        fn any_split_gives_the_same(tail in proptest::collection::vec(any::<u8>(), 0..40), flip in any::<(u8, u8)>()) {
            let mut bytes = v6("fd7a:115c:a1e0::9", &tail);
            if let Some(byte) = bytes.get_mut(usize::from(flip.0)) {
                *byte ^= flip.1;
            }
            bytes.extend(b"rest");
            let whole = parse(&bytes);
            for at in 0..bytes.len() {
                match parse(&bytes[..at]) {
                    Ok(None) => {}
                    partial => {
                        prop_assert_eq!(partial, whole);
                        if let Ok(Some((_, used))) = partial {
                            prop_assert!(used <= at && used <= MAX_LEN);
                        }
                    }
                }
            }
        }

        #[test]
        fn anything_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(Some((_, used))) = parse(&bytes) {
                prop_assert!(used <= bytes.len());
            }
        }
    }
}
