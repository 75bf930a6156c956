//! What the certificate loops need of the world, and no more.
//!
//! Behind it are tailscaled's certificate endpoint, the clock, and the place where certificates and what is known of
//! them are kept: Secrets in a cluster, a directory elsewhere. Schedules of months are tested with one that is made up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::budget::Ledger;
use super::names::Name;
use super::record::Record;
use crate::localapi::Error;

/// Somebody else is ordering a certificate for the name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{holder} is ordering it; its claim ends {until}")]
pub struct Taken {
    /// Who.
    pub holder: String,
    /// When that does not count any more.
    pub until: Timestamp,
}

/// Something that people who look at the certificate's Secret should see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether somebody should look.
    pub is_bad: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// Why nothing can be stored for a name, so that no authority should be asked for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Blocked(pub String);

/// The names that the tailnet lets this node have certificates for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    /// Not known yet.
    #[default]
    Unknown,
    /// These.
    Names(Arc<BTreeSet<String>>),
    /// It has not been possible to find out for so long that asking for a certificate is the better way.
    Unusable,
}

/// Whether this replica asks for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does.
    Writer,
    /// Another one does.
    Reader,
}

/// The surroundings of the loops.
pub trait World: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Timestamp;

    /// A number in `0.0..1.0`, to spread what many do.
    fn chance(&self) -> f64;

    /// Asks the daemon for the chain of `name`, which may issue or renew it; dropping the call aborts the order.
    fn certificate(
        &self,
        name: &Name,
        min_validity: Duration,
        limit: Duration,
    ) -> impl Future<Output = Result<String, Error>> + Send;

    /// Whether a certificate for `name` could be stored.
    fn check_storage(&self, name: &Name) -> impl Future<Output = Result<(), Blocked>> + Send;

    /// What an earlier process or another replica knew of `name`, and the orders for it.
    fn load(&self, name: &Name) -> impl Future<Output = (Record, Ledger)> + Send;

    /// Keeps it for a later one; what cannot be kept is logged and forgotten.
    fn save(&self, name: &Name, record: &Record) -> impl Future<Output = ()> + Send;

    /// The orders of late.
    fn load_ledger(&self) -> impl Future<Output = Ledger> + Send;

    /// Keeps them, after one for `name`.
    fn save_ledger(&self, name: &Name, ledger: &Ledger) -> impl Future<Output = ()> + Send;

    /// Claims the next order for `name`, where several may want it; [`save`](Self::save) gives it up. Says when the order
    /// of an earlier claim began that nobody has given up.
    fn claim(&self, _name: &Name) -> impl Future<Output = Result<Option<Timestamp>, Taken>> + Send {
        async { Ok(None) }
    }

    /// Gives up a claim whose order was abandoned.
    fn give_up(&self, _name: &Name) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Of `names`, those whose certificate is gone from where it was stored, as far as that can be seen.
    fn emptied(&self, _names: &BTreeSet<Name>) -> impl Future<Output = Vec<Name>> + Send {
        async { Vec::new() }
    }

    /// Tells people.
    fn tell(&self, _name: &Name, _news: News) -> impl Future<Output = ()> + Send {
        async {}
    }
}

impl Allowed {
    /// The certificate domains that control names.
    pub fn of(domains: &[String]) -> Self {
        let normal = |name: &String| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        Self::Names(Arc::new(domains.iter().map(normal).collect()))
    }

    /// Whether `name` may be asked for.
    pub fn lets(&self, name: &Name) -> bool {
        match self {
            Self::Unknown => false,
            Self::Names(names) => names.contains(name.as_str()),
            Self::Unusable => true,
        }
    }

    /// The names, for people.
    pub fn shown(&self) -> String {
        match self {
            Self::Unknown => "not known yet".to_owned(),
            Self::Unusable => "cannot be found out".to_owned(),
            Self::Names(names) if names.is_empty() => "none: is HTTPS enabled for the tailnet?".to_owned(),
            Self::Names(names) => names.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
        }
    }
}
