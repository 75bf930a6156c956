//! What a list asks for: the parts of `ListOptions` that decide a request's verb and name. Pure.
//!
//! Follows `k8s.io/apimachinery`, `pkg/fields/selector.go` and the conversions of `pkg/apis/meta/v1`; recording.md 9.
//! The syntax of label selectors is not checked: it would only matter for the name in the event of a malformed request.

use std::borrow::Cow;

use super::query;

/// The parts of `ListOptions` that count here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ListOptions {
    /// Whether it is a watch.
    pub(super) is_watch: bool,
    /// The only object that can match, if the field selector says so.
    pub(super) name: Option<String>,
}

/// Reads them from a query.
///
/// An option that cannot be read makes Kubernetes forget all of them but the watch.
pub(super) fn list_options(query: &[u8]) -> ListOptions {
    let watch = query::first(query, "watch");
    let broken =
        ["limit", "timeoutSeconds"].iter().any(|name| query::first(query, name).is_some_and(|v| !is_int64(&v)));
    let selector = query::first(query, "fieldSelector").unwrap_or_default();
    let selected = if broken { None } else { exact_name(&String::from_utf8_lossy(&selector)).ok() };
    match selected {
        Some(name) => ListOptions {
            is_watch: watch.is_some_and(|value| is_true(&value, Fold::Unicode)),
            name: name.filter(|name| is_segment(name)),
        },
        None => ListOptions { is_watch: watch.is_some_and(|value| is_true(&value, Fold::Ascii)), name: None },
    }
}

/// How Kubernetes compares with `false`: its two places differ.
#[derive(Clone, Copy)]
enum Fold {
    /// `strings.EqualFold`, for which `ſ` is an `s`.
    Unicode,
    /// `strings.ToLower`
    Ascii,
}

/// kube-apiserver's booleans: anything but `0` and `false` is true, even nothing.
fn is_true(value: &[u8], fold: Fold) -> bool {
    let text = String::from_utf8_lossy(value);
    let text = match fold {
        Fold::Unicode => text.replace('\u{17f}', "s"),
        Fold::Ascii => text.into_owned(),
    };
    !(text == "0" || text.eq_ignore_ascii_case("false"))
}

/// Go's `strconv.ParseInt` in base 10.
fn is_int64(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<i64>().is_ok())
}

/// A name that can stand in a path.
fn is_segment(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.contains(['/', '%'])
}

/// A selector that Kubernetes cannot parse.
#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// The value that a field selector demands of `metadata.name`, if it does.
fn exact_name(selector: &str) -> Result<Option<String>, Malformed> {
    let mut terms = terms(selector);
    terms.sort_unstable();
    let mut name = None;
    for term in terms.into_iter().filter(|term| !term.is_empty()) {
        let (field, operator, value) = split_term(term).ok_or(Malformed)?;
        let value = unescape(value)?;
        if operator != "!=" && field == "metadata.name" && name.is_none() {
            name = Some(value.into_owned());
        }
    }
    Ok(name)
}

/// Split at commas that no backslash precedes.
fn terms(selector: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    let mut is_escaped = false;
    for (at, char) in selector.char_indices() {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => {
                terms.push(&selector[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&selector[start..]);
    terms
}

/// Field, operator and value, split at the first operator.
fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    term.char_indices().find_map(|(at, _)| {
        let operator = ["!=", "==", "="].into_iter().find(|operator| term[at..].starts_with(operator))?;
        Some((&term[..at], operator, &term[at + operator.len()..]))
    })
}

/// A value without its backslashes.
fn unescape(value: &str) -> Result<Cow<'_, str>, Malformed> {
    if !value.contains(['\\', ',', '=']) {
        return Ok(Cow::Borrowed(value));
    }
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => plain.push(chars.next().filter(|next| ['\\', ',', '='].contains(next)).ok_or(Malformed)?),
            ',' | '=' => return Err(Malformed),
            char => plain.push(char),
        }
    }
    Ok(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors() {
        for (selector, expected) in [
            ("", Ok(None)),
            ("metadata.name=n", Ok(Some("n"))),
            ("metadata.name==n", Ok(Some("n"))),
            ("metadata.name!=n", Ok(None)),
            ("a=b,metadata.name=n,", Ok(Some("n"))),
            // Terms are sorted before the first one is taken.
            ("metadata.name=z,metadata.name=a", Ok(Some("a"))),
            ("metadata.name=", Ok(Some(""))),
            (r"metadata.name=a\,b\=c\\", Ok(Some(r"a,b=c\"))),
            (r"metadata.name=a\b", Err(Malformed)),
            (r"metadata.name=a\", Err(Malformed)),
            ("metadata.name=a=b", Err(Malformed)),
            ("metadata.name", Err(Malformed)),
            ("metadata.name=n,broken", Err(Malformed)),
            ("metadata.name =n", Ok(None)),
        ] {
            assert_eq!(exact_name(selector), expected.map(|name| name.map(ToOwned::to_owned)), "{selector}");
        }
    }

    #[test]
    fn one_broken_option_spoils_all_but_the_watch() {
        for (query, is_watch, name) in [
            ("", false, None),
            ("watch", true, None),
            ("watch=0", false, None),
            ("watch=FALSE", false, None),
            ("watch=no", true, None),
            ("watch=false&watch=true", false, None),
            ("watch=1&fieldSelector=metadata.name%3Dn", true, Some("n")),
            ("limit=5&fieldSelector=metadata.name%3Dn", false, Some("n")),
            ("limit=x&watch=1&fieldSelector=metadata.name%3Dn", true, None),
            ("timeoutSeconds=&fieldSelector=metadata.name%3Dn", false, None),
            ("limit=9223372036854775808&fieldSelector=metadata.name%3Dn", false, None),
            ("limit=%2B5&fieldSelector=metadata.name%3Dn", false, Some("n")),
            ("fieldSelector=metadata.name%3D..", false, None),
            ("fieldSelector=metadata.name%3Da%2Fb", false, None),
            ("watch=fal%C5%BFe", false, None),
            ("watch=fal%C5%BFe&limit=x", true, None),
        ] {
            let expected = ListOptions { is_watch, name: name.map(ToOwned::to_owned) };
            assert_eq!(list_options(query.as_bytes()), expected, "{query}");
        }
    }
}
