//! A token in a file that somebody else replaces.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::rereads::Rereads;
use super::token::Authorization;
use crate::lock::lock;

/// The kubelet replaces a token long before it expires. client-go's minute less its leeway of ten seconds.
const AGE: Duration = Duration::from_secs(50);
/// Between looks at a file that cannot be read.
const PAUSE: Duration = Duration::from_secs(5);

/// The token in a file, at most [`AGE`] old; while the file cannot be read, what was read last.
#[derive(Debug)]
pub(super) struct TokenFile {
    path: PathBuf,
    held: Mutex<Held>,
    /// One at a time: what was read last is then what was there last.
    reading: tokio::sync::Mutex<()>,
    rereads: Rereads,
}

#[derive(Clone, Debug)]
struct Held {
    authorization: Authorization,
    generation: u64,
    /// When it is read again.
    next: Instant,
}

impl TokenFile {
    /// Reads the file for the first time; `fallback` is used for as long as it cannot be read.
    ///
    /// # Errors
    /// It cannot be read or holds no token, and there is no `fallback`.
    pub(super) async fn open(path: PathBuf, fallback: Option<Authorization>) -> io::Result<Self> {
        let rereads = Rereads::default();
        let (authorization, age) = match (read(&path).await, fallback) {
            (Ok(read), _) => (read, AGE),
            (Err(error), Some(fallback)) => {
                rereads.failed(&named(&path), &error);
                (fallback, PAUSE)
            }
            (Err(error), None) => return Err(error),
        };
        let held = Mutex::new(Held { authorization, generation: 1, next: Instant::now() + age });
        Ok(Self { path, held, reading: tokio::sync::Mutex::default(), rereads })
    }

    /// The value of `Authorization`, and its generation.
    pub(super) async fn get(&self) -> (Authorization, u64) {
        let held = if self.is_due() { self.reload().await } else { lock(&self.held).clone() };
        (held.authorization, held.generation)
    }

    /// Reads the file now. True when it holds another token than that of `generation`.
    pub(super) async fn rejected(&self, generation: u64) -> bool {
        let held = lock(&self.held).generation;
        held != generation || self.reload().await.generation != generation
    }

    /// Whether it is time to read it again. True for one: whoever comes meanwhile uses what is held.
    fn is_due(&self) -> bool {
        let mut held = lock(&self.held);
        let now = Instant::now();
        let is_due = held.next <= now;
        if is_due {
            held.next = now + PAUSE;
        }
        is_due
    }

    async fn reload(&self) -> Held {
        let _turn = self.reading.lock().await;
        let read = read(&self.path).await;
        let read = self.rereads.told(&named(&self.path), read);
        let mut held = lock(&self.held);
        held.next = Instant::now() + if read.is_some() { AGE } else { PAUSE };
        if let Some(read) = read.filter(|read| *read != held.authorization) {
            held.authorization = read;
            held.generation += 1;
        }
        held.clone()
    }
}

/// As the log calls it.
fn named(path: &Path) -> String {
    format!("the token in {}", path.display())
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

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_is_told_of_once_and_tried_seldom() {
        let (log, _guard) = crate::telemetry::testing::captured();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let token = TokenFile::open(path.clone(), None).await.unwrap();
        std::fs::write(&path, "").unwrap();
        tokio::time::advance(AGE).await;
        for _ in 0..100 {
            assert_eq!(shown(&token).await, "Bearer one");
        }
        tokio::time::advance(PAUSE).await;
        assert_eq!(shown(&token).await, "Bearer one");
        let lines = log.take();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].starts_with("warning: cannot read the token in ") && lines[0].contains("it is empty"),
            "{lines:?}"
        );
        assert!(lines[1].starts_with("debug: "), "{lines:?}");

        std::fs::write(&path, "two").unwrap();
        assert_eq!(shown(&token).await, "Bearer one", "not yet");
        tokio::time::advance(PAUSE).await;
        assert_eq!(shown(&token).await, "Bearer two");
        let lines = log.take();
        assert!(lines.len() == 1 && lines[0].ends_with("token can be read again"), "{lines:?}");
        tokio::time::advance(AGE.saturating_sub(PAUSE)).await;
        std::fs::write(&path, "three").unwrap();
        assert_eq!(shown(&token).await, "Bearer two", "young enough");
    }

    #[tokio::test]
    async fn of_two_looks_the_later_one_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let token = TokenFile::open(path.clone(), None).await.unwrap();
        // A look that takes its time, on what is replaced meanwhile.
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let replaced = tokio::sync::Notify::new();
        let replace = async {
            let old = loop {
                match tokio::net::unix::pipe::OpenOptions::new().open_sender(&path) {
                    Ok(old) => break old,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            std::fs::write(dir.path().join("new"), "new").unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
            replaced.notify_one();
            tokio::time::sleep(Duration::from_millis(50)).await;
            old.try_write(b"old").unwrap();
        };
        let later = async {
            replaced.notified().await;
            token.rejected(1).await
        };
        let (first, second, ()) = tokio::join!(token.rejected(1), later, replace);
        assert!(first && second);
        assert_eq!(shown(&token).await, "Bearer new");
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
