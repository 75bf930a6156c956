//! Cuts a byte stream into JSON objects, dropping what nobody needs while the bytes arrive. Pure.
//!
//! `push` takes any piece of the stream, `next` hands out finished objects; how the stream was cut into pieces makes
//! no difference. A [`Rule`] says which members are kept, so that the first message of a tailnet with thousands of
//! peers never sits in memory as a whole. Objects are bounded. Dropped parts are only checked as far as finding their
//! end needs (strings and nesting); what is kept is for the JSON parser to judge.

use std::collections::VecDeque;

/// What to keep of a JSON value.
#[derive(Debug)]
pub enum Rule {
    /// All of it.
    Keep,
    /// None of it; its member disappears.
    Skip,
    /// Of an object the listed members, each by its own rule; all others disappear. Of an array the same for each
    /// element. Other values are kept.
    Members(&'static [(&'static str, Rule)]),
    /// The same rule for every member of an object or element of an array. Other values are kept.
    Each(&'static Rule),
}

/// Why a stream cannot be cut any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not JSON.
    #[error("byte {offset} of the stream: expected {expected}")]
    Syntax {
        /// Position in the stream, from 0.
        offset: u64,
        /// What should have stood there.
        expected: &'static str,
    },
    /// One object, or what is kept of it, is larger than allowed.
    #[error("more than {} MiB", .limit >> 20)]
    TooLarge {
        /// The bound in bytes.
        limit: usize,
    },
}

/// Bounds of one object, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// As it arrives, dropped parts included.
    pub object: usize,
    /// What is kept of it: the memory that it takes.
    pub kept: usize,
}

/// The cutter. Bytes in, objects out.
#[derive(Debug)]
pub struct Framer {
    rule: &'static Rule,
    limits: Limits,
    state: State,
    /// The containers around the current position, as far as they are taken apart.
    stack: Vec<Level>,
    /// The rule for the next value.
    pending: &'static Rule,
    /// The raw bytes of the key before the next value, without quotes.
    key: Vec<u8>,
    /// What is kept of the current object.
    out: Vec<u8>,
    /// Bytes of the current object so far, kept or not.
    size: usize,
    /// Bytes of the stream so far.
    offset: u64,
    done: VecDeque<Vec<u8>>,
    error: Option<FrameError>,
}

#[derive(Debug)]
struct Level {
    rule: &'static Rule,
    array: bool,
    /// Whether a member has been written, so that the next needs a comma.
    wrote: bool,
}

/// What the next byte may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between objects.
    Idle,
    /// Right after `{` (`first`) or after a comma in an object.
    Key { first: bool },
    /// Inside a key.
    InKey { escaped: bool },
    /// After a key.
    Colon,
    /// Before a value; `first` right after `[`.
    Value { first: bool },
    /// After a value, inside a container that is taken apart.
    CommaOrEnd,
    /// Inside a value that is kept or dropped as a whole.
    Whole { keep: bool, depth: u32, string: Quoting },
    /// Inside a number or a word, outside any container that is dropped or kept as a whole.
    Scalar { keep: bool },
}

/// Whether a position is inside a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quoting {
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

impl Framer {
    /// A framer that keeps what `rule` says and refuses objects beyond `limits`.
    pub fn new(rule: &'static Rule, limits: Limits) -> Self {
        Self {
            rule,
            limits,
            state: State::Idle,
            stack: Vec::new(),
            pending: rule,
            key: Vec::new(),
            out: Vec::new(),
            size: 0,
            offset: 0,
            done: VecDeque::new(),
            error: None,
        }
    }

    /// Takes the next piece of the stream. After an error further pieces are ignored.
    pub fn push(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while !rest.is_empty() && self.error.is_none() {
            match self.step(rest) {
                Ok(used) => {
                    self.offset += used as u64;
                    rest = &rest[used..];
                    if self.state != State::Idle {
                        self.size = self.size.saturating_add(used);
                        if self.size > self.limits.object {
                            self.error = Some(FrameError::TooLarge { limit: self.limits.object });
                        } else if self.out.len() + self.key.len() > self.limits.kept {
                            self.error = Some(FrameError::TooLarge { limit: self.limits.kept });
                        }
                    }
                }
                Err(error) => self.error = Some(error),
            }
        }
        if self.error.is_some() {
            self.out = Vec::new();
            self.key = Vec::new();
        }
    }

    /// The next finished object; `None` means that more bytes are needed.
    ///
    /// # Errors
    /// After the objects before it, the error that ended the cutting; again and again.
    #[expect(clippy::should_implement_trait, reason = "the codecs' shape is push and next, with an error that stays")]
    pub fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        match (self.done.pop_front(), &self.error) {
            (Some(frame), _) => Ok(Some(frame)),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Ok(None),
        }
    }

    /// Whether the stream stands between two objects: the only place where it may end.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Handles a non-empty `rest`; returns how many bytes were used, at least one unless only the state changed.
    fn step(&mut self, rest: &[u8]) -> Result<usize, FrameError> {
        match self.state {
            State::Whole { keep, depth, string } => return Ok(self.whole(rest, keep, depth, string)),
            State::InKey { escaped } => return Ok(self.in_key(rest, escaped)),
            State::Scalar { keep } => return Ok(self.scalar(rest, keep)),
            State::Idle | State::Key { .. } | State::Colon | State::Value { .. } | State::CommaOrEnd => {}
        }
        let byte = rest[0];
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            return Ok(1);
        }
        match (self.state, byte) {
            (State::Idle, b'{') => {
                self.size = 0;
                self.pending = self.rule;
                self.value(byte)?;
            }
            (State::Idle, _) => return Err(self.expected("an object")),
            (State::Key { .. }, b'"') => {
                self.key.clear();
                self.state = State::InKey { escaped: false };
            }
            (State::Key { first: true }, b'}') | (State::Value { first: true }, b']') => self.close(byte),
            (State::Key { .. }, _) => return Err(self.expected("a member's name")),
            (State::Colon, b':') => {
                self.pending = self.rule_for_key();
                self.state = State::Value { first: false };
            }
            (State::Colon, _) => return Err(self.expected("a colon")),
            (State::Value { .. }, _) => self.value(byte)?,
            (State::CommaOrEnd, _) => match (byte, self.stack.last()) {
                (b',', Some(Level { array: true, rule, .. })) => {
                    self.pending = child(rule);
                    self.state = State::Value { first: false };
                }
                (b',', Some(Level { array: false, .. })) => self.state = State::Key { first: false },
                (b'}', Some(Level { array: false, .. })) | (b']', Some(Level { array: true, .. })) => self.close(byte),
                _ => return Err(self.expected("a comma or the end of the object or array")),
            },
            (State::InKey { .. } | State::Whole { .. } | State::Scalar { .. }, _) => {}
        }
        Ok(1)
    }

    /// The first byte of a value.
    fn value(&mut self, byte: u8) -> Result<(), FrameError> {
        let rule = self.pending;
        let keep = !matches!(rule, Rule::Skip);
        if !matches!(byte, b'{' | b'[' | b'"' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') {
            return Err(self.expected("a value"));
        }
        if keep {
            self.write_prefix();
            self.out.push(byte);
        }
        self.state = match (byte, rule) {
            (b'{' | b'[', Rule::Members(_) | Rule::Each(_)) => {
                let array = byte == b'[';
                self.stack.push(Level { rule, array, wrote: false });
                self.pending = child(rule);
                if array { State::Value { first: true } } else { State::Key { first: true } }
            }
            (b'{' | b'[', Rule::Keep | Rule::Skip) => State::Whole { keep, depth: 1, string: Quoting::Outside },
            (b'"', _) => State::Whole { keep, depth: 0, string: Quoting::Inside },
            _ => State::Scalar { keep },
        };
        Ok(())
    }

    /// Writes the comma and the key that belong before a value that is kept.
    fn write_prefix(&mut self) {
        let Some(level) = self.stack.last_mut() else { return };
        if level.wrote {
            self.out.push(b',');
        }
        level.wrote = true;
        if !level.array {
            self.out.push(b'"');
            self.out.extend_from_slice(&self.key);
            self.out.extend_from_slice(b"\":");
        }
    }

    /// The end of a container that was taken apart.
    fn close(&mut self, byte: u8) {
        self.out.push(byte);
        self.stack.pop();
        self.value_ended();
    }

    fn value_ended(&mut self) {
        if self.stack.is_empty() {
            self.done.push_back(std::mem::take(&mut self.out));
            self.state = State::Idle;
        } else {
            self.state = State::CommaOrEnd;
        }
    }

    fn in_key(&mut self, rest: &[u8], mut escaped: bool) -> usize {
        for (at, &byte) in rest.iter().enumerate() {
            if escaped {
                escaped = false;
            } else if byte == b'\\' {
                escaped = true;
            } else if byte == b'"' {
                self.key.extend_from_slice(&rest[..at]);
                self.state = State::Colon;
                return at + 1;
            }
        }
        self.key.extend_from_slice(rest);
        self.state = State::InKey { escaped };
        rest.len()
    }

    fn whole(&mut self, rest: &[u8], keep: bool, mut depth: u32, mut string: Quoting) -> usize {
        let mut used = rest.len();
        let mut ended = false;
        for (at, &byte) in rest.iter().enumerate() {
            match string {
                Quoting::Escaped => string = Quoting::Inside,
                Quoting::Inside => match byte {
                    b'"' => string = Quoting::Outside,
                    b'\\' => string = Quoting::Escaped,
                    _ => continue,
                },
                Quoting::Outside => match byte {
                    b'"' => string = Quoting::Inside,
                    b'{' | b'[' => depth = depth.saturating_add(1),
                    b'}' | b']' => depth -= 1,
                    _ => continue,
                },
            }
            if depth == 0 && string == Quoting::Outside {
                used = at + 1;
                ended = true;
                break;
            }
        }
        if keep {
            self.out.extend_from_slice(&rest[..used]);
        }
        if ended {
            self.value_ended();
        } else {
            self.state = State::Whole { keep, depth, string };
        }
        used
    }

    fn scalar(&mut self, rest: &[u8], keep: bool) -> usize {
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        let used = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        if keep {
            self.out.extend_from_slice(&rest[..used]);
        }
        if used < rest.len() {
            // The delimiter is handled by the next step; a scalar never stands outside a container.
            self.value_ended();
        }
        used
    }

    fn rule_for_key(&self) -> &'static Rule {
        let rule = self.stack.last().map_or(self.rule, |level| level.rule);
        let Rule::Members(members) = rule else { return child(rule) };
        let find = |key: &[u8]| members.iter().find(|(name, _)| name.as_bytes() == key);
        let found = if self.key.contains(&b'\\') {
            let quoted = [b"\"", self.key.as_slice(), b"\""].concat();
            serde_json::from_slice::<String>(&quoted).ok().and_then(|key| find(key.as_bytes()))
        } else {
            find(&self.key)
        };
        found.map_or(&Rule::Skip, |(_, rule)| rule)
    }

    fn expected(&self, expected: &'static str) -> FrameError {
        FrameError::Syntax { offset: self.offset, expected }
    }
}

/// The rule for an element of an array, or for a member whose name does not matter.
fn child(rule: &'static Rule) -> &'static Rule {
    match rule {
        Rule::Each(each) => each,
        Rule::Members(_) | Rule::Keep | Rule::Skip => rule,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    const ROOMY: Limits = Limits { object: 1 << 20, kept: 1 << 20 };

    static SAMPLE: Rule = Rule::Members(&[
        ("keep", Rule::Keep),
        ("skip", Rule::Skip),
        ("list", Rule::Each(&Rule::Members(&[("id", Rule::Keep), ("more", Rule::Each(&Rule::Skip))]))),
        ("some", Rule::Members(&[("id", Rule::Keep), ("qu\"ote", Rule::Keep)])),
    ]);

    /// What a framer shall keep, decided on the parsed value.
    fn prune(value: &Value, rule: &'static Rule) -> Option<Value> {
        Some(match (rule, value) {
            (Rule::Skip, _) => return None,
            (Rule::Members(members), Value::Object(object)) => Value::Object(
                object
                    .iter()
                    .filter_map(|(name, value)| {
                        let (_, rule) = members.iter().find(|(listed, _)| listed == name)?;
                        Some((name.clone(), prune(value, rule)?))
                    })
                    .collect(),
            ),
            (Rule::Each(each), Value::Object(object)) => Value::Object(
                object.iter().filter_map(|(name, value)| Some((name.clone(), prune(value, each)?))).collect(),
            ),
            (Rule::Members(_), Value::Array(array)) => array.iter().filter_map(|value| prune(value, rule)).collect(),
            (Rule::Each(each), Value::Array(array)) => array.iter().filter_map(|value| prune(value, each)).collect(),
            (Rule::Keep | Rule::Members(_) | Rule::Each(_), value) => value.clone(),
        })
    }

    fn frames(framer: &mut Framer) -> Vec<Value> {
        std::iter::from_fn(|| framer.next().expect("frames")).map(|f| serde_json::from_slice(&f).unwrap()).collect()
    }

    fn cut(text: &[u8], rule: &'static Rule) -> Vec<Value> {
        let mut framer = Framer::new(rule, ROOMY);
        framer.push(text);
        frames(&mut framer)
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<i32>().prop_map(|n| Value::from(f64::from(n) / 8.0)),
            "[a-z{}\\[\\]\",:\\\\ \n\u{e9}]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                any_object(inner).prop_map(Value::from)
            ]
        })
    }

    fn any_object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
        let name = prop_oneof![
            prop::sample::select(vec!["keep", "skip", "list", "some", "id", "more", "qu\"ote"]).prop_map(str::to_owned),
            "[a-z\"\\\\{}]{0,4}",
        ];
        prop::collection::vec((name, inner), 0..6).prop_map(|members| members.into_iter().collect())
    }

    proptest! {
        #[test]
        fn any_split_gives_what_the_parser_sees_without_the_dropped_members(
            objects in prop::collection::vec(any_object(any_value()), 1..4),
            pretty in any::<bool>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut text = Vec::new();
            for object in &objects {
                if pretty {
                    serde_json::to_writer_pretty(&mut text, object).unwrap();
                } else {
                    serde_json::to_writer(&mut text, object).unwrap();
                }
                text.push(b'\n');
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.sort_unstable();
            cuts.push(text.len());
            let mut framer = Framer::new(&SAMPLE, ROOMY);
            let (mut from, mut seen) = (0, Vec::new());
            for to in cuts {
                framer.push(&text[from..to]);
                seen.extend(frames(&mut framer));
                from = to;
            }
            let expected: Vec<_> =
                objects.iter().map(|o| prune(&Value::Object(o.clone()), &SAMPLE).unwrap()).collect();
            prop_assert_eq!(seen, expected);
            prop_assert!(framer.is_idle());
            let whole: Vec<_> = objects.into_iter().map(Value::Object).collect();
            prop_assert_eq!(cut(&text, &Rule::Keep), whole);
        }

        #[test]
        fn never_panics_and_never_gives_more_than_it_got(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut framer = Framer::new(&SAMPLE, Limits { object: 64, kept: 64 });
            framer.push(b"{");
            framer.push(&text);
            let mut given = 0;
            while let Ok(Some(frame)) = framer.next() {
                given += frame.len();
            }
            prop_assert!(given <= text.len() + 1);
        }
    }

    #[test]
    fn two_objects_in_one_piece_and_one_over_three() {
        let mut framer = Framer::new(&Rule::Keep, ROOMY);
        framer.push(b"{\"State\":1}\n{\"State\":2}\n{\"Err");
        assert_eq!(frames(&mut framer), [json!({"State": 1}), json!({"State": 2})]);
        framer.push(b"Message\":\"a\\");
        assert_eq!(frames(&mut framer), Vec::<Value>::new());
        framer.push(b"\"}\"}");
        assert_eq!(frames(&mut framer), [json!({"ErrMessage": "a\"}"})]);
        assert!(framer.is_idle());
    }

    #[test]
    fn what_is_dropped_takes_no_memory() {
        let mut framer = Framer::new(&SAMPLE, Limits { object: 256 << 20, kept: 100 });
        framer.push(br#"{"keep":1,"skip":{"#);
        for _ in 0..10_000 {
            framer.push(br#""nodekey:0123456789abcdef":{"HostName":"peer","Tags":["tag:a","tag:b"]},"#);
        }
        assert!(framer.out.capacity() < 100 && framer.key.capacity() < 100, "{} bytes kept", framer.out.capacity());
        framer.push(br#""last":{}},"list":[{"id":7,"name":"x"}]}"#);
        assert_eq!(frames(&mut framer), [json!({"keep": 1, "list": [{"id": 7}]})]);
    }

    #[test]
    fn an_object_beyond_the_limit_is_refused_even_when_dropped() {
        let mut framer = Framer::new(&SAMPLE, Limits { object: 1000, kept: 100 });
        framer.push(br#"{"keep":1}{"skip":""#);
        framer.push(&[b'x'; 2000]);
        assert_eq!(framer.next(), Ok(Some(br#"{"keep":1}"#.to_vec())));
        assert_eq!(framer.next(), Err(FrameError::TooLarge { limit: 1000 }));
        framer.push(b"\"}{}");
        assert_eq!(framer.next(), Err(FrameError::TooLarge { limit: 1000 }), "the error stays");
    }

    #[test]
    fn what_is_kept_has_a_bound_of_its_own() {
        for text in [&br#"{"keep":"#[..], br#"{""#] {
            let mut framer = Framer::new(&SAMPLE, Limits { object: 1000, kept: 100 });
            framer.push(text);
            framer.push(&[b'1'; 200]);
            assert_eq!(framer.next(), Err(FrameError::TooLarge { limit: 100 }));
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, offset, expected) in [
            ("<html>", 0, "an object"),
            ("{\"keep\":1} null", 11, "an object"),
            ("{keep:1}", 1, "a member's name"),
            ("{\"keep\" 1}", 8, "a colon"),
            ("{\"keep\":}", 8, "a value"),
            ("{\"some\":{\"id\":1]}", 15, "a comma or the end of the object or array"),
            ("{\"keep\":1,}", 10, "a member's name"),
        ] {
            let mut framer = Framer::new(&SAMPLE, ROOMY);
            framer.push(text.as_bytes());
            let error = std::iter::repeat_with(|| framer.next()).find_map(Result::err);
            assert_eq!(error, Some(FrameError::Syntax { offset, expected }), "{text}");
        }
    }
}
