//! What is served and advertised.

use super::problem::Problem;
use super::reader::Reader;
use super::{ConfigFile, Persona, rules, vars};

/// Which Services are advertised, and whose they are (certs.md 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertising {
    /// `TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT`; unset, whether the config file leaves it to boot which they are.
    pub is_automatic: bool,
    /// `TAILPOD_ADVERTISE_WITHOUT_CERT`: one that could do nothing without its certificate is advertised all the same.
    pub without_certificate: bool,
    /// `TAILPOD_OWN_ALL_SERVICES`: what somebody else advertises is withdrawn.
    pub owns_all: bool,
}

impl Advertising {
    /// Reads it, where the config file may say which Services are advertised.
    pub(super) fn read(read: &mut Reader<'_>, config: Option<&ConfigFile>) -> Self {
        let is_automatic = read.boolean_or_unset(vars::TS_EXPERIMENTAL_SERVICE_AUTO_ADVERTISEMENT);
        Self {
            is_automatic: is_automatic.unwrap_or(!config.is_some_and(|file| file.advertises_services)),
            without_certificate: read.boolean(vars::TAILPOD_ADVERTISE_WITHOUT_CERT),
            owns_all: read.boolean(vars::TAILPOD_OWN_ALL_SERVICES),
        }
    }
}

/// What does not go together with a serve config (certs.md 3.1, localapi.md 7.9).
pub(super) fn check(read: &mut Reader<'_>, checked: &rules::Checked, forwards: bool) {
    if let Ok(Some(file)) = &checked.config
        && file.locked
    {
        let text =
            "TS_SERVE_CONFIG cannot be set when the tailscaled config file is locked: tailscaled refuses all changes";
        read.report_late(Problem::once(text).hint("set \"Locked\": false in the config file; its default is true"));
    }
    // Upstream only documents it.
    if forwards && read.persona() == Persona::Tailpod {
        let text = "TS_SERVE_CONFIG and TS_DEST_IP cannot both be set: all traffic goes to the destination";
        read.report_late(Problem::once(text));
    }
}
