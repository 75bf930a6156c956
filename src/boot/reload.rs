//! Has tailscaled reload its config file when that changed (boot.md 7.1).
//!
//! The comparison base is what the file held when tailscaled was started, so a change during the login is not lost
//! (W12). A file that cannot be used leaves the old config in force and is tried again; nothing here ends the boot.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::context::{Context, config_path};
use crate::filewatch::FileWatch;
use crate::localapi::LocalApi;
use crate::settings::conffile::{self, UnknownKeys};

/// The safety net for mounts that send no events.
const POLL: Duration = Duration::from_secs(30);

/// How soon a config that could not be reloaded is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What the config file held at some moment: a fingerprint only, the file has the auth key in it.
#[derive(Clone, Debug)]
pub(super) struct Baseline {
    hasher: RandomState,
    content: Option<u64>,
}

impl Baseline {
    /// Fingerprints the file; an absent or unreadable one is a baseline too.
    pub(super) fn read(path: Option<&Path>) -> Self {
        let hasher = RandomState::new();
        let content = path.and_then(|path| read(path).ok()).map(|text| hasher.hash_one(text));
        Self { hasher, content }
    }
}

fn read(path: &Path) -> Result<String, String> {
    conffile::read(path).map_err(|why| why.trim_start_matches(": ").to_owned())
}

/// Follows the file until stopped.
pub(super) async fn keep_reloaded(context: &Context, stop: &CancellationToken) {
    let Some(path) = config_path(&context.settings) else { return };
    let mut follower = Follower { path: path.to_owned(), baseline: context.baseline.clone(), complaint: None };
    let mut watch = FileWatch::new(path);
    if let Some(error) = watch.unavailable() {
        tracing::warn!("tailscaled config watch: failed to create fsnotify watcher, timer-only mode: {error}");
    }
    loop {
        let settled = follower.check(&context.api).await;
        let poll = if settled && watch.unavailable().is_none() { POLL } else { RETRY };
        tokio::select! {
            () = stop.cancelled() => return,
            () = watch.changed(poll) => {}
        }
    }
}

struct Follower {
    path: PathBuf,
    baseline: Baseline,
    /// What was last complained about, so that a retry says nothing new.
    complaint: Option<String>,
}

impl Follower {
    /// Compares and reloads. Returns whether nothing is left to do.
    async fn check(&mut self, api: &LocalApi) -> bool {
        // Read once: what is compared must be what is judged, whatever is swapped in meanwhile.
        let text = match read(&self.path) {
            Ok(text) => text,
            Err(error) => return self.complain(error),
        };
        let now = self.baseline.hasher.hash_one(&text);
        if self.baseline.content == Some(now) {
            self.complaint = None;
            return true;
        }
        if self.complaint.is_none() {
            tracing::info!("tailscaled config watch: ensuring that config is up to date");
        }
        // The daemon keeps its reason for refusing a file to its log, so ours is found first.
        if let Err(error) = conffile::parse(&text, UnknownKeys::List) {
            return self.complain(error);
        }
        match api.reload_config().await {
            Ok(reload) if reload.err.is_empty() => {
                if reload.reloaded {
                    tracing::info!("tailscaled config watch: config was reloaded");
                }
                self.baseline.content = Some(now);
                self.complaint = None;
                true
            }
            Ok(reload) => self.complain(reload.err),
            Err(error) => self.complain(error.to_string()),
        }
    }

    fn complain(&mut self, why: String) -> bool {
        if self.complaint.as_ref() != Some(&why) {
            tracing::warn!("tailscaled config watch: keeping the config in force, `{}`: {why}", self.path.display());
            self.complaint = Some(why);
        }
        false
    }
}
