//! An auth key out of a config file, or out of a text that holds nothing else.

use std::path::Path;

use crate::secret::Secret;
use crate::settings::conffile;

/// The auth key of the tailscaled config file at `path`; `None` when the file cannot be read, is no such config, or
/// has no key. Upstream's `AuthKeyFromConfig`, whose empty text is our `None`; members that this build does not know
/// do not matter here. Reads the file on this thread: it is expected to be small and near.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("cap-95.hujson");
/// std::fs::write(&path, "// HuJSON\n{\"version\": \"alpha0\", \"AuthKey\": \"tskey-auth-kX-y\",}").unwrap();
/// let key = tailpod::authkey::key_from_config(&path).unwrap();
/// assert_eq!(key.expose(), "tskey-auth-kX-y");
///
/// std::fs::write(&path, "{\"version\": \"alp").unwrap();
/// assert_eq!(tailpod::authkey::key_from_config(&path), None, "truncated: no key yet");
/// ```
pub fn key_from_config(path: &Path) -> Option<Secret<String>> {
    conffile::auth_key_from(path)
}

/// A text is not one auth key. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it holds something else than one auth key on one line")]
pub struct NotOneKey;

/// The key in the content of a key file, or of a pipe; `None` when there is only white space. Any text without white
/// space and control characters is taken for a key: what control accepts is control's to say. Pure.
///
/// # Errors
/// [`NotOneKey`]
pub fn key_from_text(content: &[u8]) -> Result<Option<Secret<String>>, NotOneKey> {
    let text = std::str::from_utf8(content.trim_ascii()).map_err(|_| NotOneKey)?;
    if text.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err(NotOneKey);
    }
    Ok(Some(text).filter(|text| !text.is_empty()).map(|text| Secret::new(text.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_key_or_none() {
        let read = |content: &[u8]| key_from_text(content).map(|key| key.map(|key| key.expose().clone()));
        assert_eq!(read(b"tskey-auth-kX-y\r\n"), Ok(Some("tskey-auth-kX-y".to_owned())));
        assert_eq!(read(b" file:/run/key "), Ok(Some("file:/run/key".to_owned())));
        assert_eq!(read(b""), Ok(None));
        assert_eq!(read(b" \n\t"), Ok(None));
        for bad in [&b"one\ntwo"[..], b"a b", b"a\x00b", b"\xff\xfe", "a\u{2028}b".as_bytes()] {
            assert_eq!(read(bad), Err(NotOneKey), "{bad:?}");
        }
    }
}
