//! How the loop of one name stands, for whoever shows or counts it. Pure.

use jiff::Timestamp;

use super::chain::Certificate;
use super::failure::Class;
use super::record::Record;

/// What a loop does right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It has just begun.
    #[default]
    Starting,
    /// The tailnet does not let the node have the name.
    NotAllowed,
    /// Another replica asks.
    NotWriter,
    /// Nothing could be stored.
    Blocked(String),
    /// The authority's limits are used up.
    OverBudget(Timestamp),
    /// Another replica is ordering it; asked again then.
    Taken(Timestamp),
    /// It is being asked for.
    Asking,
    /// A due certificate came back unchanged; asked again then.
    RenewalPending(Timestamp),
    /// Asked again then.
    Waiting(Timestamp),
}

/// How an attempt ended, as metrics spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptResult(&'static str);

/// How one name stands.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// What its loop does.
    pub phase: Phase,
    /// The certificate as the daemon last gave it.
    pub certificate: Option<Certificate>,
    /// Failures and the next attempt.
    pub record: Record,
    /// Attempts so far.
    pub attempts: u64,
    /// How they ended.
    pub results: Results,
}

/// Attempts by how they ended. Few names have more than one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results(Vec<(AttemptResult, u32)>);

impl AttemptResult {
    /// There is a new certificate.
    pub const OK: Self = Self("ok");
    /// It is the one from before.
    pub const UNCHANGED: Self = Self("unchanged");

    /// As metrics spell it.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl Results {
    /// Counts one.
    pub fn add(&mut self, result: AttemptResult) {
        match self.0.binary_search_by_key(&result, |(known, _)| *known) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (result, 1));
            }
        }
    }

    /// How many there were of one.
    pub fn of(&self, result: AttemptResult) -> u32 {
        self.0.iter().find(|(known, _)| *known == result).map_or(0, |(_, count)| *count)
    }

    /// How many there were of each, by name.
    pub fn iter(&self) -> impl Iterator<Item = (AttemptResult, u32)> {
        self.0.iter().copied()
    }
}

impl From<Class> for AttemptResult {
    fn from(class: Class) -> Self {
        Self(match class {
            Class::Transient => "transient",
            Class::RateLimited => "rate_limited",
            Class::NotAllowed => "not_allowed",
            Class::NotWriter => "not_writer",
            Class::Rights => "rights",
            Class::Storage => "storage",
            Class::Authority => "ca_error",
        })
    }
}

impl Phase {
    /// In words, for tables and logs.
    pub fn shown(&self) -> String {
        let until = |what: &str, at: &Timestamp| format!("{what} {at:.0}");
        match self {
            Self::Starting => "starting".to_owned(),
            Self::NotAllowed => "the tailnet does not allow the name".to_owned(),
            Self::NotWriter => "another replica asks".to_owned(),
            Self::Blocked(reason) => format!("blocked: storage: {reason}"),
            Self::OverBudget(at) => until("the authority's limits are used up until", at),
            Self::Taken(at) => until("another replica is ordering it, at most until", at),
            Self::Asking => "asking".to_owned(),
            Self::RenewalPending(at) => until("renewal pending, asked again at", at),
            Self::Waiting(at) => until("asked again at", at),
        }
    }
}
