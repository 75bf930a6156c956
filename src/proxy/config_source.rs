//! Where the config of `k8s-proxy` is, and when it has changed (api-proxy.md 9.1).
//!
//! A file is followed by what happens in its directory, so that renames over it and the symlink swaps of mounted
//! ConfigMaps and Secrets are seen; a Secret by a watch that lists again after every trouble. Only content counts: the
//! same bytes are no change, and an empty file is one that somebody is about to write.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::config::{Config, ConfigError, parse};
use crate::digest::sha256_hex;
use crate::filewatch::{FileWatch, Unavailable};
use crate::k8s::watch::SecretWatch;
use crate::k8s::{Cluster, Error};
use crate::settings::conffile;

/// The data key of a config in a Secret.
pub const KEY: &str = "config.hujson";

/// How often a file is looked at where nothing tells of changes; elsewhere the safety net below what does.
const POLL: Duration = Duration::from_secs(5);

/// Where a config is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// Key [`KEY`] of a Secret.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// A text names no place for a config.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// `kube:` without both parts.
    #[error("`{0}` does not name a Secret; the form is `kube:<namespace>/<name>`")]
    NoSecret(String),
    /// `file:` without a path.
    #[error("`file:` names no file")]
    NoFile,
}

/// Why there is no new config. No text of it shows the config's own.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read config file `{}`{reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why, with its colon.
        reason: String,
    },
    /// There is no such Secret.
    #[error("config Secret {namespace}/{name} does not exist")]
    NoSecret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// It has no config in it.
    #[error("config Secret {namespace}/{name} has no text under key `{KEY}`")]
    NoKey {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The Secret may not be read.
    #[error("cannot read the config Secret")]
    Cluster(#[source] Error),
    /// It is no config.
    #[error("error parsing {origin}")]
    Bad {
        /// Where it came from.
        origin: Source,
        /// What is wrong.
        source: ConfigError,
    },
}

/// A config that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The config.
    pub config: Arc<Config>,
    /// What is odd about it.
    pub warnings: Vec<String>,
}

/// A config, followed.
#[derive(Debug)]
pub struct ConfigSource {
    source: Source,
    watch: Watch,
    /// Digest of the content that was looked at last, good or bad.
    seen: Option<String>,
}

#[derive(Debug)]
enum Watch {
    File(Box<FileWatch>),
    Secret(Box<SecretWatch>),
}

// === impl Source ===

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if let Some(secret) = text.strip_prefix("kube:") {
            return match secret.split_once('/') {
                Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                    Ok(Self::Secret { namespace: namespace.to_owned(), name: name.to_owned() })
                }
                _ => Err(SourceError::NoSecret(text.to_owned())),
            };
        }
        match text.strip_prefix("file:").unwrap_or(text) {
            "" => Err(SourceError::NoFile),
            path => Ok(Self::File(path.into())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "config file `{}`", path.display()),
            Self::Secret { namespace, name } => write!(f, "config Secret {namespace}/{name}"),
        }
    }
}

// === impl ConfigSource ===

impl ConfigSource {
    /// Begins to follow `source`, so that no change after this call is missed.
    pub fn open(source: Source, cluster: &Cluster) -> Self {
        let watch = match &source {
            Source::File(path) => Watch::File(Box::new(watch_file(path))),
            Source::Secret { namespace, name } => {
                Watch::Secret(Box::new(cluster.in_namespace(namespace).watch_secret(name)))
            }
        };
        Self { source, watch, seen: None }
    }

    /// The config as it is now. Waits while the file is empty, and while the API server cannot be reached.
    ///
    /// # Errors
    /// There is none, or it is bad: at the start that is the end.
    pub async fn first(&mut self) -> Result<Loaded, LoadError> {
        if let (Watch::File(_), Source::File(path)) = (&self.watch, &self.source)
            && let Some(text) = read_file(path)?
        {
            return self.load(&text);
        }
        if let Watch::File(_) = self.watch {
            tracing::info!("{} is empty; waiting for its content", self.source);
        }
        self.next().await
    }

    /// The config once its content has changed. Waits for as long as that takes. Cancel-safe.
    ///
    /// # Errors
    /// The new content is bad, or cannot be read any more. The caller keeps what it has and may call again.
    pub async fn next(&mut self) -> Result<Loaded, LoadError> {
        loop {
            if let Some(text) = self.look().await?
                && self.seen.as_ref() != Some(&sha256_hex(text.as_bytes()))
            {
                return self.load(&text);
            }
        }
    }

    /// One wait, and the content after it.
    async fn look(&mut self) -> Result<Option<String>, LoadError> {
        match (&mut self.watch, &self.source) {
            (Watch::File(watch), Source::File(path)) => {
                watch.changed(POLL).await;
                if watch.unavailable().is_some() {
                    **watch = FileWatch::new(path);
                }
                match read_file(path) {
                    // Between the unlinking and the linking of a swap there is no file; nor is that news each time.
                    Err(_) if self.seen.is_none() => Ok(None),
                    Err(error) => {
                        let text = error.to_string();
                        let digest = Some(sha256_hex(text.as_bytes()));
                        if self.seen == digest {
                            return Ok(None);
                        }
                        self.seen = digest;
                        Err(error)
                    }
                    read => read,
                }
            }
            (Watch::Secret(watch), Source::Secret { namespace, name }) => {
                let at = || (namespace.clone(), name.clone());
                match watch.next().await.map_err(LoadError::Cluster)? {
                    None if self.seen.is_some() => {
                        tracing::warn!("{} was deleted; its last content stays in force", self.source);
                        Ok(None)
                    }
                    None => {
                        let (namespace, name) = at();
                        Err(LoadError::NoSecret { namespace, name })
                    }
                    Some(secret) => match secret.text(KEY) {
                        Some("") => Ok(None),
                        Some(text) => Ok(Some(text.to_owned())),
                        None => {
                            let (namespace, name) = at();
                            Err(LoadError::NoKey { namespace, name })
                        }
                    },
                }
            }
            _ => unreachable!("a watch is made for its source"),
        }
    }

    fn load(&mut self, text: &str) -> Result<Loaded, LoadError> {
        self.seen = Some(sha256_hex(text.as_bytes()));
        match parse(text) {
            Ok(parsed) => Ok(Loaded { config: Arc::new(parsed.config), warnings: parsed.warnings }),
            Err(source) => Err(LoadError::Bad { origin: self.source.clone(), source }),
        }
    }
}

/// Reads a config file once.
///
/// # Errors
/// It cannot be read, is empty, or is no config.
pub fn read_once(path: &Path) -> Result<Loaded, LoadError> {
    let text = read_file(path)?
        .ok_or_else(|| LoadError::Unreadable { path: path.to_owned(), reason: ": it is empty".to_owned() })?;
    match parse(&text) {
        Ok(parsed) => Ok(Loaded { config: Arc::new(parsed.config), warnings: parsed.warnings }),
        Err(source) => Err(LoadError::Bad { origin: Source::File(path.to_owned()), source }),
    }
}

fn read_file(path: &Path) -> Result<Option<String>, LoadError> {
    conffile::read_filled(path).map_err(|reason| LoadError::Unreadable { path: path.to_owned(), reason })
}

fn watch_file(path: &Path) -> FileWatch {
    let watch = FileWatch::new(path);
    match watch.unavailable() {
        None => {
            let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().unwrap_or_default();
            tracing::info!(
                "Watching directory \"{}\" for changes to config file \"{}\"",
                directory.display(),
                name.display()
            );
        }
        Some(Unavailable::Instance(error) | Unavailable::Directory { source: error, .. }) => {
            tracing::info!("cannot watch for changes to {}, polling: {error}", path.display());
        }
    }
    watch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_file_or_a_secret() {
        let file = |path: &str| Ok(Source::File(path.into()));
        for (text, expected) in [
            ("/etc/proxy/config.hujson", file("/etc/proxy/config.hujson")),
            ("file:/etc/x", file("/etc/x")),
            ("kube.hujson", file("kube.hujson")),
            (
                "kube:tailscale/apis-0-config",
                Ok(Source::Secret { namespace: "tailscale".to_owned(), name: "apis-0-config".to_owned() }),
            ),
            ("kube:apis-0", Err(SourceError::NoSecret("kube:apis-0".to_owned()))),
            ("kube:/x", Err(SourceError::NoSecret("kube:/x".to_owned()))),
            ("kube:a/b/c", Err(SourceError::NoSecret("kube:a/b/c".to_owned()))),
            ("file:", Err(SourceError::NoFile)),
            ("", Err(SourceError::NoFile)),
        ] {
            assert_eq!(text.parse::<Source>(), expected, "{text}");
        }
    }
}
