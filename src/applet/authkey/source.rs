//! Where the key that failed is read from: a key file, a pipe, a config. Never an argument.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::ValueHint;
use nix::sys::stat::{SFlag, fstat};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::applet::boot::daemon_capver;
use crate::authkey::key_from_text;
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::secret::Secret;
use crate::settings::conffile::{self, UnknownKeys};
use crate::settings::{CAPVER, Vars, vars};

/// No auth key is longer; more than this is a wrong file.
const LARGEST: u64 = 64 << 10;
/// Whoever pipes a key in without saying so (`-`) does it at once; a pipe that somebody merely left open stays silent.
const PATIENCE: Duration = Duration::from_secs(5);

/// Files that may hold the key.
#[derive(Debug, clap::Args)]
pub(super) struct Files {
    /// File that holds the old key and nothing else; `-` for standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(super) key_file: Option<PathBuf>,

    /// The node's tailscaled config with its AuthKey; of a directory, the file that boot would choose
    #[arg(long, value_name = "FILE|DIR", value_hint = ValueHint::AnyPath)]
    pub(super) config: Option<PathBuf>,
}

impl Files {
    /// The key in `--key-file`; `None` without one, an empty key when nothing is in it.
    pub(super) async fn key(&self) -> anyhow::Result<Option<Secret<String>>> {
        match self.key_file.as_deref() {
            None => Ok(None),
            Some(path) if path == Path::new("-") => {
                let key = read_key(tokio::io::stdin()).await.context("cannot use standard input as a key")?;
                Ok(Some(key.unwrap_or_default()))
            }
            Some(path) => {
                let shown = || format!("cannot use the key file `{}`", path.display());
                let file = tokio::fs::File::open(path).await.with_context(shown)?;
                Ok(Some(read_key(file).await.with_context(shown)?.unwrap_or_default()))
            }
        }
    }

    /// The config file that `--config` leads to, chosen once as boot does.
    pub(super) async fn config_file(&self, vars: &dyn Vars) -> anyhow::Result<Option<PathBuf>> {
        let Some(path) = &self.config else { return Ok(None) };
        if !path.is_dir() {
            return Ok(Some(path.clone()));
        }
        Ok(Some(conffile::choose(path, capver(vars).await?)?))
    }
}

/// The key in a config file; an empty one when the file has none.
pub(super) fn key_in_config(path: &Path) -> anyhow::Result<Secret<String>> {
    Ok(conffile::load(path, UnknownKeys::List)?.auth_key.unwrap_or_default())
}

/// The key on standard input, if one is piped in.
pub(super) async fn piped_key(out: &Output) -> anyhow::Result<Option<Secret<String>>> {
    let kind = fstat(std::io::stdin().as_fd()).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    if !kind.is_ok_and(|kind| [SFlag::S_IFIFO, SFlag::S_IFREG, SFlag::S_IFSOCK].contains(&kind)) {
        return Ok(None);
    }
    let Ok(read) = tokio::time::timeout(PATIENCE, read_key(tokio::io::stdin())).await else {
        out.note(format!("nothing came on standard input within {PATIENCE:?}; `--key-file -` waits for it"));
        return Ok(None);
    };
    read.context("cannot use standard input as a key")
}

async fn read_key(from: impl AsyncRead + Unpin) -> anyhow::Result<Option<Secret<String>>> {
    let mut content = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut content).await?;
    if content.len() as u64 > LARGEST {
        return Err(anyhow!("it is larger than {} KiB", LARGEST >> 10));
    }
    Ok(key_from_text(&content)?)
}

/// The capability version that boot would choose a config by.
async fn capver(vars: &dyn Vars) -> anyhow::Result<u32> {
    let explicit = vars.get(vars::TAILPOD_CAPVER.name).ok().flatten().filter(|text| !text.is_empty());
    match explicit {
        Some(text) => text
            .parse()
            .map_err(|_| anyhow!("TAILPOD_CAPVER={text:?}: not a whole number").exit_with(ExitStatus::Usage)),
        None => Ok(daemon_capver().await.unwrap_or(CAPVER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_read_from_anything_small_enough() {
        assert_eq!(read_key(&b"tskey-auth-kX-y\n"[..]).await.unwrap(), Some(Secret::new("tskey-auth-kX-y".to_owned())));
        assert_eq!(read_key(&b""[..]).await.unwrap(), None);
        let large = vec![b'a'; 64 << 10];
        assert!(read_key(&large[..]).await.unwrap().is_some());
        let error = read_key(&[&large[..], b"a"].concat()[..]).await.unwrap_err();
        assert_eq!(error.to_string(), "it is larger than 64 KiB");
    }

    #[tokio::test]
    async fn a_directory_picks_as_boot_does() {
        let dir = tempfile::tempdir().unwrap();
        for capver in [95, 106, 9999] {
            std::fs::write(dir.path().join(format!("cap-{capver}.hujson")), "{}").unwrap();
        }
        let vars = std::collections::BTreeMap::from([("TAILPOD_CAPVER", "105")]);
        let files = |path: &Path| Files { key_file: None, config: Some(path.to_owned()) };
        let chosen = files(dir.path()).config_file(&vars).await.unwrap();
        assert_eq!(chosen, Some(dir.path().join("cap-95.hujson")));
        let plain = dir.path().join("not-there-yet");
        assert_eq!(files(&plain).config_file(&vars).await.unwrap(), Some(plain));
        let none = std::collections::BTreeMap::from([("TAILPOD_CAPVER", "1")]);
        let error = files(dir.path()).config_file(&none).await.unwrap_err().to_string();
        assert!(error.contains("for current capability version 1"), "{error}");
    }
}
