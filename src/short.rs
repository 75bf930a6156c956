//! Text from other people at a length that a log line and a person can bear. Pure.
//!
//! A path or a name in a request may be a megabyte, and would stand in each log line and answer that speaks of it.

use std::borrow::Cow;

/// Characters of a name, a path, a value.
const NAME: usize = 256;
/// Characters of a message, in which several of them may stand.
const MESSAGE: usize = 4 * NAME;

/// A name, a path or a value; what is too long ends in `…`.
pub fn name(text: &str) -> Cow<'_, str> {
    cut(text, NAME)
}

/// A whole message; what is too long ends in `…`.
pub fn message(text: &str) -> Cow<'_, str> {
    cut(text, MESSAGE)
}

fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        for text in ["", "pods", &"é".repeat(NAME)] {
            assert!(matches!(name(text), Cow::Borrowed(same) if same == text));
        }
        assert_eq!(name(&"é".repeat(NAME + 1)), "é".repeat(NAME) + "…");
        assert_eq!(message(&"x".repeat(1 << 20)).chars().count(), MESSAGE + 1);
    }
}
