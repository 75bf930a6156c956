//! What a group's config asks for, looked at once, by those who only want to know.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::egress::Egress;
use super::egress::config::SERVICES_FILE;
use super::ingress::{Ingress, LINGER};
use super::plan::{Invalid, Kind, Plan, PodIps, View};
use crate::netfilter::ruleset::{Interface, Ruleset};
use crate::settings::Forward;

/// The config of a group, as its file holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Which kind of group it is of.
    pub kind: Kind,
    /// Where it is.
    pub path: PathBuf,
    /// What it holds, nothing where there is no file; or why it cannot be read.
    pub content: Result<Vec<u8>, String>,
}

/// What follows from a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What the table shall hold.
    pub ruleset: Arc<Ruleset>,
    /// What cannot be served, and why; one line each.
    pub problems: Vec<String>,
    /// How many Services there are.
    pub services: usize,
}

/// Where the config of this kind of group is, if one is asked for.
pub fn path(kind: Kind, forward: &Forward) -> Option<PathBuf> {
    match kind {
        Kind::Egress => forward.egress_config.as_ref().map(|dir| dir.join(SERVICES_FILE)),
        Kind::Ingress => forward.ingress_config.clone(),
    }
}

/// Reads the configs of all groups that are asked for.
pub fn read(forward: &Forward) -> Vec<ConfigFile> {
    let file = |kind| {
        let path = path(kind, forward)?;
        let content = match std::fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            content => content.map_err(|error| error.to_string()),
        };
        Some(ConfigFile { kind, path, content })
    };
    [Kind::Egress, Kind::Ingress].into_iter().filter_map(file).collect()
}

/// What a config asks for in this view; `None` while that cannot be said.
///
/// # Errors
/// It is none.
pub fn ask(kind: Kind, config: &[u8], tun: &Interface, view: &View<'_>) -> Result<Option<Asked>, Invalid> {
    // Of which Pod it is matters to the report alone.
    let pod = PodIps::default();
    match kind {
        Kind::Egress => asked(Egress::new(tun.clone(), pod), config, view),
        Kind::Ingress => asked(Ingress::new(tun.clone(), pod, LINGER), config, view),
    }
}

fn asked<P: Plan>(mut plan: P, config: &[u8], view: &View<'_>) -> Result<Option<Asked>, Invalid> {
    plan.configure(config)?;
    let desired = plan.render(view, Instant::now());
    Ok(desired.map(|desired| Asked {
        ruleset: desired.ruleset,
        problems: desired.problems,
        services: desired.services,
    }))
}
