//! Which of several replicas asks for certificates: as somebody chose, and as far as it is possible. Pure.
//!
//! Upstream's rule is the ordinal (`cmd/containerboot/settings.go`, `kube/certs`): replica 0 and no other. Where a Lease
//! decides instead, every replica can, one at a time ([`lease`](super::lease)).

use std::time::Duration;

pub use crate::settings::CertWriter as Choice;
use crate::settings::{CertShare, NoShare, replica_of};

/// A Lease's duration unless somebody says otherwise.
pub const LEASE_DURATION: Duration = Duration::from_secs(60);

/// One replica of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The Pod's name.
    pub pod: String,
    /// Who it is in a Lease: `<pod name>_<pod uid>`.
    pub identity: String,
    /// What all replicas have in common: the Pod's name without its ordinal.
    pub group: String,
    /// `<n>` at the end of the Pod's name.
    pub ordinal: Option<u32>,
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It asks for certificates.
    Writer,
    /// It never does.
    Reader,
    /// It does while it holds the Lease.
    Elected,
}

/// Why it cannot be told what this replica does. Upstream would make every replica a reader, and say nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDuty {
    /// There is no name.
    #[error("the Pod's name is not known, so it cannot be told which replica asks for certificates")]
    NoPod,
    /// The name has no number.
    #[error("`{0}` does not end in the number of a replica, so it cannot be told which one asks for certificates")]
    NoOrdinal(String),
}

impl Member {
    /// The replica in Pod `pod`. Without `uid`, `fallback` tells it from another Pod of that name, which may live on
    /// where nobody can see it.
    pub fn new(pod: &str, uid: Option<&str>, group: Option<&str>, fallback: &str) -> Self {
        let split = replica_of(pod);
        Self {
            pod: pod.to_owned(),
            identity: format!("{pod}_{}", uid.filter(|uid| !uid.is_empty()).unwrap_or(fallback)),
            group: group.or(split.map(|(group, _)| group)).unwrap_or(pod).to_owned(),
            ordinal: split.map(|(_, ordinal)| ordinal),
        }
    }
}

impl Duty {
    /// What `member` does. `may_elect` is whether it has the rights that a Lease takes; without them the ordinal decides.
    ///
    /// # Errors
    /// The ordinal decides, and there is none.
    pub fn of(choice: Choice, member: Option<&Member>, may_elect: bool) -> Result<Self, NoDuty> {
        let choice = if choice == Choice::Lease && !may_elect { Choice::Ordinal } else { choice };
        match CertShare::of(member.map(|member| member.pod.as_str()), choice) {
            Ok(CertShare::Writes) => Ok(Self::Writer),
            Ok(CertShare::Reads) => Ok(Self::Reader),
            Ok(CertShare::Elected) => Ok(Self::Elected),
            Err(NoShare::NoName) => Err(NoDuty::NoPod),
            Err(NoShare::NoOrdinal) => {
                Err(NoDuty::NoOrdinal(member.map(|member| member.pod.clone()).unwrap_or_default()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_told_by_its_pod() {
        let member = Member::new("my-pg-12", Some("u-1"), None, "x");
        assert_eq!((member.identity.as_str(), member.group.as_str()), ("my-pg-12_u-1", "my-pg"));
        assert_eq!(member.ordinal, Some(12));
        let named = Member::new("pg-7f9c-x2x4z", Some(""), Some("pg"), "random");
        assert_eq!((named.identity.as_str(), named.group.as_str()), ("pg-7f9c-x2x4z_random", "pg"));
        assert_eq!(named.ordinal, None);
        for (pod, group, ordinal) in [("pg-", "pg-", None), ("pg", "pg", None), ("pg-+1", "pg-+1", None)] {
            let member = Member::new(pod, None, None, "x");
            assert_eq!((member.group.as_str(), member.ordinal), (group, ordinal), "{pod}");
        }
    }

    #[test]
    fn s19_without_the_rights_for_a_lease_the_ordinal_decides() {
        let member = |pod| Member::new(pod, Some("u"), None, "x");
        for (choice, pod, may, duty) in [
            (Choice::Ordinal, "pg-0", true, Ok(Duty::Writer)),
            (Choice::Ordinal, "pg-1", true, Ok(Duty::Reader)),
            (Choice::Ordinal, "pg", true, Err(NoDuty::NoOrdinal("pg".to_owned()))),
            (Choice::Lease, "pg-1", true, Ok(Duty::Elected)),
            (Choice::Lease, "pg", true, Ok(Duty::Elected)),
            (Choice::Lease, "pg-0", false, Ok(Duty::Writer)),
            (Choice::Lease, "pg-1", false, Ok(Duty::Reader)),
            (Choice::Lease, "pg", false, Err(NoDuty::NoOrdinal("pg".to_owned()))),
            (Choice::Off, "pg-0", true, Ok(Duty::Reader)),
        ] {
            assert_eq!(Duty::of(choice, Some(&member(pod)), may), duty, "{choice:?} {pod} {may}");
        }
        assert_eq!(Duty::of(Choice::Lease, None, true), Err(NoDuty::NoPod));
    }
}
