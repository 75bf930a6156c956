//! Looks at every place that has a part of what is known of certificates, and changes none of them.
//!
//! tailscaled's certificate endpoint is not one of them: asking it may order a certificate. What cannot be read is a
//! [`Trouble`], and the rest is shown all the same.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::budget::Ledger;
use super::listing::{Found, Kept, Source};
use super::local::Memory;
use super::names::{self, Name, Node};
use super::record::{LEDGER, Record};
use crate::causes::chain;
use crate::digest::sha256_hex;
use crate::k8s::{self, Cluster, StateSecret};
use crate::localapi::LocalApi;

/// The daemon answers about itself in milliseconds.
const DAEMON_LIMIT: Duration = Duration::from_secs(5);
/// A chain has a few KiB.
const LARGEST: u64 = 1 << 20;
/// The key of a TLS Secret with the digest of the account's key, since 1.102.
const FINGERPRINT: &str = "acme-account-fingerprint";
/// `TLS.crt` of a TLS Secret.
pub const CERTIFICATE: &str = "tls.crt";
/// `tls.key` of a TLS Secret.
pub const PRIVATE_KEY: &str = "tls.key";

/// Whether TLS Secrets are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They are where certificates are: not being allowed to read them is a trouble.
    Shared,
    /// There may be some: as far as that is allowed.
    Perhaps,
}

/// Where to look.
#[derive(Debug)]
pub struct Places {
    /// tailscaled.
    pub api: Option<LocalApi>,
    /// A serve config in place of the daemon's.
    pub config: Option<Value>,
    /// The cluster, seen from the namespace of the Secrets.
    pub cluster: Option<Cluster>,
    /// Whether TLS Secrets are expected in it.
    pub sharing: Sharing,
    /// Only Secrets of this proxy group.
    pub group: Option<String>,
    /// The state Secret.
    pub state: Option<String>,
    /// Name and field of the Secret with the shared ACME account.
    pub account: Option<(String, String)>,
    /// tailscaled's directory of certificates.
    pub dir: Option<PathBuf>,
    /// Whether somebody named the directory, so that it has to be there.
    pub dir_is_named: bool,
    /// The file in which a manager without a cluster remembers.
    pub memory: Option<PathBuf>,
}

/// A place that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which, as the object of a sentence: `the TLS Secrets of namespace x`.
    pub place: String,
    /// Why.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of certificates.
    pub found: Found,
    /// The serve config: the daemon's or the one that was given.
    pub config: Option<Value>,
    /// The orders of late.
    pub ledger: Ledger,
    /// What could not be read.
    pub troubles: Vec<Trouble>,
}

/// The selector of TLS Secrets with certificates, of one proxy group or of all.
pub fn selector(group: Option<&str>) -> String {
    let group = group.map(|group| format!(",tailscale.com/proxy-group={group}")).unwrap_or_default();
    format!("tailscale.com/managed=true,tailscale.com/secret-type=certs{group}")
}

/// Looks everywhere.
pub async fn look(places: &Places) -> Seen {
    let mut seen = Seen { config: places.config.clone(), ..Seen::default() };
    if let Some(api) = &places.api {
        seen.ask_daemon(api).await;
    }
    if let Some(config) = &seen.config
        && let Ok(wanted) = names::wanted(config, Node::Include)
    {
        seen.found.wanted = wanted;
    }
    // The best place comes last.
    if let Some(dir) = &places.dir {
        seen.read_dir(dir, places.dir_is_named);
    }
    if let Some(cluster) = &places.cluster {
        seen.read_state(cluster, places.state.as_deref()).await;
        seen.read_secrets(cluster, places).await;
        seen.read_account(cluster, places.account.as_ref()).await;
    }
    if let Some(file) = &places.memory {
        seen.read_memory(file);
    }
    seen
}

/// A TLS Secret as a place.
fn of_secret(secret: &StateSecret) -> Kept {
    let account = secret.data.get(FINGERPRINT).filter(|digest| !digest.is_empty()).map(|digest| hex(digest));
    let record = Record::of(|name| secret.annotations.get(name).map(String::as_str));
    Kept { account, record, ..pair(Source::Secret, secret, CERTIFICATE, PRIVATE_KEY) }
}

fn pair(source: Source, secret: &StateSecret, certificate: &str, key: &str) -> Kept {
    let value = |name: &str| secret.data.get(name).map(Vec::as_slice);
    Kept::of_pem(source, value(certificate).unwrap_or_default(), value(key))
}

impl Seen {
    async fn ask_daemon(&mut self, api: &LocalApi) {
        let limited =
            |error| format!("tailscaled did not answer within {} ({error})", crate::goduration::format(DAEMON_LIMIT));
        let asked = async { tokio::join!(api.cert_domains(), api.serve_config()) };
        let (allowed, config) = match timeout(DAEMON_LIMIT, asked).await {
            Ok(answers) => answers,
            Err(error) => return self.trouble("tailscaled", &limited(error), None),
        };
        match allowed {
            Ok(names) => {
                let normal = |name: &String| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
                self.found.allowed = Some(names.iter().map(normal).collect());
            }
            // Nobody is there: the next question has the same answer.
            Err(error) if !error.is_answer() => return self.trouble("tailscaled", &chain(&error), error.hint()),
            Err(error) => self.trouble("the names that the tailnet allows", &chain(&error), error.hint()),
        }
        match config {
            Ok(config) if self.config.is_none() => self.config = Some(config.document),
            Ok(_) => {}
            Err(_) if self.config.is_some() => {}
            Err(error) => self.trouble("tailscaled's serve config", &chain(&error), error.hint()),
        }
    }

    async fn read_secrets(&mut self, cluster: &Cluster, places: &Places) {
        let listed = cluster.secrets_with(&selector(places.group.as_deref())).await;
        let (secrets, denied) = match listed {
            Ok(secrets) => (secrets, None),
            // The group's Role may allow each by its name.
            Err(error @ k8s::Error::Denied { .. }) => self.read_each(cluster, error).await,
            Err(error) => (Vec::new(), Some(error)),
        };
        for secret in secrets {
            let name = secret.name.clone().unwrap_or_default();
            // A Secret that is named otherwise is nobody's.
            if let Ok(domain) = Name::parse(&name) {
                if let Some(orders) = secret.annotations.get(LEDGER).and_then(|text| serde_json::from_str(text).ok()) {
                    self.ledger.merge(orders);
                }
                self.found.kept.insert(domain, of_secret(&secret));
            }
        }
        if let Some(error) = denied
            && (places.sharing == Sharing::Shared || !matches!(error, k8s::Error::Denied { .. }))
        {
            let place = format!("the TLS Secrets of namespace `{}`", cluster.namespace());
            self.trouble(&place, &chain(&error), rule(&error));
        }
    }

    /// The Secrets called like the names that are known, and the error if not all can be read.
    async fn read_each(&self, cluster: &Cluster, listing: k8s::Error) -> (Vec<StateSecret>, Option<k8s::Error>) {
        let mut secrets = Vec::new();
        for name in self.found.names().iter().filter(|name| !name.is_wildcard()) {
            match cluster.secret(name.as_str()).await {
                Ok(found) => secrets.extend(found.map(|secret| StateSecret { name: Some(name.to_string()), ..secret })),
                Err(_) => return (secrets, Some(listing)),
            }
        }
        // With names to go by, nothing is missing; without any, nothing is known.
        let is_complete = !self.found.names().is_empty();
        (secrets, (!is_complete).then_some(listing))
    }

    async fn read_state(&mut self, cluster: &Cluster, name: Option<&str>) {
        let Some(name) = name else { return };
        let place = format!("Secret `{}/{name}`", cluster.namespace());
        let secret = match cluster.secret(name).await {
            Ok(Some(secret)) => secret,
            Ok(None) => return,
            Err(error) => return self.trouble(&place, &chain(&error), rule(&error)),
        };
        for key in secret.data.keys() {
            let Some(domain) = key.strip_suffix(".crt").and_then(|stem| domain_of(stem, "_.")) else { continue };
            let beside = format!("{}.key", key.strip_suffix(".crt").unwrap_or(key));
            self.found.kept.insert(domain, pair(Source::StateKey, &secret, key, &beside));
        }
    }

    async fn read_account(&mut self, cluster: &Cluster, account: Option<&(String, String)>) {
        let Some((name, field)) = account else { return };
        match cluster.secret(name).await {
            Ok(secret) => {
                let key = secret.as_ref().and_then(|secret| secret.data.get(field)).filter(|key| !key.is_empty());
                self.found.account = key.map(|key| sha256_hex(key));
            }
            Err(error) => {
                let place = format!("the ACME account in Secret `{}/{name}`", cluster.namespace());
                self.trouble(&place, &chain(&error), rule(&error));
            }
        }
    }

    fn read_dir(&mut self, dir: &Path, is_named: bool) {
        let place = format!("directory `{}`", dir.display());
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => return,
            Err(error) => return self.trouble(&place, &error.to_string(), None),
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "crt")) {
            let Some(domain) = file.file_stem().and_then(|stem| domain_of(stem.to_str()?, "wildcard_.")) else {
                continue;
            };
            match read_file(file) {
                Ok(chain) => {
                    // The key is for its owner alone; whoever is not cannot tell whether it matches.
                    let key = read_file(&file.with_extension("key")).ok();
                    self.found.kept.insert(domain, Kept::of_pem(Source::File, &chain, key.as_deref()));
                }
                Err(error) => self.trouble(&format!("file `{}`", file.display()), &error.to_string(), None),
            }
        }
    }

    fn read_memory(&mut self, file: &Path) {
        match Memory::read(file) {
            Ok(Memory { names, ledger }) => {
                self.found.records = names;
                self.ledger.merge(ledger);
            }
            Err(error) => self.trouble(&format!("file `{}`", file.display()), &error.to_string(), None),
        }
    }

    fn trouble(&mut self, place: &str, error: &str, hint: Option<String>) {
        self.troubles.push(Trouble { place: place.to_owned(), error: error.to_owned(), hint });
    }

    /// Names that are wanted or allowed.
    pub fn expected(&self) -> BTreeSet<Name> {
        let mut names: BTreeSet<Name> = self.found.wanted.names.keys().cloned().collect();
        names.extend(self.found.allowed.iter().flatten().filter_map(|name| Name::parse(name).ok()));
        names
    }
}

/// The domain of a key or file; a wildcard's first label is written as `wildcard`.
fn domain_of(stem: &str, wildcard: &str) -> Option<Name> {
    let name = match stem.strip_prefix(wildcard) {
        Some(domain) => format!("*.{domain}"),
        None => stem.to_owned(),
    };
    Name::parse(&name).ok()
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(LARGEST).read_to_end(&mut text)?;
    Ok(text)
}

fn rule(error: &k8s::Error) -> Option<String> {
    error.missing_rule().map(|rule| format!("the Role lacks:\n{rule}"))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_are_spelled_differently_in_each_place() {
        let name = |stem: &str, wildcard: &str| domain_of(stem, wildcard).map(|name| name.to_string());
        assert_eq!(name("wildcard_.a.t.ts.net", "wildcard_.").as_deref(), Some("*.a.t.ts.net"));
        assert_eq!(name("_.a.t.ts.net", "_.").as_deref(), Some("*.a.t.ts.net"));
        assert_eq!(name("a.t.ts.net", "_.").as_deref(), Some("a.t.ts.net"));
        assert_eq!(name("acme-account.key", "_.").as_deref(), Some("acme-account.key"));
        assert_eq!(name("dir", "_."), None);
    }

    #[test]
    fn secrets_are_selected_as_readers_do() {
        assert_eq!(
            selector(Some("g")),
            "tailscale.com/managed=true,tailscale.com/secret-type=certs,tailscale.com/proxy-group=g"
        );
        assert_eq!(selector(None), "tailscale.com/managed=true,tailscale.com/secret-type=certs");
    }
}
