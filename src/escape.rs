//! Makes text from other people safe for a terminal. Pure.
//!
//! Node names, DNS labels and error texts come from outside. A control character in them could move the cursor or
//! recolour the screen, and a bidirectional override could make a name read as another one; both are shown as
//! Rust-style escapes instead. Line feeds and tabs stay: they are layout, and some of boot's log lines have them.

use std::borrow::Cow;

/// `text` with control and bidirectional formatting characters written as `\u{…}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if is_unsafe(char) {
            safe.extend(char.escape_default());
        } else {
            safe.push(char);
        }
    }
    Cow::Owned(safe)
}

fn is_unsafe(char: char) -> bool {
    match char {
        '\n' | '\t' => false,
        // The characters of Unicode's bidirectional algorithm that change the direction of what follows, and the
        // separators (2028, 2029) that end a line for some terminals and log collectors.
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_text_is_not_copied() {
        for text in ["", "node-1.tail.ts.net.", "zwei\n\tZeilen", "größer → kleiner", "名前"] {
            assert!(matches!(escape(text), Cow::Borrowed(same) if same == text), "{text:?}");
        }
    }

    #[test]
    fn control_and_bidi_characters_are_spelled_out() {
        let cases = [
            ("\x1b[31mred", "\\u{1b}[31mred"),
            ("a\rb", "a\\rb"),
            ("bell\x07", "bell\\u{7}"),
            ("c1\u{9b}31m", "c1\\u{9b}31m"),
            ("evil\u{202e}txt.exe", "evil\\u{202e}txt.exe"),
            ("two\u{2028}lines", "two\\u{2028}lines"),
        ];
        for (text, safe) in cases {
            assert_eq!(escape(text), safe);
        }
    }
}
