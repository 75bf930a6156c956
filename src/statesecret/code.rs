//! The stable names of what can be wrong with a state Secret. Pure.
//!
//! Codes are a contract: alerts and runbooks name them, so one is never given to another problem.

use std::fmt::Write as _;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The node cannot work like this.
    Error,
    /// It works, and will not for ever.
    Warning,
}

/// A stable name: `TP-SECRET-001`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// No current profile is named.
    NoCurrentProfile,
    /// The current profile is not there.
    ProfileGone,
    /// There is a machine key and no profile.
    MachineKeyAlone,
    /// There is more than one profile.
    SeveralProfiles,
    /// A key that only one machine can use.
    AttestationKey,
    /// The capability version is ahead of the daemon.
    CapabilityAhead,
    /// A request for an auth key was left behind.
    MarkerLeft,
    /// Two Pods live on it.
    TwoPods,
    /// Somebody else owns its data.
    ForeignOwner,
    /// A value that tailscaled cannot read.
    Unreadable,
    /// It is nearly full.
    NearlyFull,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 11] = [
        Self::NoCurrentProfile,
        Self::ProfileGone,
        Self::MachineKeyAlone,
        Self::SeveralProfiles,
        Self::AttestationKey,
        Self::CapabilityAhead,
        Self::MarkerLeft,
        Self::TwoPods,
        Self::ForeignOwner,
        Self::Unreadable,
        Self::NearlyFull,
    ];

    /// As people and alerts write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCurrentProfile => "TP-SECRET-001",
            Self::ProfileGone => "TP-SECRET-002",
            Self::MachineKeyAlone => "TP-SECRET-003",
            Self::SeveralProfiles => "TP-SECRET-004",
            Self::AttestationKey => "TP-SECRET-005",
            Self::CapabilityAhead => "TP-SECRET-006",
            Self::MarkerLeft => "TP-SECRET-007",
            Self::TwoPods => "TP-SECRET-008",
            Self::ForeignOwner => "TP-SECRET-009",
            Self::Unreadable => "TP-SECRET-010",
            Self::NearlyFull => "TP-SECRET-011",
        }
    }
}

impl Code {
    /// How bad it is, what it means, and what `secret repair` does about it: a row of the README.
    const fn row(self) -> [&'static str; 3] {
        match self {
            Self::NoCurrentProfile => {
                ["error", "`_current-profile` is missing although there is a profile", "names the profile"]
            }
            Self::ProfileGone => {
                ["error", "`_current-profile` names a profile that is not there", "names the one that is"]
            }
            Self::MachineKeyAlone => {
                ["warning", "there is a machine key and no profile", "deletes it, once no Pod lives on the Secret"]
            }
            Self::SeveralProfiles => {
                ["warning", "there is more than one profile", "deletes those that tailscaled does not list"]
            }
            Self::AttestationKey => {
                ["warning", "a hardware attestation key binds the identity to one machine", "takes it out"]
            }
            Self::CapabilityAhead => [
                "error if the operator made the Secret, else warning",
                "`tailscale_capver` is more than the daemon reads",
                "sets it to what the daemon reads",
            ],
            Self::MarkerLeft => {
                ["warning", "a request for an auth key is answered, or older than ten minutes", "deletes the request"]
            }
            Self::TwoPods => ["error", "two living Pods use the Secret", ""],
            Self::ForeignOwner => [
                "error if it owns the identity, else warning",
                "External Secrets, Argo CD and the like own keys of the node",
                "",
            ],
            Self::Unreadable => ["error", "a value is not what tailscaled writes", ""],
            Self::NearlyFull => ["warning", "nine tenths of a Secret's 1 MiB are used", ""],
        }
    }
}

/// Every finding as a table of the README.
pub fn markdown_table() -> String {
    let mut table = String::from("| Code | Severity | Finding | `repair` |\n| --- | --- | --- | --- |\n");
    for code in Code::ALL {
        let [severity, meaning, repair] = code.row();
        let repair = if repair.is_empty() { "–" } else { repair };
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{}` | {severity} | {meaning} | {repair} |", code.as_str());
    }
    table
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_the_published_ones() {
        for (at, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.as_str(), format!("TP-SECRET-{:03}", at + 1));
        }
        assert_eq!(markdown_table().lines().count(), Code::ALL.len() + 2);
    }
}
