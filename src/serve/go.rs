//! Go's reading of JSON objects: names of any case, `null` for nothing. Pure.

use serde_json::Value;

/// The member of that name: spelled exactly so, else whatever the case of its ASCII letters.
pub fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    let found = object
        .get(name)
        .or_else(|| object.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

/// The members of an object; none of anything else.
pub fn object(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_exact_spelling_wins() {
        assert_eq!(member(&json!({"tcp": 1, "TCP": 2}), "TCP"), Some(&json!(2)));
        assert_eq!(member(&json!({"tcp": 1}), "TCP"), Some(&json!(1)));
        assert_eq!(member(&json!({"TCP": null}), "TCP"), None);
        assert_eq!(member(&json!([]), "TCP"), None);
        assert_eq!(object(Some(&json!(7))).count(), 0);
    }
}
