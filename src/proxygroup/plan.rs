//! What both kinds of groups have in common: a config becomes rules and a report. Pure.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::netfilter::ruleset::{Ruleset, Table};

/// Which kind of group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ports of the Pod lead to the tailnet (M6).
    Egress,
    /// Addresses of Tailscale Services lead to the cluster (M7).
    Ingress,
}

impl Kind {
    /// As messages and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Ingress => "ingress",
        }
    }

    /// The table that belongs to it alone.
    pub fn table(self) -> Table {
        match self {
            Self::Egress => Table::Egress,
            Self::Ingress => Table::Ingress,
        }
    }
}

/// The addresses of this incarnation of the Pod: the Secret survives the Pod, so a report names whom it is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodIps {
    /// The IPv4 address.
    pub ipv4: Option<IpAddr>,
    /// The IPv6 address.
    pub ipv6: Option<IpAddr>,
}

/// The world at one moment, as far as rules depend on it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The node's own tailnet addresses, in node order; none while they are not known.
    pub own: &'a [IpAddr],
    /// Whether IPv6 can be translated.
    pub ipv6: bool,
    /// Whether the Pod is being drained.
    pub draining: bool,
    /// The addresses of a name of the tailnet, or why there are none.
    pub resolve: &'a dyn Fn(&str) -> Result<Vec<IpAddr>, String>,
}

/// What follows from a config and a view.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired<S> {
    /// What the table shall hold.
    pub ruleset: Arc<Ruleset>,
    /// What is true of the rules once they are in force.
    pub status: Arc<S>,
    /// What cannot be served, and why; one line each.
    pub problems: Vec<String>,
    /// How many Services there are.
    pub services: usize,
    /// How many of them lead nowhere for now.
    pub unresolved: usize,
    /// When the same inputs mean something else.
    pub again: Option<Instant>,
}

impl<S> Desired<S> {
    /// How many ports or addresses are translated.
    pub fn mappings(&self) -> usize {
        let (v4, v6) = (self.ruleset.v4(), self.ruleset.v6());
        v4.ports.len() + v4.services.len() + v6.ports.len() + v6.services.len()
    }
}

/// A config that is none. What was in force stays.
#[derive(Debug, thiserror::Error)]
#[error("it is not a JSON object of Services")]
pub struct Invalid(#[from] pub serde_json::Error);

/// One kind of group: what it was told and what it remembers.
pub trait Plan: Send + 'static {
    /// What the operator reads, in the member order of upstream's types.
    type Status: Clone + PartialEq + Serialize + Send + Sync + 'static;

    /// Which one it is.
    const KIND: Kind;

    /// Takes the content of the config file; absent is the same as empty.
    ///
    /// # Errors
    /// It is not JSON of the right shape; the last good one stays.
    fn configure(&mut self, text: &[u8]) -> Result<(), Invalid>;

    /// What shall be now; `None` while that cannot be said, and the table is to be left as it is.
    fn render(&mut self, view: &View<'_>, now: Instant) -> Option<Desired<Self::Status>>;

    /// Whether there is nothing in it that anybody has to know.
    fn is_empty(status: &Self::Status) -> bool;

    /// What a log tells of the way from one status to the next, one line for each Service that differs.
    fn changes(before: Option<&Self::Status>, after: &Self::Status) -> Vec<String>;
}
