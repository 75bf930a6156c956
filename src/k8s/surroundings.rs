//! What the environment says about reaching a cluster, beside the kubeconfig.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use super::egress::EnvProxies;
use super::exec::policy::Policy;
use super::exec::{Settings, Stdin};
use crate::settings::parse::GoDuration;
use crate::settings::{ProcessEnv, Vars, vars};

/// What the environment says about reaching a cluster.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `HTTPS_PROXY` and its like.
    pub proxies: EnvProxies,
    /// `SSL_CERT_FILE`: the bundle for clusters that name none.
    pub ca_bundle: Option<PathBuf>,
    /// For credential plugins.
    pub exec: Settings,
}

/// A variable whose value cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {why}")]
pub struct BadVariable {
    name: &'static str,
    why: String,
}

impl Surroundings {
    /// Of this process. Standard input is for plugins if it is a terminal.
    pub fn of_process() -> Result<Self, BadVariable> {
        let mut surroundings = Self::of(&ProcessEnv::capture())?;
        surroundings.exec.stdin.is_terminal = std::io::stdin().is_terminal();
        Ok(surroundings)
    }

    /// As `vars` say, without a terminal.
    pub fn of(vars: &dyn Vars) -> Result<Self, BadVariable> {
        let value = |name: &str| vars.get(name).ok().flatten();
        let given = |name: &str| value(name).filter(|text| !text.is_empty());
        let bad = |name: &'static str| move |why: String| BadVariable { name, why };
        let proxies =
            EnvProxies::from_vars(&value).map_err(|(name, error)| BadVariable { name, why: error.to_string() })?;
        let policy = given(vars::TAILPOD_EXEC_POLICY.name).unwrap_or_default();
        let list = given(vars::TAILPOD_EXEC_ALLOWLIST.name);
        let policy = Policy::parse(&policy, list.as_deref())
            .map_err(|error| bad(vars::TAILPOD_EXEC_POLICY.name)(error.to_string()))?;
        let duration = |var: &'static vars::Var| {
            let text = given(var.name).unwrap_or_else(|| var.default.to_owned());
            let parsed = crate::settings::parse::duration(&text).map_err(|error| bad(var.name)(error.to_string()));
            parsed.map(GoDuration::deadline)
        };
        let time_limit = duration(vars::TAILPOD_EXEC_TIMEOUT)?;
        if time_limit.is_zero() {
            return Err(bad(vars::TAILPOD_EXEC_TIMEOUT.name)("it must be more than nothing".to_owned()));
        }
        let names = given(vars::TAILPOD_EXEC_WITHHOLD.name).unwrap_or_default();
        let exec = Settings {
            policy,
            time_limit,
            withheld: names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(OsString::from).collect(),
            rotation_grace: duration(vars::TAILPOD_EXEC_ROTATION_GRACE)?,
            stdin: Stdin::default(),
            path: value("PATH").unwrap_or_default().into(),
        };
        Ok(Self { proxies, ca_bundle: given("SSL_CERT_FILE").map(PathBuf::from), exec })
    }

    /// The same for a daemon: nobody will ever answer a plugin's questions, even if it was started at a terminal.
    #[must_use]
    pub fn unattended(mut self) -> Self {
        self.exec.stdin.unavailable = Some("this is a daemon".to_owned());
        self
    }
}
