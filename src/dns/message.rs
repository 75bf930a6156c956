//! DNS messages: a question for addresses, and what of an answer matters (RFC 1035, RFC 3596). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Flags of a question: recursion desired.
const RECURSE: u16 = 0x0100;
/// This is an answer.
const IS_ANSWER: u16 = 0x8000;
/// It did not fit.
const TRUNCATED: u16 = 0x0200;
const CLASS_IN: u16 = 1;
const CNAME: u16 = 5;

/// The kind of address asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4
    A,
    /// IPv6
    Aaaa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
        }
    }
}

/// How a server feels about a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Fine; there may be nothing nevertheless.
    NoError,
    /// Nobody has the name.
    NoSuchName,
    /// It could not, or did not want to.
    Failure(u8),
}

/// What of an answer matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The outcome.
    pub code: Code,
    /// Addresses of the kind asked for, aliases followed by the server.
    pub addresses: Vec<IpAddr>,
    /// How long all of them hold.
    pub ttl: Option<Duration>,
}

/// What was received is not the answer to this question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an answer to this question")]
pub struct NoAnswer;

/// A question.
#[derive(Clone, Debug)]
pub struct Query {
    bytes: Vec<u8>,
    kind: Kind,
}

impl Query {
    /// A question for the addresses of a whole name; `None` when it cannot be one.
    pub fn new(id: u16, name: &str, kind: Kind) -> Option<Self> {
        let mut bytes = Vec::with_capacity(name.len() + 18);
        for part in [id, RECURSE, 1, 0, 0, 0] {
            bytes.extend_from_slice(&part.to_be_bytes());
        }
        if name.len() > 253 {
            return None;
        }
        for label in name.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
            bytes.push(length);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.number().to_be_bytes());
        bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
        Some(Self { bytes, kind })
    }

    /// As it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads what was received; `None` when it is the answer and did not fit.
    ///
    /// # Errors
    /// It is something else.
    pub fn read(&self, message: &[u8]) -> Result<Option<Reply>, NoAnswer> {
        let mut rest = Reader { message, at: 0 };
        let id = rest.u16()?;
        let flags = rest.u16()?;
        let counts = [rest.u16()?, rest.u16()?];
        rest.skip(4)?;
        let question = rest.take(self.bytes.len() - 12)?;
        let same = question.eq_ignore_ascii_case(&self.bytes[12..]) && id.to_be_bytes() == self.bytes[..2];
        if flags & IS_ANSWER == 0 || counts[0] != 1 || !same {
            return Err(NoAnswer);
        }
        if flags & TRUNCATED != 0 {
            return Ok(None);
        }
        let code = match flags & 0xf {
            0 => Code::NoError,
            3 => Code::NoSuchName,
            other => Code::Failure(other.to_be_bytes()[1]),
        };
        let mut reply = Reply { code, addresses: Vec::new(), ttl: None };
        for _ in 0..counts[1] {
            rest.record(self.kind, &mut reply)?;
        }
        Ok(Some(reply))
    }
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, count: usize) -> Result<&'m [u8], NoAnswer> {
        let end = self.at.checked_add(count).ok_or(NoAnswer)?;
        let taken = self.message.get(self.at..end).ok_or(NoAnswer)?;
        self.at = end;
        Ok(taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), NoAnswer> {
        self.take(count).map(|_| ())
    }

    fn u16(&mut self) -> Result<u16, NoAnswer> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, NoAnswer> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    fn name(&mut self) -> Result<(), NoAnswer> {
        loop {
            match self.take(1)?[0] {
                0 => return Ok(()),
                // The rest of it stands elsewhere.
                0xc0.. => return self.skip(1),
                length => self.skip(length.into())?,
            }
        }
    }

    /// One record of the answer: an address, an alias on the way to it, or nothing to us.
    fn record(&mut self, kind: Kind, reply: &mut Reply) -> Result<(), NoAnswer> {
        self.name()?;
        let (number, class, ttl, length) = (self.u16()?, self.u16()?, self.u32()?, self.u16()?);
        let data = self.take(length.into())?;
        if class != CLASS_IN || ![kind.number(), CNAME].contains(&number) {
            return Ok(());
        }
        if number == kind.number() {
            reply.addresses.push(match kind {
                Kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(data).map_err(|_| NoAnswer)?).into(),
                Kind::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(data).map_err(|_| NoAnswer)?).into(),
            });
        }
        // RFC 2181: the first bit is none of the lifetime's.
        let ttl = Duration::from_secs(if ttl > i32::MAX as u32 { 0 } else { ttl.into() });
        reply.ttl = reply.ttl.into_iter().chain([ttl]).min();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An answer with these records: name as a pointer, type, lifetime, data.
    fn answer(query: &Query, flags: u16, records: &[(u16, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = query.bytes().to_vec();
        bytes[2..4].copy_from_slice(&(IS_ANSWER | flags).to_be_bytes());
        bytes[6..8].copy_from_slice(&u16::try_from(records.len()).unwrap().to_be_bytes());
        for (kind, ttl, data) in records {
            bytes.extend_from_slice(&[0xc0, 12]);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
            bytes.extend_from_slice(&ttl.to_be_bytes());
            bytes.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    #[test]
    fn the_question_as_it_travels() {
        let query = Query::new(0x1234, "db.prod", Kind::Aaaa).unwrap();
        assert_eq!(
            query.bytes(),
            b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02db\x04prod\x00\x00\x1c\x00\x01"
        );
        for name in ["", "a..b", "a.", &"a".repeat(64), &"a.".repeat(130)] {
            assert!(Query::new(1, name, Kind::A).is_none(), "{name:?}");
        }
    }

    #[test]
    fn addresses_hold_as_long_as_the_shortest_lifetime_on_the_way() {
        let query = Query::new(7, "db.prod", Kind::A).unwrap();
        let records: &[(u16, u32, &[u8])] =
            &[(CNAME, 20, b"\x01x\x00"), (1, 60, &[10, 0, 0, 1]), (1, 30, &[10, 0, 0, 2]), (16, 1, b"\x01t")];
        let reply = query.read(&answer(&query, 0, records)).unwrap().unwrap();
        assert_eq!(reply.addresses, [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
        assert_eq!((reply.code, reply.ttl), (Code::NoError, Some(Duration::from_secs(20))));
    }

    #[test]
    fn outcomes_are_told_apart() {
        let query = Query::new(7, "db.prod", Kind::A).unwrap();
        for (flags, code) in [(0, Code::NoError), (3, Code::NoSuchName), (2, Code::Failure(2)), (5, Code::Failure(5))] {
            assert_eq!(query.read(&answer(&query, flags, &[])).unwrap().unwrap().code, code);
        }
        assert_eq!(query.read(&answer(&query, TRUNCATED, &[])), Ok(None));
        let other = Query::new(8, "db.prod", Kind::A).unwrap();
        assert_eq!(query.read(&answer(&other, 0, &[])), Err(NoAnswer));
        assert_eq!(query.read(query.bytes()), Err(NoAnswer));
        assert_eq!(query.read(&answer(&query, 0, &[(1, 1, &[10, 0, 0])])), Err(NoAnswer));
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_an_answer_or_none(mut bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let query = Query::new(7, "db.prod", Kind::A).unwrap();
            let _ = query.read(&bytes);
            let mut ours = answer(&query, 0, &[]);
            ours[7] = 3;
            ours.append(&mut bytes);
            let _ = query.read(&ours);
        }
    }
}
