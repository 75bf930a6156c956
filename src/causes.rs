//! An error with its causes, in one line. Pure.

use std::error::Error;

/// The error's message and that of each cause below it, `outer: inner: innermost`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_told_once_each() {
        assert_eq!(chain(&Outer(std::io::Error::other("no key"))), "cannot open the door: no key");
        assert_eq!(chain(&std::io::Error::other("no socket")), "no socket");
    }
}
