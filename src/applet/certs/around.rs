//! Where to look, as flags and environment say it.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::Common;
use crate::applet::doctor::default_secret;
use crate::certs::local;
use crate::certs::names::{self, Node};
use crate::certs::places::{self, Places, Seen, Sharing, Trouble};
use crate::cli::cluster::{ClusterArgs, advised};
use crate::cli::exit::ExitStatus;
use crate::cli::output::Output;
use crate::cli::report::Advise;
use crate::doctor::certs as judge;
use crate::doctor::certs::gather::{Given, gather};
use crate::doctor::finding::Finding;
use crate::k8s::Cluster;
use crate::localapi::types::Status;
use crate::localapi::{LocalApi, Peers};
use crate::serve::document::{Document, Held, LARGEST, NodeFacts};
use crate::settings::{self, KubeAccess, Mode, Persona, ProcessEnv, Settings, StateStore, Vars, group_of, parse, vars};

/// Names us to the API server.
const COMPONENT: &str = "certs";

/// What was found, and where.
pub(super) struct Around {
    pub(super) places: Places,
    pub(super) seen: Seen,
    /// What is strange in the serve config that was given.
    pub(super) warnings: Vec<String>,
}

/// A serve config that was given.
struct File {
    config: Option<Value>,
    warnings: Vec<String>,
    /// Why its names are not known.
    held: Option<Held>,
}

impl Around {
    /// Looks everywhere.
    ///
    /// # Errors
    /// Exit code 2 when the serve config that was given is none.
    pub(super) async fn look(common: &Common, cluster: &ClusterArgs, vars: &dyn Vars) -> anyhow::Result<Self> {
        let api = daemon(common, vars);
        let mut warnings = Vec::new();
        let config = match &common.serve_config {
            None => None,
            Some(path) => {
                let file = File::read(path, api.as_ref(), common).await?;
                warnings = file.warnings;
                if let Some(held) = file.held {
                    let hint = held.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                    warnings.push(format!("`{}` would not be applied: {held}{hint}", path.display()));
                }
                // A file without names yet is still in place of tailscaled's config.
                Some(file.config.unwrap_or_else(|| Value::Object(serde_json::Map::default())))
            }
        };
        let (places, trouble) = places_of(common, cluster, vars, api, config).await;
        let mut seen = places::look(&places).await;
        seen.troubles.extend(trouble);
        // What the reader of files has said with line and column need not be said again.
        let said = |warning: &&names::Warning| !warnings.iter().any(|said| is_of(said, warning));
        let more: Vec<_> = seen.found.wanted.warnings.iter().filter(said).map(ToString::to_string).collect();
        warnings.extend(more);
        Ok(Self { places, seen, warnings })
    }

    /// Says on stderr what could not be read and what is strange.
    pub(super) fn say(&self, out: &Output) {
        for warning in &self.warnings {
            out.warning(warning);
        }
        for Trouble { place, error, hint } in &self.seen.troubles {
            out.warning(format!("cannot read {place}: {error}"));
            if let Some(hint) = hint {
                out.hint(hint);
            }
        }
    }
}

/// Whether a line about a file is about what `warning` is about, too.
fn is_of(said: &str, warning: &names::Warning) -> bool {
    let (_, what) = warning.reason.split_once(": ").unwrap_or_default();
    let what = warning.reason.strip_prefix("Web key ").unwrap_or(what);
    !what.is_empty() && said.contains(what)
}

/// What `doctor` and `certs check` find about certificates.
pub(crate) async fn doctor_findings(cluster: &ClusterArgs, vars: &ProcessEnv) -> Vec<Finding> {
    findings(&Common::default(), cluster, vars).await
}

/// The same with the flags of `certs`.
pub(super) async fn findings(common: &Common, cluster: &ClusterArgs, vars: &dyn Vars) -> Vec<Finding> {
    /// As `certs list` has it.
    const CRITICAL: std::time::Duration = std::time::Duration::from_secs(7 * 86_400);
    let settings = settings::read(vars, Persona::Tailpod).ok();
    let mut given = given(settings.as_ref(), vars);
    let api = daemon(common, vars);
    let mut warnings = Vec::new();
    let config = match &common.serve_config {
        None => None,
        Some(path) => match File::read(path, api.as_ref(), common).await {
            Ok(file) => {
                warnings = file.warnings;
                given.config = file.held.map(|held| {
                    let remedy =
                        held.hint().unwrap_or("wait until tailscaled has a netmap: tailpod doctor --only daemon");
                    (format!("the serve config would not be applied: {held}"), remedy.to_owned())
                });
                file.config
            }
            Err(error) => {
                let remedy = format!("mend {}", path.display());
                given.config = Some((format!("{error:#}"), remedy));
                None
            }
        },
    };
    let (places, trouble) = places_of(common, cluster, vars, api, config).await;
    let mut seen = places::look(&places).await;
    // On the way to the cluster `doctor` has checks of its own.
    drop(trouble);
    let known = &mut seen.found.wanted.warnings;
    warnings.retain(|said| !known.iter().any(|warning| is_of(said, warning)));
    known.extend(warnings.into_iter().map(|reason| names::Warning { service: None, reason, is_loss: false }));
    judge::judge(&gather(given, &places, &seen, CRITICAL, Timestamp::now()).await)
}

fn given(settings: Option<&Settings>, vars: &dyn Vars) -> Given {
    let in_secret = settings.map(|settings| matches!(settings.daemon.state, StateStore::Secret { .. }));
    let locked = settings.and_then(|settings| match &settings.mode {
        Mode::OneStep(file) => Some(file.locked),
        Mode::AuthOnce | Mode::AlwaysAuth => None,
    });
    let sharing = judge::Sharing {
        is_on: is_shared(vars),
        pod: value(vars, vars::POD_NAME.name),
        in_secret,
        writer: value(vars, vars::TAILPOD_CERT_WRITER.name),
    };
    Given { sharing, locked, config: None }
}

/// tailscaled, when it was named or is there.
fn daemon(common: &Common, vars: &dyn Vars) -> Option<LocalApi> {
    let named = common.socket.clone().or_else(|| value(vars, vars::TS_SOCKET.name).map(PathBuf::from));
    let default = || Some(PathBuf::from(vars::TS_SOCKET.default)).filter(|socket| socket.exists());
    named.or_else(default).map(|socket| LocalApi::new(&socket))
}

async fn places_of(
    common: &Common,
    cluster: &ClusterArgs,
    vars: &dyn Vars,
    api: Option<LocalApi>,
    config: Option<Value>,
) -> (Places, Option<Trouble>) {
    let access = cluster.access(vars).ok();
    let is_inside = matches!(access, Some(KubeAccess::InCluster { .. }));
    let shares = is_shared(vars);
    let connecting = async {
        access.as_ref()?;
        Some(connect(common, cluster, vars).await)
    };
    let (connected, trouble) = match connecting.await.transpose() {
        Ok(connected) => (connected, None),
        Err(error) => {
            (None, Some(Trouble { place: "the cluster".to_owned(), error: format!("{error:#}"), hint: None }))
        }
    };
    let group = common.proxy_group.clone().or_else(|| {
        let pod = value(vars, vars::POD_NAME.name).filter(|_| shares)?;
        group_of(&pod).map(str::to_owned)
    });
    let expected = shares || group.is_some() || !is_inside;
    let named = cluster.secret.as_ref().map(|secret| secret.name.clone());
    let account =
        value(vars, vars::TS_ACME_ACCOUNT_SECRET_NAME.name).zip(value(vars, vars::TS_ACME_ACCOUNT_FIELD.name));
    let state = value(vars, vars::TS_STATE_DIR.name).map(PathBuf::from);
    let dir = common.cert_dir.clone().or_else(|| state.as_ref().map(|dir| dir.join("certs")));
    let places = Places {
        api,
        config,
        cluster: connected,
        sharing: if expected { Sharing::Shared } else { Sharing::Perhaps },
        group,
        state: named.or_else(|| if is_inside { default_secret(vars) } else { value(vars, vars::TS_KUBE_SECRET.name) }),
        account,
        memory: state
            .or_else(|| dir.as_deref().and_then(Path::parent).map(Path::to_owned))
            .map(|dir| dir.join(local::FILE)),
        dir_is_named: common.cert_dir.is_some(),
        dir,
    };
    (places, trouble)
}

async fn connect(common: &Common, cluster: &ClusterArgs, vars: &dyn Vars) -> anyhow::Result<Cluster> {
    let deadline = Instant::now() + common.limit();
    let connected = cluster.connect(vars, COMPONENT).await?.until(deadline);
    let ready = timeout(common.limit(), connected.ready()).await.context("the credentials did not come in time")?;
    ready.map_err(advised)?;
    Ok(connected)
}

pub(super) fn is_shared(vars: &dyn Vars) -> bool {
    value(vars, vars::TS_EXPERIMENTAL_CERT_SHARE.name).and_then(|text| parse::boolean(&text)).unwrap_or_default()
}

pub(super) fn value(vars: &dyn Vars, name: &str) -> Option<String> {
    vars.get(name).ok().flatten().filter(|text| !text.is_empty())
}

/// A serve config that was given, as far as its names go.
///
/// # Errors
/// Exit code 2 when it is none; also while its names are not known.
pub(super) async fn config_of(path: &Path, api: &LocalApi, common: &Common) -> anyhow::Result<Value> {
    let file = File::read(path, Some(api), common).await?;
    let held = file.held.map_or_else(String::new, |held| held.to_string());
    file.config.ok_or_else(|| anyhow!("the names of `{}` are not known: {held}", path.display()))
}

impl File {
    async fn read(path: &Path, api: Option<&LocalApi>, common: &Common) -> anyhow::Result<Self> {
        let refused = |error: anyhow::Error| {
            error.context(format!("`{}` is no serve config", path.display())).exit_with(ExitStatus::Usage)
        };
        let text = read_text(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let document = Document::parse(&text).map_err(|error| refused(error.into()))?;
        let facts = match api {
            Some(api) => {
                facts(timeout(common.limit(), api.status(Peers::Omit)).await.ok().and_then(Result::ok).as_ref())
            }
            None => NodeFacts::default(),
        };
        let warnings = document.warnings.clone();
        let config = match document.filled_in(&facts) {
            Ok(config) => config,
            Err(held) => return Ok(Self { config: None, warnings, held: Some(held) }),
        };
        names::wanted(&config, Node::Include)
            .map_err(|error| refused(error.into()))?
            .bounded()
            .map_err(|error| refused(error.into()))?;
        let held = if facts.known { document.resolve(&facts).err() } else { None };
        Ok(Self { config: Some(config), warnings, held })
    }
}

fn facts(status: Option<&Status>) -> NodeFacts {
    let node = status.and_then(|status| status.self_.as_ref()).filter(|node| !node.id.is_empty());
    let name = node.map(|node| node.dns_name.trim_end_matches('.'));
    NodeFacts {
        known: node.is_some(),
        cert_domain: status.and_then(|status| status.cert_domains.first().cloned()),
        suffix: name.and_then(|name| name.split_once('.')).map(|(_, suffix)| suffix.to_owned()),
    }
}

fn read_text(path: &Path) -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let most = u64::try_from(LARGEST).unwrap_or(u64::MAX).saturating_add(1);
    std::fs::File::open(path)?.take(most).read_to_end(&mut text)?;
    String::from_utf8(text).map_err(|_| anyhow!("it is not UTF-8"))
}
