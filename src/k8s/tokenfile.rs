//! A token in a file that somebody else replaces.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::token::Authorization;
use crate::lock::lock;

/// The kubelet replaces a token long before it expires. client-go's minute less its leeway of ten seconds.
const AGE: Duration = Duration::from_secs(50);

/// The token in a file, at most [`AGE`] old; while the file cannot be read, what was read last.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    authorization: Authorization,
    generation: u64,
    read_at: Instant,
}

impl TokenFile {
    /// Reads the file for the first time; `fallback` is used for as long as it cannot be read.
    ///
    /// # Errors
    /// It cannot be read or holds no token, and there is no `fallback`.
    pub(super) async fn open(path: PathBuf, fallback: Option<Authorization>) -> io::Result<Self> {
        let authorization = match (read(&path).await, fallback) {
            (Ok(read), _) => read,
            (Err(error), Some(fallback)) => {
                tracing::warn!(path = %path.display(), %error, "cannot read the token file, using the token beside it");
                fallback
            }
            (Err(error), None) => return Err(error),
        };
        Ok(Self { path, held: Mutex::new(Held { authorization, generation: 1, read_at: Instant::now() }) })
    }

    /// The value of `Authorization`, and its generation.
    pub(super) async fn get(&self) -> (Authorization, u64) {
        let held = self.held();
        let held = if held.read_at.elapsed() < AGE { held } else { self.reload().await };
        (held.authorization, held.generation)
    }

    /// Reads the file now. True when it holds another token than that of `generation`.
    pub(super) async fn rejected(&self, generation: u64) -> bool {
        self.held().generation != generation || self.reload().await.generation != generation
    }

    async fn reload(&self) -> Held {
        let read = read(&self.path).await;
        let mut held = lock(&self.held);
        match read {
            Ok(read) => {
                if held.authorization != read {
                    held.authorization = read;
                    held.generation += 1;
                }
                held.read_at = Instant::now();
            }
            Err(error) => {
                tracing::debug!(path = %self.path.display(), %error, "cannot read the token again, keeping the last one");
            }
        }
        held.clone()
    }

    fn held(&self) -> Held {
        lock(&self.held).clone()
    }
}

async fn read(path: &Path) -> io::Result<Authorization> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let token = Zeroizing::new(tokio::fs::read_to_string(path).await?);
    let token = token.trim();
    if token.is_empty() {
        return Err(invalid("it is empty".to_owned()));
    }
    Authorization::bearer(token).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(token: &TokenFile) -> String {
        token.get().await.0.header().to_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_trimmed_read_again_and_kept_when_the_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let token = TokenFile::open(path.clone(), None).await.unwrap();
        assert_eq!(shown(&token).await, "Bearer one");

        std::fs::write(&path, "two").unwrap();
        assert_eq!(shown(&token).await, "Bearer one", "young enough");
        tokio::time::advance(AGE).await;
        assert_eq!(shown(&token).await, "Bearer two");

        std::fs::write(&path, "three").unwrap();
        assert!(token.rejected(1).await, "that is old news");
        assert_eq!(shown(&token).await, "Bearer two");
        assert!(token.rejected(2).await);
        assert_eq!(shown(&token).await, "Bearer three", "asked for");
        std::fs::remove_file(&path).unwrap();
        assert!(!token.rejected(3).await);
        assert_eq!(shown(&token).await, "Bearer three", "the last one that could be read");
    }

    #[tokio::test]
    async fn an_empty_or_garbled_token_is_an_error_unless_there_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for bad in [" \n", "a\nb"] {
            std::fs::write(&path, bad).unwrap();
            assert!(TokenFile::open(path.clone(), None).await.is_err(), "{bad:?}");
            let other = Authorization::bearer("other").ok();
            assert_eq!(shown(&TokenFile::open(path.clone(), other).await.unwrap()).await, "Bearer other");
        }
    }
}
