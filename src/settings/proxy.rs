//! The environment of `k8s-proxy`: little, since its config says the rest (api-proxy.md 9.3).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Problem, Problems};
use super::read::our_duration;
use super::reader::{Reader, Reported};
use super::source::Vars;
use super::{Note, Persona, capver, parse, vars};
use crate::secret::Secret;

/// What the environment says.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// `--config`, else `TS_K8S_PROXY_CONFIG`, as it is written.
    pub config: String,
    /// `POD_UID`: we run under the operator, which reads the state Secret.
    pub pod_uid: Option<String>,
    /// `POD_IP`: where health and metrics are served; wins over the config.
    pub pod_ip: Option<IpAddr>,
    /// `TS_AUTHKEY`, else `TS_AUTH_KEY`: used when the config has no key.
    pub auth_key: Option<Secret<String>>,
    /// `TS_CONTROL_URL`: used when the config names no server.
    pub control_url: Option<String>,
    /// `TAILPOD_CAPVER`, else the build's: what is written as `tailscale_capver`.
    pub capver: u32,
    /// `TAILPOD_REISSUE_TIMEOUT`
    pub reissue_timeout: Duration,
    /// `TAILPOD_WITHDRAW_WAIT`
    pub withdraw_wait: Duration,
    /// `TAILPOD_PEER_CONNECTIONS`
    pub peer_connections: Option<usize>,
    /// `TAILPOD_TERMINATION_LOG`
    pub termination_log: Option<PathBuf>,
    /// Where private directories are made: `TMPDIR`, else `/tmp`.
    pub scratch: PathBuf,
    /// `TS_TEST_ONLY_ROOT`
    pub root: PathBuf,
    /// Lines to log.
    pub notes: Vec<Note>,
}

/// What the environment says of a run beside a tailscaled that is there.
#[derive(Clone, Debug)]
pub struct BesideSettings {
    /// `POD_IP`: where health and metrics are served; wins over the config.
    pub pod_ip: Option<IpAddr>,
    /// `TAILPOD_WITHDRAW_WAIT`
    pub withdraw_wait: Duration,
    /// `TAILPOD_PEER_CONNECTIONS`
    pub peer_connections: Option<usize>,
}

/// Whether the environment asks for the persona.
pub fn is_asked_for(vars: &dyn Vars) -> bool {
    vars.get(vars::TS_K8S_PROXY_CONFIG.name).ok().flatten().is_some_and(|text| !text.is_empty())
}

/// Reads what a run beside a tailscaled takes from it.
///
/// # Errors
/// Every problem.
pub fn read_beside(vars: &dyn Vars) -> Result<BesideSettings, Problems> {
    let mut read = Reader::new(vars, Persona::Tailpod);
    let pod_ip = pod_ip(&mut read);
    let withdraw_wait = our_duration(&mut read, vars::TAILPOD_WITHDRAW_WAIT);
    let peer_connections = peer_connections(&mut read);
    read.finish(|_| {
        Ok(BesideSettings { pod_ip: pod_ip?, withdraw_wait: withdraw_wait?, peer_connections: peer_connections? })
    })
}

fn pod_ip(read: &mut Reader<'_>) -> Result<Option<IpAddr>, Reported> {
    let ip = read.text(vars::POD_IP).map(|text| {
        parse::ip(&text).map_err(|_| read.report(Problem::once(format!("POD_IP={text:?} is not an IP address"))))
    });
    ip.transpose()
}

fn peer_connections(read: &mut Reader<'_>) -> Result<Option<usize>, Reported> {
    let count = read.number(vars::TAILPOD_PEER_CONNECTIONS)?;
    Ok(count.map(|count| usize::try_from(count).unwrap_or(usize::MAX)))
}

/// Reads it. `config` stands for `TS_K8S_PROXY_CONFIG`, and wins over it.
///
/// # Errors
/// Every problem.
pub fn read(vars: &dyn Vars, config: Option<&str>) -> Result<ProxySettings, Problems> {
    let mut read = Reader::new(vars, Persona::Tailpod);
    let set = read.text(vars::TS_K8S_PROXY_CONFIG);
    let config = config.map(str::to_owned).or(set);
    if config.is_none() {
        // Upstream's words.
        read.report(
            Problem::once(format!("{} unset", vars::TS_K8S_PROXY_CONFIG.name))
                .hint("name the config: a file, or `kube:<namespace>/<name>` for a Secret"),
        );
    }
    let pod_ip = pod_ip(&mut read);
    let capver = read.number(vars::TAILPOD_CAPVER);
    let reissue_timeout = our_duration(&mut read, vars::TAILPOD_REISSUE_TIMEOUT);
    let withdraw_wait = our_duration(&mut read, vars::TAILPOD_WITHDRAW_WAIT);
    let peer_connections = peer_connections(&mut read);
    let termination_log = match read.text_or_unset(vars::TAILPOD_TERMINATION_LOG) {
        Some(path) => Some(path).filter(|path| !path.is_empty()),
        None => Some(vars::TAILPOD_TERMINATION_LOG.default.to_owned()),
    };
    let pod_uid = read.text(vars::POD_UID);
    let auth_key = read.text(vars::TS_AUTHKEY).or_else(|| read.text(vars::TS_AUTH_KEY)).map(Secret::new);
    let control_url = read.text(vars::TS_CONTROL_URL);
    let root = PathBuf::from(read.text_or_default(vars::TS_TEST_ONLY_ROOT));
    let scratch = vars.get("TMPDIR").ok().flatten().filter(|path| !path.is_empty()).unwrap_or("/tmp".to_owned());
    read.finish(|notes| {
        Ok(ProxySettings {
            config: config.unwrap_or_default(),
            pod_uid,
            pod_ip: pod_ip?,
            auth_key,
            control_url,
            capver: capver?.unwrap_or(capver::CAPVER),
            reissue_timeout: reissue_timeout?,
            withdraw_wait: withdraw_wait?,
            peer_connections: peer_connections?,
            termination_log: termination_log.map(PathBuf::from),
            scratch: scratch.into(),
            root,
            notes,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn settings(env: &[(&str, &str)]) -> Result<ProxySettings, Vec<String>> {
        let vars: BTreeMap<&str, &str> = env.iter().copied().collect();
        read(&vars, None).map_err(|problems| problems.lines())
    }

    #[test]
    fn a_missing_config_is_told_in_upstreams_words() {
        assert_eq!(settings(&[]).unwrap_err(), ["invalid configuration: TS_K8S_PROXY_CONFIG unset"]);
        assert!(settings(&[("TS_K8S_PROXY_CONFIG", "")]).is_err());
    }

    #[test]
    fn every_problem_is_told() {
        let bad = [("POD_IP", "x"), ("TAILPOD_WITHDRAW_WAIT", "soon"), ("TAILPOD_PEER_CONNECTIONS", "many")];
        let problems = settings(&bad).unwrap_err();
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn fallbacks_and_defaults() {
        let base = ("TS_K8S_PROXY_CONFIG", "/etc/proxy.hujson");
        let bare = settings(&[base]).unwrap();
        assert_eq!((bare.withdraw_wait, bare.reissue_timeout), (Duration::from_secs(20), Duration::from_secs(600)));
        assert_eq!(bare.scratch, PathBuf::from("/tmp"));
        let full =
            settings(&[base, ("TS_AUTH_KEY", "k"), ("TS_CONTROL_URL", "u"), ("POD_IP", "::1"), ("POD_UID", "1")]);
        let full = full.unwrap();
        assert_eq!(full.auth_key, Some("k".to_owned().into()));
        assert_eq!((full.control_url.as_deref(), full.pod_uid.as_deref()), (Some("u"), Some("1")));
        assert_eq!(full.pod_ip, Some("::1".parse().unwrap()));
        assert!(!format!("{full:?}").contains("\"k\""));
    }
}
