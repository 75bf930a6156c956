//! HuJSON, which is JSON with comments and trailing commas, made plain JSON. Pure.
//!
//! [`standardize`] is strict: what it returns is one valid JSON value of the same length, in which comments and
//! trailing commas are spaces, so that an offset, line or column in the result is the same place in the original.
//! It follows the documented rules of HuJSON (`nigeltao.github.io/blog/2021/json-with-commas-comments.html`), never
//! recurses and never panics.

/// Nesting deeper than this is refused; `serde_json` stops at 128.
pub const MAX_DEPTH: usize = 100;

/// How much of a word that is no value is shown, in bytes.
const SHOWN: usize = 8;

/// Where and why a text is not HuJSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub struct SyntaxError {
    /// Byte offset of the trouble.
    pub offset: usize,
    /// Its line, from 1.
    pub line: usize,
    /// Its column in bytes, from 1.
    pub column: usize,
    /// What is wrong.
    pub reason: String,
}

/// The same text as plain JSON, byte for byte in the same place.
///
/// # Panics
/// Never: only whole characters are replaced.
pub fn standardize(text: &str) -> Result<String, SyntaxError> {
    let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, blanks: Vec::new() };
    match scanner.document() {
        Ok(()) => {
            let mut out = text.as_bytes().to_vec();
            for range in scanner.blanks {
                for byte in &mut out[range] {
                    if *byte != b'\n' && *byte != b'\r' {
                        *byte = b' ';
                    }
                }
            }
            // Blanked ranges are whole comments or single commas, so no character is cut in two.
            Ok(String::from_utf8(out).expect("whole characters were replaced by spaces"))
        }
        Err((offset, reason)) => {
            let before = &text.as_bytes()[..offset];
            let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
            let line = before.split(|b| *b == b'\n').count();
            Err(SyntaxError { offset, line, column: 1 + offset - line_start, reason })
        }
    }
}

/// An offset and what is wrong there.
type Fault = (usize, String);

struct Scanner<'t> {
    bytes: &'t [u8],
    at: usize,
    /// What becomes spaces.
    blanks: Vec<std::ops::Range<usize>>,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// A value.
    Value,
    /// A value, or the end of the array.
    ValueOrEnd,
    /// A member name, or the end of the object.
    NameOrEnd,
    /// A comma, or the end of the innermost container.
    CommaOrEnd,
}

impl Scanner<'_> {
    /// One value with nothing but space around it.
    fn document(&mut self) -> Result<(), Fault> {
        // The closing bracket of each open container.
        let mut open: Vec<u8> = Vec::new();
        let mut expect = Expect::Value;
        let mut comma: Option<usize> = None;
        loop {
            self.space()?;
            if expect == Expect::CommaOrEnd && open.is_empty() {
                return match self.peek() {
                    None => Ok(()),
                    Some(_) => Err(self.unexpected("after the value")),
                };
            }
            let Some(byte) = self.peek() else {
                return Err((self.at, "unexpected end".to_owned()));
            };
            let may_end = matches!(expect, Expect::ValueOrEnd | Expect::NameOrEnd | Expect::CommaOrEnd);
            if may_end && open.last() == Some(&byte) {
                if let Some(trailing) = comma.take() {
                    self.blanks.push(trailing..trailing + 1);
                }
                self.at += 1;
                open.pop();
                expect = Expect::CommaOrEnd;
                continue;
            }
            match expect {
                Expect::CommaOrEnd => {
                    let object = open.last() == Some(&b'}');
                    if byte != b',' {
                        let place = if object { "after an object member" } else { "after an array element" };
                        return Err(self.unexpected(place));
                    }
                    comma = Some(self.at);
                    self.at += 1;
                    expect = if object { Expect::NameOrEnd } else { Expect::ValueOrEnd };
                    continue;
                }
                Expect::NameOrEnd => {
                    if byte != b'"' {
                        return Err(self.unexpected("where a member name was expected"));
                    }
                    self.string()?;
                    self.space()?;
                    if self.peek() != Some(b':') {
                        return Err(self.unexpected("after a member name"));
                    }
                    self.at += 1;
                    expect = Expect::Value;
                }
                Expect::Value | Expect::ValueOrEnd => match byte {
                    b'{' | b'[' => {
                        if open.len() == MAX_DEPTH {
                            return Err((self.at, format!("nested deeper than {MAX_DEPTH}")));
                        }
                        let object = byte == b'{';
                        open.push(if object { b'}' } else { b']' });
                        expect = if object { Expect::NameOrEnd } else { Expect::ValueOrEnd };
                        self.at += 1;
                    }
                    b'"' => {
                        self.string()?;
                        expect = Expect::CommaOrEnd;
                    }
                    _ => {
                        self.literal()?;
                        expect = Expect::CommaOrEnd;
                    }
                },
            }
            comma = None;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The fault that the next character is not wanted.
    fn unexpected(&self, place: &str) -> Fault {
        let rest = std::str::from_utf8(&self.bytes[self.at..]).unwrap_or_default();
        let reason = match rest.chars().next() {
            Some(c) => format!("unexpected {c:?} {place}"),
            None => format!("unexpected end {place}"),
        };
        (self.at, reason)
    }

    /// Skips white space and comments, and remembers the comments.
    fn space(&mut self) -> Result<(), Fault> {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'/' => {
                    let start = self.at;
                    let rest = &self.bytes[start..];
                    let length = if rest.starts_with(b"//") {
                        // tailscaled refuses a line comment that ends with the text instead of the line.
                        rest.iter().position(|b| *b == b'\n')
                    } else if rest.starts_with(b"/*") {
                        rest[2..].windows(2).position(|pair| pair == b"*/").map(|end| end + 4)
                    } else {
                        return Ok(());
                    };
                    self.at += length.ok_or_else(|| (start, "comment without an end".to_owned()))?;
                    self.blanks.push(start..self.at);
                }
                _ => break,
            }
        }
        Ok(())
    }

    /// A string with its escapes.
    fn string(&mut self) -> Result<(), Fault> {
        let start = self.at;
        self.at += 1;
        loop {
            let Some(byte) = self.peek() else { return Err((start, "string without an end".to_owned())) };
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape(start)?,
                0..=0x1f => return Err((self.at, "control character in a string".to_owned())),
                _ => self.at += 1,
            }
        }
    }

    /// A backslash and what belongs to it; surrogates must come in pairs, as serde_json wants them.
    fn escape(&mut self, start: usize) -> Result<(), Fault> {
        match self.bytes.get(self.at + 1) {
            None => Err((start, "string without an end".to_owned())),
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let lonely = (self.at, "half of a surrogate pair in a string".to_owned());
                match self.hex()? {
                    0xDC00..=0xDFFF => Err(lonely),
                    0xD800..=0xDBFF if !self.bytes[self.at..].starts_with(b"\\u") => Err(lonely),
                    0xD800..=0xDBFF => match self.hex()? {
                        0xDC00..=0xDFFF => Ok(()),
                        _ => Err(lonely),
                    },
                    _ => Ok(()),
                }
            }
            Some(_) => Err((self.at, "unknown escape in a string".to_owned())),
        }
    }

    /// `\uXXXX`
    fn hex(&mut self) -> Result<u32, Fault> {
        let digits = self.bytes.get(self.at + 2..self.at + 6).and_then(|digits| std::str::from_utf8(digits).ok());
        let value = digits
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or_else(|| (self.at, "\\u needs four hexadecimal digits".to_owned()))?;
        self.at += 6;
        Ok(value)
    }

    /// A number, `true`, `false` or `null`.
    fn literal(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let length = self.bytes[start..]
            .iter()
            .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.')))
            .unwrap_or(self.bytes.len() - start);
        let word = &self.bytes[start..start + length];
        match word {
            b"" => Err(self.unexpected("where a value was expected")),
            b"true" | b"false" | b"null" => {
                self.at += length;
                Ok(())
            }
            word if is_number(word) => {
                self.at += length;
                Ok(())
            }
            word => Err((start, format!("{:?} is not a value", shortened(word)))),
        }
    }
}

/// The beginning of a word that is no value: enough to find it, too little to give away a key without its quotes.
fn shortened(word: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&word[..word.len().min(SHOWN)]);
    if word.len() > SHOWN { format!("{shown}…") } else { shown.into_owned() }
}

/// JSON's grammar of numbers.
fn is_number(word: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let unsigned = word.strip_prefix(b"-").unwrap_or(word);
    let (whole, mut rest) = unsigned.split_at(digits(unsigned));
    if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return false;
    }
    if let Some(after) = rest.strip_prefix(b".") {
        let count = digits(after);
        if count == 0 {
            return false;
        }
        rest = &after[count..];
    }
    if let Some(after) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let after = after.strip_prefix(b"+").or_else(|| after.strip_prefix(b"-")).unwrap_or(after);
        return !after.is_empty() && after.iter().all(u8::is_ascii_digit);
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn comments_and_trailing_commas_become_spaces() {
        for (given, plain) in [
            ("{}", "{}"),
            ("[1, 2,]", "[1, 2 ]"),
            ("{\"a\": 1,}", "{\"a\": 1 }"),
            ("{\"a\": [1,/*x*/], // é\n}", "{\"a\": [1      ]       \n}"),
            ("// only\n7", "       \n7"),
            ("7 // é\n", "7      \n"),
            ("{\"//\": \"/* , */\"}", "{\"//\": \"/* , */\"}"),
            (" null ", " null "),
        ] {
            assert_eq!(standardize(given).as_deref(), Ok(plain));
            assert_eq!(given.len(), plain.len());
        }
    }

    #[test]
    fn errors_name_the_place() {
        for (given, text) in [
            ("", "line 1, column 1: unexpected end"),
            ("{\n  \"a\": 1\n  \"b\": 2}", "line 3, column 3: unexpected '\"' after an object member"),
            ("{\"a\"", "line 1, column 5: unexpected end after a member name"),
            ("{\"a\": \"b", "line 1, column 7: string without an end"),
            ("{} x", "line 1, column 4: unexpected 'x' after the value"),
            ("[,]", "line 1, column 2: unexpected ',' where a value was expected"),
            ("[1,,]", "line 1, column 4: unexpected ',' where a value was expected"),
            ("{,}", "line 1, column 2: unexpected ',' where a member name was expected"),
            ("[1}", "line 1, column 3: unexpected '}' after an array element"),
            ("{\"a\":}", "line 1, column 6: unexpected '}' where a value was expected"),
            ("nul", "line 1, column 1: \"nul\" is not a value"),
            ("{\"a\": tskey-auth-kX-y}", "line 1, column 7: \"tskey-au…\" is not a value"),
            ("01", "line 1, column 1: \"01\" is not a value"),
            ("/* x", "line 1, column 1: comment without an end"),
            ("/*/", "line 1, column 1: comment without an end"),
            ("7 // the text ends here", "line 1, column 3: comment without an end"),
            ("/ 1", "line 1, column 1: unexpected '/' where a value was expected"),
            ("\"\\x\"", "line 1, column 2: unknown escape in a string"),
            ("\"\\ud800\"", "line 1, column 2: half of a surrogate pair in a string"),
            ("\"a\nb\"", "line 1, column 3: control character in a string"),
            ("\u{feff}{}", "line 1, column 1: unexpected '\\u{feff}' where a value was expected"),
        ] {
            assert_eq!(standardize(given).expect_err(given).to_string(), text, "{given}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_without_recursion() {
        let deep = "[".repeat(1_000_000);
        assert_eq!(standardize(&deep).expect_err("too deep").offset, MAX_DEPTH);
        let fine = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!(standardize(&fine).as_deref(), Ok(fine.as_str()));
    }

    /// Any JSON document, as text.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<bool>().prop_map(|b| b.to_string()),
            any::<i32>().prop_map(|n| n.to_string()),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(|n| serde_json::json!(n).to_string()),
            any::<String>().prop_map(|s| serde_json::json!(s).to_string()),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|list| format!("[{}]", list.join(","))),
                proptest::collection::vec((any::<String>(), inner), 0..4).prop_map(|list| {
                    let members: Vec<_> = list.iter().map(|(k, v)| format!("{}:{v}", serde_json::json!(k))).collect();
                    format!("{{{}}}", members.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_left_as_it_is(text in json()) {
            prop_assert_eq!(standardize(&text), Ok(text));
        }

        #[test]
        fn any_text_keeps_its_length_and_becomes_json_or_an_error(
            text in r#"[\[\]{}:,"/*\\ \n0-9a-fntrulse.+é-]{0,40}"#,
        ) {
            match standardize(&text) {
                Ok(plain) => {
                    prop_assert_eq!(plain.len(), text.len());
                    prop_assert!(serde_json::from_str::<serde_json::Value>(&plain).is_ok()
                        || plain.contains(['e', 'E']), "{:?}", plain);
                    for (at, (new, old)) in plain.bytes().zip(text.bytes()).enumerate() {
                        prop_assert!(new == old || new == b' ', "byte {} of {:?}", at, text);
                    }
                }
                Err(error) => {
                    prop_assert!(error.offset <= text.len());
                    // serde_json accepts nothing that we refuse.
                    prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_err(), "{:?}", text);
                }
            }
        }
    }
}
