//! What a check finds: a stable code, a level, a sentence, and what to paste. Pure.
//!
//! Codes are contract: a check keeps its code for ever, and a code that is no longer used is not used again.

use std::fmt::Write as _;

use serde::Serialize;

use crate::manifests::permissions::PERMISSIONS;

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not looked at, with the reason.
    Skipped,
    /// It works, but somebody should know.
    Warning,
    /// It does not work.
    Failure,
}

/// A group of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// The environment.
    Env,
    /// The way to the API server.
    Api,
    /// What we may do there.
    Rbac,
    /// Clocks.
    Clock,
    /// tailscaled.
    Daemon,
    /// The kernel around us.
    Host,
    /// Names.
    Dns,
    /// Memory.
    Memory,
    /// Serve config and certificates.
    Serve,
    /// Who issues certificates, and where they are kept.
    Certs,
}

/// A check: its code and what it looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// `TP-RBAC-002`
    pub code: &'static str,
    /// The group that it belongs to.
    pub group: Group,
    /// What it looks at, for the README.
    pub about: &'static str,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check.
    pub code: &'static str,
    /// Its group.
    pub group: Group,
    /// How it stands.
    pub level: Level,
    /// What was found, in one sentence.
    pub sentence: String,
    /// What to paste or to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Group {
    /// All, in the order of the checks.
    pub const ALL: [Self; 10] = [
        Self::Env,
        Self::Api,
        Self::Rbac,
        Self::Clock,
        Self::Daemon,
        Self::Host,
        Self::Dns,
        Self::Memory,
        Self::Serve,
        Self::Certs,
    ];

    /// As `--only` and `--json` spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Env => "env",
            Self::Api => "api",
            Self::Rbac => "rbac",
            Self::Clock => "clock",
            Self::Daemon => "daemon",
            Self::Host => "host",
            Self::Dns => "dns",
            Self::Memory => "memory",
            Self::Serve => "serve",
            Self::Certs => "certs",
        }
    }
}

impl Level {
    /// The word that stands before a line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

impl Code {
    /// A finding of this check.
    pub fn finding(&self, level: Level, sentence: impl Into<String>) -> Finding {
        Finding { code: self.code, group: self.group, level, sentence: sentence.into(), remedy: None }
    }

    /// All is well.
    pub fn ok(&self, sentence: impl Into<String>) -> Finding {
        self.finding(Level::Ok, sentence)
    }

    /// It could not, or need not, be looked at.
    pub fn skipped(&self, sentence: impl Into<String>) -> Finding {
        self.finding(Level::Skipped, sentence)
    }

    /// It works, but somebody should know.
    pub fn warning(&self, sentence: impl Into<String>) -> Finding {
        self.finding(Level::Warning, sentence)
    }

    /// It does not work, and this is what to paste or to do: no failure comes without.
    pub fn failure(&self, sentence: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Level::Failure, sentence).remedy(remedy)
    }
}

impl Finding {
    /// With what to do about it.
    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }
}

macro_rules! codes {
    ($($name:ident $code:literal $group:ident $about:literal;)*) => {
        $(
            #[doc = concat!("`", $code, "`: ", $about)]
            pub const $name: &Code = &Code { code: $code, group: Group::$group, about: $about };
        )*
        const OWN: &[&Code] = &[$($name),*];
    };
}

codes! {
    ENV_SETTINGS "TP-ENV-001" Env "the settings can be read and do not exclude each other";
    ENV_WARNINGS "TP-ENV-002" Env "the settings are spelled right and have an effect";
    ENV_FILES "TP-ENV-003" Env "the files and programs that the settings name are there";
    ENV_STATE "TP-ENV-004" Env "the identity outlives the container";
    ENV_USERSPACE "TP-ENV-005" Env "other programs in the Pod can reach the tailnet";
    API_ACCESS "TP-API-001" Api "service account or kubeconfig can be used";
    API_NAME "TP-API-002" Api "the API server's name resolves";
    API_TCP "TP-API-003" Api "the API server accepts connections";
    API_TLS "TP-API-004" Api "its certificate is trusted, and it answers HTTP";
    API_TOKEN "TP-API-005" Api "the token has not expired and is this Pod's";
    API_IDENTITY "TP-API-006" Api "the API server knows who we are";
    RBAC_DRY_RUN "TP-RBAC-010" Rbac "a change of the state Secret would be accepted (dry run)";
    CLOCK_SKEW "TP-CLOCK-001" Clock "the API server's clock and ours agree";
    DAEMON_SOCKET "TP-DAEMON-001" Daemon "tailscaled's socket can be opened, with the right to change things";
    DAEMON_VERSION "TP-DAEMON-002" Daemon "tailscaled's version is supported and fits the capability version";
    DAEMON_STATE "TP-DAEMON-003" Daemon "the node is logged in and running";
    DAEMON_EXPIRY "TP-DAEMON-004" Daemon "the node key does not expire soon";
    DAEMON_HEALTH "TP-DAEMON-005" Daemon "tailscaled reports no trouble";
    DAEMON_PREFS "TP-DAEMON-006" Daemon "the prefs are what the settings say";
    DAEMON_ROUTES "TP-DAEMON-007" Daemon "advertised routes are approved";
    HOST_TUN "TP-HOST-001" Host "the TUN device can be opened";
    HOST_FORWARDING "TP-HOST-002" Host "IP forwarding is on for the routes' families";
    HOST_FIREWALL "TP-HOST-003" Host "there is a firewall backend that tailscaled can use";
    HOST_CAPABILITIES "TP-HOST-004" Host "the container has the capabilities NET_ADMIN and NET_RAW";
    HOST_RULES "TP-HOST-005" Host "the packet rules are those that the settings and the groups' configs ask for";
    DNS_CONTROL "TP-DNS-001" Dns "the control server's name resolves";
    DNS_RESOLVER "TP-DNS-002" Dns "resolv.conf does not point at a tailscaled that is not there";
    MEMORY_LIMIT "TP-MEMORY-001" Memory "tailscaled stays clear of the container's memory limit";
    MEMORY_KILLS "TP-MEMORY-002" Memory "nothing in the container was killed for want of memory";
    SERVE_CONFIG "TP-SERVE-001" Serve "the serve config can be read, and its certificates can be had";
    SERVE_CERTIFICATE "TP-SERVE-002" Serve "this user may fetch certificates from tailscaled";
    CERTS_NAMES "TP-CERTS-001" Certs "every name in the serve config can be read";
    CERTS_HTTPS "TP-CERTS-002" Certs "HTTPS is enabled for the tailnet, if certificates are wanted";
    CERTS_ALLOWED "TP-CERTS-003" Certs "the tailnet allows every name that is wanted";
    CERTS_SHARING "TP-CERTS-004" Certs "the share mode fits the Pod, its state store and its tailscaled";
    CERTS_SECRETS "TP-CERTS-005" Certs "every shared name has its TLS Secret, with the right type and labels";
    CERTS_RIGHTS "TP-CERTS-006" Certs "the Role allows `get` and `patch` on those Secrets";
    CERTS_LEASE "TP-CERTS-007" Certs "the Role allows what the Lease needs, if one decides who issues";
    CERTS_ACCOUNT "TP-CERTS-008" Certs "certificates were issued to the present ACME account";
    CERTS_LOCKED "TP-CERTS-009" Certs "tailscaled lets its serve config be changed";
    CERTS_DAEMON "TP-CERTS-010" Certs "tailscaled says when a rate limit ends, and orders names side by side";
    CERTS_STATUS "TP-CERTS-011" Certs "every certificate is there and good";
    CERTS_BUDGET "TP-CERTS-012" Certs "the authority's limits leave room for every name";
}

/// The check of a code, if there is one.
pub fn find(code: &str) -> Option<Code> {
    all().into_iter().find(|known| known.code == code)
}

/// All checks, in the order in which they are reported.
pub fn all() -> Vec<Code> {
    let permissions = PERMISSIONS.iter().map(|permission| Code {
        code: permission.code,
        group: Group::Rbac,
        about: "the right that [Permissions](#permissions) lists in this place",
    });
    let (before, after): (Vec<_>, Vec<_>) = OWN.iter().map(|code| **code).partition(|code| code.group < Group::Rbac);
    before.into_iter().chain(permissions).chain(after).collect()
}

/// The table for the README.
pub fn markdown_table() -> String {
    let mut table = String::from("| Code | Group | In order when |\n| --- | --- | --- |\n");
    for code in all() {
        let about = match PERMISSIONS.iter().find(|permission| permission.code == code.code) {
            Some(permission) => {
                format!("the Role allows `{}` on {}, if it is needed", permission.verb, permission.resource)
            }
            None => code.about.to_owned(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| `{}` | `{}` | {about} |", code.code, code.group.name());
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_well_formed_and_in_order() {
        let codes = all();
        let unique: BTreeSet<_> = codes.iter().map(|code| code.code).collect();
        assert_eq!(unique.len(), codes.len());
        for (at, group) in Group::ALL.iter().enumerate() {
            let numbers: Vec<_> = codes.iter().filter(|code| code.group == *group).map(|code| code.code).collect();
            let expected: Vec<_> =
                (1..=numbers.len()).map(|n| format!("TP-{}-{n:03}", group.name().to_uppercase())).collect();
            assert_eq!(numbers, expected);
            assert!(at == 0 || Group::ALL[at - 1] < *group);
        }
        assert!(codes.windows(2).all(|pair| pair[0].group <= pair[1].group), "reported group by group");
    }
}
