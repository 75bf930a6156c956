//! Field and label selectors. Pure.
//!
//! Field selectors know `=`, `==` and `!=`; label selectors also know sets and existence, as upstream's
//! `apimachinery/pkg/labels` does.

use serde_json::Value;

use super::resources::Resource;
use super::status::Status;

/// What a list or watch is restricted to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    fields: Vec<Field>,
    labels: Vec<Label>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    path: String,
    value: String,
    negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Label {
    In { key: String, values: Vec<String> },
    NotIn { key: String, values: Vec<String> },
    Exists(String),
    Absent(String),
}

impl Selector {
    /// Reads both selectors; empty text selects everything.
    ///
    /// # Errors
    /// 400 for one that cannot be read, or names a field that cannot be selected by.
    pub fn parse(resource: &Resource, fields: &str, labels: &str) -> Result<Self, Status> {
        let fields = fields.split(',').filter(|part| !part.is_empty()).map(|part| field(resource, part));
        let labels =
            split_outside_parentheses(labels).into_iter().filter(|part| !part.is_empty()).map(|part| label(&part));
        Ok(Self { fields: fields.collect::<Result<_, _>>()?, labels: labels.collect::<Result<_, _>>()? })
    }

    /// The one name that is selected, if it is one: `metadata.name=x`. Authorization goes by it.
    pub fn name(&self) -> Option<&str> {
        self.fields.iter().find(|f| f.path == "metadata.name" && !f.negated).map(|f| f.value.as_str())
    }

    /// Whether `object` is selected.
    pub fn matches(&self, object: &Value) -> bool {
        let field = |field: &Field| {
            let pointer = format!("/{}", field.path.replace('.', "/"));
            let value = object.pointer(&pointer).and_then(Value::as_str).unwrap_or_default();
            (value == field.value) != field.negated
        };
        let label = |label: &Label| {
            let value = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
            match label {
                Label::In { key, values } => value(key).is_some_and(|value| values.iter().any(|v| v == value)),
                Label::NotIn { key, values } => value(key).is_none_or(|value| values.iter().all(|v| v != value)),
                Label::Exists(key) => value(key).is_some(),
                Label::Absent(key) => value(key).is_none(),
            }
        };
        self.fields.iter().all(field) && self.labels.iter().all(label)
    }
}

fn field(resource: &Resource, part: &str) -> Result<Field, Status> {
    let (path, value, negated) = match part.split_once("!=") {
        Some((path, value)) => (path, value, true),
        None => match part.split_once('=') {
            Some((path, value)) => (path, value.strip_prefix('=').unwrap_or(value), false),
            None => return Err(Status::bad_request(format!("invalid selector: '{part}'; can't understand '{part}'"))),
        },
    };
    let known = ["metadata.name", "metadata.namespace"].contains(&path) || resource.selectable.contains(&path);
    if !known {
        return Err(Status::bad_request(format!("field label not supported: {path}")));
    }
    Ok(Field { path: path.to_owned(), value: value.to_owned(), negated })
}

fn label(part: &str) -> Result<Label, Status> {
    let part = part.trim();
    let owned = |text: &str| text.trim().to_owned();
    let values = |list: &str| {
        let list = list.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(list.split(',').map(owned).collect::<Vec<_>>())
    };
    let bad = || Status::bad_request(format!("unable to parse requirement: {part}"));
    if let Some((key, list)) = part.split_once(" notin ") {
        return Ok(Label::NotIn { key: owned(key), values: values(list).ok_or_else(bad)? });
    }
    if let Some((key, list)) = part.split_once(" in ") {
        return Ok(Label::In { key: owned(key), values: values(list).ok_or_else(bad)? });
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Label::NotIn { key: owned(key), values: vec![owned(value)] });
    }
    if let Some((key, value)) = part.split_once('=') {
        return Ok(Label::In { key: owned(key), values: vec![owned(value.strip_prefix('=').unwrap_or(value))] });
    }
    match part.strip_prefix('!') {
        Some(key) => Ok(Label::Absent(owned(key))),
        None if part.contains(|c: char| c.is_whitespace() || "()".contains(c)) => Err(bad()),
        None => Ok(Label::Exists(owned(part))),
    }
}

fn split_outside_parentheses(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0_u32;
    for c in text.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_select() {
        let object = json!({
            "metadata": {"name": "x", "namespace": "ns", "labels": {"app": "ts", "tier": "a"}}, "type": "Opaque",
        });
        for (fields, labels, expected) in [
            ("", "", true),
            ("metadata.name=x", "", true),
            ("metadata.name==y", "", false),
            ("metadata.name!=y,metadata.namespace=ns", "", true),
            ("type=Opaque", "", true),
            ("type!=Opaque", "", false),
            ("", "app=ts", true),
            ("", "app==ts,tier!=b", true),
            ("", "app", true),
            ("", "!app", false),
            ("", "gone", false),
            ("", "!gone", true),
            ("", "gone!=a", true),
            ("", "app in (a, ts),tier notin (b,c)", true),
            ("", "app in (a,b)", false),
        ] {
            let selector = Selector::parse(Resource::secrets(), fields, labels).unwrap();
            assert_eq!(selector.matches(&object), expected, "{fields} {labels}");
        }
        let selector = Selector::parse(Resource::secrets(), "metadata.name=x", "").unwrap();
        assert_eq!(selector.name(), Some("x"));
        for (fields, labels) in [("data=x", ""), ("metadata.name", ""), ("", "app in a,b"), ("", "a b")] {
            assert_eq!(
                Selector::parse(Resource::secrets(), fields, labels).unwrap_err().code,
                400,
                "{fields} {labels}"
            );
        }
    }
}
