//! YAML as people write it: documents in a given order of keys, to text. Pure.
//!
//! Only writing, and only what Kubernetes manifests are made of. Text that another parser could take for something
//! else is quoted as JSON, which YAML contains.

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Yaml {
    /// A string; several lines become a block.
    Text(String),
    /// A number.
    Number(i64),
    /// A truth value.
    Bool(bool),
    /// A list, one item on each line.
    List(Vec<Yaml>),
    /// A list of words on one line.
    Words(Vec<String>),
    /// A map; keys keep their order.
    Map(Vec<(String, Yaml)>),
}

impl From<&str> for Yaml {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Yaml {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Yaml {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u32> for Yaml {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// A map of these entries.
pub fn map<const N: usize>(entries: [(&str, Yaml); N]) -> Yaml {
    Yaml::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// A list of words on one line.
pub fn words<T: Into<String>>(list: impl IntoIterator<Item = T>) -> Yaml {
    Yaml::Words(list.into_iter().map(Into::into).collect())
}

/// Documents as one stream.
pub fn stream(documents: &[Yaml]) -> String {
    documents.iter().map(document).collect::<Vec<_>>().join("---\n")
}

/// One document, ending in a line break.
pub fn document(value: &Yaml) -> String {
    let mut out = String::new();
    block(&mut out, value, 0);
    out
}

/// A value that starts at the beginning of a line.
fn block(out: &mut String, value: &Yaml, indent: usize) {
    match value {
        Yaml::Map(entries) if !entries.is_empty() => {
            for (at, (key, value)) in entries.iter().enumerate() {
                // The first entry of an item stands behind the item's dash.
                if at > 0 || !out.ends_with("- ") {
                    out.push_str(&" ".repeat(indent));
                }
                out.push_str(&scalar(key));
                out.push(':');
                after_key(out, value, indent);
            }
        }
        Yaml::List(items) if !items.is_empty() => {
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push_str("- ");
                match item {
                    Yaml::Map(entries) if !entries.is_empty() => block(out, item, indent + 2),
                    _ => {
                        out.push_str(&inline(item));
                        out.push('\n');
                    }
                }
            }
        }
        other => {
            out.push_str(&inline(other));
            out.push('\n');
        }
    }
}

fn after_key(out: &mut String, value: &Yaml, indent: usize) {
    match value {
        Yaml::Map(entries) if !entries.is_empty() => {
            out.push('\n');
            block(out, value, indent + 2);
        }
        Yaml::List(items) if !items.is_empty() => {
            out.push('\n');
            block(out, value, indent + 2);
        }
        Yaml::Text(text) if text.ends_with('\n') && !text.starts_with([' ', '\n']) => {
            out.push_str(" |\n");
            for line in text.lines() {
                if !line.is_empty() {
                    out.push_str(&" ".repeat(indent + 2));
                }
                out.push_str(line);
                out.push('\n');
            }
        }
        other => {
            out.push(' ');
            out.push_str(&inline(other));
            out.push('\n');
        }
    }
}

fn inline(value: &Yaml) -> String {
    match value {
        Yaml::Text(text) => scalar(text),
        Yaml::Number(number) => number.to_string(),
        Yaml::Bool(value) => value.to_string(),
        Yaml::Words(list) => format!("[{}]", list.iter().map(|word| flow(word)).collect::<Vec<_>>().join(", ")),
        // Only empty ones come here.
        Yaml::List(_) => "[]".to_owned(),
        Yaml::Map(_) => "{}".to_owned(),
    }
}

/// In a flow list everything is quoted, as `kubectl` users write it.
fn flow(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { flow(text) }
}

/// Whether every YAML parser takes it for a string.
fn is_plain(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '/';
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    let reserved = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf"];
    text.starts_with(first) && text.chars().all(inner) && !reserved.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_something_else_is_quoted() {
        for (text, expected) in [
            ("tailpod", "tailpod"),
            ("tailpod-0.state", "tailpod-0.state"),
            ("/tmp", "/tmp"),
            ("true", "\"true\""),
            ("No", "\"No\""),
            ("1e5", "\"1e5\""),
            ("0", "\"0\""),
            ("", "\"\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("example.com/x:1", "\"example.com/x:1\""),
            ("$(POD_NAME)", "\"$(POD_NAME)\""),
            ("x\ny", "\"x\\ny\""),
            ("-", "\"-\""),
            ("~", "\"~\""),
        ] {
            assert_eq!(scalar(text), expected);
        }
    }

    #[test]
    fn maps_and_lists_nest() {
        let value = map([
            ("a", map([("b", words(["x", "y"])), ("c", Yaml::List(vec![map([("d", 1.into()), ("e", true.into())])]))])),
            ("f", Yaml::List(vec!["g".into(), Yaml::Map(Vec::new())])),
            ("h", Yaml::List(Vec::new())),
            ("i", "one\n\n  two\n".into()),
        ]);
        let text = "a:\n  b: [\"x\", \"y\"]\n  c:\n    - d: 1\n      e: true\nf:\n  - g\n  - {}\nh: []\ni: |\n  one\n\n    two\n";
        assert_eq!(document(&value), text);
        assert_eq!(stream(&[map([("a", 1.into())]), map([("b", 2.into())])]), "a: 1\n---\nb: 2\n");
    }
}
