//! HuJSON as a tree whose values know where they stand in the text. Pure.
//!
//! For configs that people write: an error about a value can name its line and column, a key that is there twice is
//! there twice, and members stay in their order. Syntax is [`crate::hujson`]'s; this only builds.

use std::ops::Range;

use crate::hujson::{self, SyntaxError};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// Byte offset of its first character.
    pub offset: usize,
    /// The value.
    pub value: Value,
}

/// One JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number as it is written.
    Number(String),
    /// A string, its escapes resolved.
    Text(String),
    /// An array.
    List(Vec<Located>),
    /// An object: every member in its order, repeated names included.
    Object(Vec<Member>),
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Byte offset of its name's quotation mark.
    pub offset: usize,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Located,
}

/// A place in a text, both counted from 1; the column in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

impl Place {
    /// The place of the byte at `offset`.
    pub fn of(text: &str, offset: usize) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        Self { line: before.split(|byte| *byte == b'\n').count(), column: 1 + before.len() - line_start }
    }
}

impl Value {
    /// What it is, for an error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads a text.
///
/// # Errors
/// As [`hujson::standardize`].
pub fn parse(text: &str) -> Result<Located, SyntaxError> {
    let plain = hujson::standardize(text)?;
    // Offsets in the plain text are those of the original. It is valid and its depth bounded from here on.
    Ok(Parser { text: &plain, at: 0 }.value())
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    fn space(&mut self) {
        while self.peek().is_ascii_whitespace() {
            self.at += 1;
        }
    }

    /// Steps over `byte`, if it is next.
    fn takes(&mut self, byte: u8) -> bool {
        self.space();
        let is_next = self.peek() == byte;
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self) -> Located {
        self.space();
        let offset = self.at;
        let value = match self.peek() {
            b'{' => {
                self.at += 1;
                Value::Object(self.members())
            }
            b'[' => {
                self.at += 1;
                let mut list = Vec::new();
                while !self.takes(b']') {
                    list.push(self.value());
                    self.takes(b',');
                }
                Value::List(list)
            }
            b'"' => Value::Text(self.string()),
            _ => {
                let word = self.word();
                match &self.text[word] {
                    "null" | "" => Value::Null,
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    number => Value::Number(number.to_owned()),
                }
            }
        };
        Located { offset, value }
    }

    fn members(&mut self) -> Vec<Member> {
        let mut members = Vec::new();
        while !self.takes(b'}') {
            let offset = self.at;
            let name = self.string();
            self.takes(b':');
            members.push(Member { offset, name, value: self.value() });
            self.takes(b',');
        }
        members
    }

    fn string(&mut self) -> String {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        serde_json::from_str(&self.text[start..self.at]).expect("the scanner has found it to be a JSON string")
    }

    fn word(&mut self) -> Range<usize> {
        let start = self.at;
        while !matches!(self.peek(), b',' | b']' | b'}' | 0) && !self.peek().is_ascii_whitespace() {
            self.at += 1;
        }
        start..self.at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Forgets the places and keeps the last of equal names, as serde_json does.
    fn plain(located: &Located) -> serde_json::Value {
        match &located.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(bool) => (*bool).into(),
            Value::Number(number) => serde_json::from_str(number).unwrap(),
            Value::Text(text) => text.as_str().into(),
            Value::List(list) => list.iter().map(plain).collect(),
            Value::Object(members) => {
                members.iter().map(|member| (member.name.clone(), plain(&member.value))).collect()
            }
        }
    }

    #[test]
    fn values_know_their_place_and_names_may_repeat() {
        let text = "{\n  // said twice\n  \"a\": [1, true,],\n  \"a\" : \"\\u0041\\\"\"\n}";
        let Value::Object(members) = parse(text).unwrap().value else { panic!("an object") };
        let places: Vec<_> = members
            .iter()
            .map(|member| {
                (Place::of(text, member.offset).to_string(), Place::of(text, member.value.offset).to_string())
            })
            .collect();
        assert_eq!(
            places,
            [
                ("line 3, column 3".to_owned(), "line 3, column 8".to_owned()),
                ("line 4, column 3".to_owned(), "line 4, column 9".to_owned())
            ]
        );
        assert_eq!(members[1].value.value, Value::Text("A\"".to_owned()));
        assert_eq!(Place::of("ab", 99), Place { line: 1, column: 3 });
    }

    #[test]
    fn a_syntax_error_is_the_scanners() {
        assert_eq!(parse("{\"a\"}").unwrap_err().to_string(), "line 1, column 5: unexpected '}' after a member name");
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_document_is_the_same_in_both_readings(value in json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            prop_assert_eq!(plain(&parse(&text).unwrap()), value);
        }

        #[test]
        fn no_text_makes_it_panic(text in r#"[\[\]{}:,"/*\\ \n0-9a-fntrulse.+é-]{0,40}"#) {
            let _ = parse(&text);
        }
    }
}
