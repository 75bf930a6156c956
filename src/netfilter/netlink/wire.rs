//! How netfilter's netlink messages are put into bytes and taken out again. Pure.
//!
//! Headers are in the machine's byte order, lengths count themselves, everything starts at multiples of four; numbers
//! in attributes are big-endian in all of netfilter (`linux/netlink.h`, `linux/netfilter/nfnetlink.h`).

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;
/// Set in the number of an attribute that consists of attributes.
const NESTED: u16 = 0x8000;
/// The bits of an attribute's number that are the number.
const NUMBER: u16 = 0x3fff;

/// Flags of a message.
pub mod flag {
    /// A request.
    pub const REQUEST: u16 = 0x1;
    /// One of several.
    pub const MULTI: u16 = 0x2;
    /// An answer is wanted, also if all went well.
    pub const ACK: u16 = 0x4;
    /// Somebody changed things while they were listed.
    pub const DUMP_INTERRUPTED: u16 = 0x10;
    /// In an answer: the request is not repeated in it.
    pub const CAPPED: u16 = 0x100;
    /// In an answer: attributes follow.
    pub const ACK_ATTRIBUTES: u16 = 0x200;
    /// In a request: everything there is.
    pub const DUMP: u16 = 0x300;
    /// In a request: make it if it is missing.
    pub const CREATE: u16 = 0x400;
    /// In a request: behind those that are there.
    pub const APPEND: u16 = 0x800;
}

/// Kinds of messages that are not netfilter's own.
mod kind {
    pub(super) const ERROR: u16 = 2;
    pub(super) const DONE: u16 = 3;
}

/// Attributes under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, number: u16, value: &[u8]) -> &mut Self {
        let start = self.open(number);
        self.0.extend_from_slice(value);
        self.close(start)
    }

    /// Text with its terminator.
    pub fn text(&mut self, number: u16, value: &str) -> &mut Self {
        let start = self.open(number);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.close(start)
    }

    /// A number.
    pub fn number(&mut self, number: u16, value: u32) -> &mut Self {
        self.bytes(number, &value.to_be_bytes())
    }

    /// Attributes in an attribute.
    pub fn nested(&mut self, number: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.open(number | NESTED);
        fill(self);
        self.close(start)
    }

    /// Attributes as they were read.
    pub fn copied(&mut self, attributes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(attributes);
        self
    }

    /// As they are sent.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    fn open(&mut self, number: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0, 0]);
        self.0.extend_from_slice(&number.to_ne_bytes());
        start
    }

    fn close(&mut self, start: usize) -> &mut Self {
        let length = u16::try_from(self.0.len() - start).expect("whoever fills an attribute minds its limit of 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        pad(&mut self.0);
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A message to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Subsystem in the high byte, what to do in the low.
    pub kind: u16,
    /// [`flag`]; that it is a request goes without saying.
    pub flags: u16,
    /// `AF_INET` and so on.
    pub family: u8,
    /// What a batch is about.
    pub resource: u16,
    /// The rest.
    pub attributes: Attributes,
}

impl Request {
    /// What stands before the attributes.
    pub const HEADERS: usize = HEADER + FAMILY_HEADER;

    /// Appends the message to what is to be sent.
    pub fn append(&self, to: &mut Vec<u8>, sequence: u32) {
        let start = to.len();
        to.extend_from_slice(&[0; 4]);
        to.extend_from_slice(&self.kind.to_ne_bytes());
        to.extend_from_slice(&(self.flags | flag::REQUEST).to_ne_bytes());
        to.extend_from_slice(&sequence.to_ne_bytes());
        to.extend_from_slice(&[0; 4]);
        to.extend_from_slice(&[self.family, 0]);
        to.extend_from_slice(&self.resource.to_be_bytes());
        to.extend_from_slice(&self.attributes.0);
        let length = u32::try_from(to.len() - start).unwrap_or(u32::MAX);
        to[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        pad(to);
    }
}

/// A message from the kernel, or one of our own read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'b> {
    /// Subsystem in the high byte, what it is in the low.
    pub kind: u16,
    /// [`flag`]
    pub flags: u16,
    /// That of the request.
    pub sequence: u32,
    /// What follows the header.
    payload: &'b [u8],
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'b> {
    /// An object: the address family and the attributes.
    Object(u8, &'b [u8]),
    /// The list is complete.
    Done,
    /// All went well.
    Acknowledged,
    /// It did not.
    Refused(Refusal),
}

/// Why the kernel refuses a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: i32,
    /// The kernel's words, where it has any.
    pub words: Option<String>,
    /// Where in the request the reason lies, in bytes from its start.
    pub offset: Option<usize>,
}

/// The messages in what was received. Ends at the first that is cut off.
pub fn messages(received: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = received;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let payload = rest.get(HEADER..length)?;
        let (kind, flags) = (u16_at(rest, 4)?, u16_at(rest, 6)?);
        let sequence = u32_at(rest, 8)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, flags, sequence, payload })
    })
}

impl<'b> Message<'b> {
    /// What it says; `None` when it is cut off.
    pub fn answer(&self) -> Option<Answer<'b>> {
        match self.kind {
            kind::DONE => match self.payload.first_chunk().map(|error| i32::from_ne_bytes(*error)) {
                None | Some(0) => Some(Answer::Done),
                Some(error) => Some(Answer::Refused(Refusal { errno: -error, words: None, offset: None })),
            },
            kind::ERROR => self.error(),
            _ => Some(Answer::Object(*self.payload.first()?, self.payload.get(FAMILY_HEADER..)?)),
        }
    }

    fn error(&self) -> Option<Answer<'b>> {
        // The numbers of NLMSGERR_ATTR_MSG and NLMSGERR_ATTR_OFFS.
        const WORDS: u16 = 1;
        const OFFSET: u16 = 2;
        let error = i32::from_ne_bytes(*self.payload.first_chunk()?);
        if error == 0 {
            return Some(Answer::Acknowledged);
        }
        let repeated =
            if self.flags & flag::CAPPED == 0 { usize::try_from(u32_at(self.payload, 4)?).ok()? } else { HEADER };
        let more = if self.flags & flag::ACK_ATTRIBUTES == 0 {
            None
        } else {
            self.payload.get(4 + repeated.next_multiple_of(4)..)
        };
        let more = more.unwrap_or_default();
        Some(Answer::Refused(Refusal {
            errno: -error,
            words: text(more, WORDS),
            // Of all the numbers in netfilter's messages, those of the error are in the machine's order.
            offset: find(more, OFFSET).and_then(|at| Some(u32::from_ne_bytes(*at.first_chunk()?) as usize)),
        }))
    }
}

/// The attributes of a message, or in an attribute: numbers and values. Ends at the first that is cut off.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        let number = u16_at(rest, 2)? & NUMBER;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((number, value))
    })
}

/// The value of an attribute.
pub fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(number, _)| *number == wanted).map(|(_, value)| value)
}

/// A number in an attribute, which takes four bytes or eight.
pub fn number(bytes: &[u8], wanted: u16) -> Option<u32> {
    let value = find(bytes, wanted)?;
    value.try_into().ok().map(u32::from_be_bytes)
}

/// Text in an attribute, up to its terminator.
pub fn text(bytes: &[u8], wanted: u16) -> Option<String> {
    let value = find(bytes, wanted)?;
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(String::from_utf8_lossy(value).into_owned())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|value| u16::from_ne_bytes(*value))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|value| u32::from_ne_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let mut attributes = Attributes::new();
        attributes.text(1, "tailpod_l3").nested(4, |inner| {
            inner.number(1, 7).bytes(2, &[1, 2, 3]);
        });
        Request { kind: 0x0a06, flags: flag::ACK, family: 2, resource: 0, attributes }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut sent = Vec::new();
        request().append(&mut sent, 41);
        request().append(&mut sent, 42);
        let read: Vec<_> = messages(&sent).collect();
        assert_eq!(read.iter().map(|message| message.sequence).collect::<Vec<_>>(), [41, 42]);
        assert_eq!(read[0].flags, flag::ACK | flag::REQUEST);
        let Some(Answer::Object(2, body)) = read[1].answer() else { panic!("{read:?}") };
        assert_eq!(text(body, 1).as_deref(), Some("tailpod_l3"));
        let nested = find(body, 4).unwrap();
        assert_eq!((number(nested, 1), find(nested, 2)), (Some(7), Some([1, 2, 3].as_slice())));
    }

    #[test]
    fn the_bytes_are_those_of_the_kernels_headers() {
        let mut attributes = Attributes::new();
        attributes.text(1, "ab").nested(2, |inner| {
            inner.number(1, 1);
        });
        let mut sent = Vec::new();
        Request { kind: 0x0a00, flags: 0, family: 2, resource: 10, attributes }.append(&mut sent, 3);
        let length = |value: u16| value.to_ne_bytes();
        let mut expected = Vec::new();
        expected.extend(40u32.to_ne_bytes());
        expected.extend([length(0x0a00), length(1)].concat());
        expected.extend(3u32.to_ne_bytes());
        expected.extend([0, 0, 0, 0, 2, 0, 0, 10]);
        expected.extend([length(7), length(1)].concat());
        expected.extend(b"ab\0\0");
        expected.extend([length(12), length(0x8002), length(8), length(1)].concat());
        expected.extend([0, 0, 0, 1]);
        assert_eq!(sent, expected);
    }

    /// An answer as the kernel forms it: the error, the request's header or all of it, attributes.
    fn refusal(flags: u16, repeated: &[u8], attributes: &Attributes) -> Vec<u8> {
        let mut payload = (-17i32).to_ne_bytes().to_vec();
        payload.extend_from_slice(repeated);
        payload.extend_from_slice(&attributes.0);
        let mut bytes = u32::try_from(HEADER + payload.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend([kind::ERROR.to_ne_bytes(), flags.to_ne_bytes()].concat());
        bytes.extend([7u32.to_ne_bytes(), [0; 4]].concat());
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn the_kernels_words_are_found_whether_it_repeats_the_request_or_not() {
        let mut sent = Vec::new();
        request().append(&mut sent, 7);
        let mut attributes = Attributes::new();
        attributes.text(1, "Chain already exists").bytes(2, &20u32.to_ne_bytes());
        let expected =
            Answer::Refused(Refusal { errno: 17, words: Some("Chain already exists".to_owned()), offset: Some(20) });
        for (flags, repeated) in
            [(flag::CAPPED | flag::ACK_ATTRIBUTES, &sent[..HEADER]), (flag::ACK_ATTRIBUTES, &sent[..])]
        {
            let bytes = refusal(flags, repeated, &attributes);
            assert_eq!(messages(&bytes).next().unwrap().answer(), Some(expected.clone()));
        }
        let silent = refusal(flag::CAPPED, &sent[..HEADER], &Attributes::new());
        let expected = Answer::Refused(Refusal { errno: 17, words: None, offset: None });
        assert_eq!(messages(&silent).next().unwrap().answer(), Some(expected));
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let mut sent = Vec::new();
        request().append(&mut sent, 7);
        for end in 0..sent.len() {
            assert_eq!(messages(&sent[..end]).count(), 0, "{end}");
        }
        // Lengths that lie lead nowhere, and not for ever.
        assert_eq!(attributes(&[0, 0, 1, 0, 0, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[255, 255, 1, 0, 1, 2]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
