//! Variables of parts that are not built yet (boot.md E.6).
//!
//! This list is the seam: the part that brings a feature deletes its row and reads the variable into [`Settings`]
//! instead.
//!
//! [`Settings`]: super::Settings

use super::problem::Problem;
use super::reader::Reader;
use super::vars::{self, Rule, Var};

/// Set to anything (or, for booleans, to true), these end in an error that names them.
static UNBUILT: &[&Var] = &[
    vars::TS_DEST_IP,
    vars::TS_EXPERIMENTAL_DEST_DNS_NAME,
    vars::TS_TAILNET_TARGET_IP,
    vars::TS_TAILNET_TARGET_FQDN,
    vars::EXPERIMENTAL_ALLOW_PROXYING_CLUSTER_TRAFFIC_VIA_INGRESS,
    vars::TS_EGRESS_PROXIES_CONFIG_PATH,
    vars::TS_INGRESS_PROXIES_CONFIG_PATH,
];

/// Reports each of them that is in use. Comes after upstream's rules, so that their texts stand first.
pub(super) fn check(read: &mut Reader<'_>) {
    for var in UNBUILT {
        let used = match var.rule {
            Rule::Bool => read.boolean(var),
            _ => read.text(var).is_some(),
        };
        if used {
            read.report(Problem::once(format!("{} is not supported by this build of tailpod", var.name)));
        }
    }
}

/// The names, for documentation.
pub fn names() -> impl Iterator<Item = &'static str> {
    UNBUILT.iter().map(|var| var.name)
}
