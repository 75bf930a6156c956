//! LocalAPI's JSON documents, as far as tailpod reads or writes them. Pure.
//!
//! Go's conventions hold everywhere: any slice or map may be `null`, unknown fields are ignored, new enum texts
//! never break decoding. Follows upstream's `ipn/backend.go`, `ipn/ipnstate/ipnstate.go`, `ipn/prefs.go`,
//! `tailcfg/tailcfg.go`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::prefix::Prefix;

/// tailscaled's backend state (`ipn.State`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// 0: not decided yet, or the state store is unhealthy.
    NoState,
    /// 1: another OS user owns the daemon.
    InUseOtherUser,
    /// 2: no usable login.
    NeedsLogin,
    /// 3: device approval is pending.
    NeedsMachineAuth,
    /// 4: `WantRunning` is false.
    Stopped,
    /// 5: logged in, data plane not up yet.
    Starting,
    /// 6: up.
    Running,
    /// A number or text this build does not know; keep waiting.
    Unknown,
}

impl State {
    /// From `Notify.State`.
    pub fn from_number(number: i64) -> Self {
        match number {
            0 => Self::NoState,
            1 => Self::InUseOtherUser,
            2 => Self::NeedsLogin,
            3 => Self::NeedsMachineAuth,
            4 => Self::Stopped,
            5 => Self::Starting,
            6 => Self::Running,
            _ => Self::Unknown,
        }
    }

    /// From `Status.BackendState`. The empty text is "not said".
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "" => return None,
            "NoState" => Self::NoState,
            "InUseOtherUser" => Self::InUseOtherUser,
            "NeedsLogin" => Self::NeedsLogin,
            "NeedsMachineAuth" => Self::NeedsMachineAuth,
            "Stopped" => Self::Stopped,
            "Starting" => Self::Starting,
            "Running" => Self::Running,
            _ => Self::Unknown,
        })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One message of the IPN bus (`ipn.Notify`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Notify {
    /// The daemon's long version.
    #[serde(deserialize_with = "null_default")]
    pub version: String,
    /// Details of `InUseOtherUser`, the overflow notice, or an error to log.
    pub err_message: Option<String>,
    /// [`State::from_number`]
    pub state: Option<i64>,
    /// Current prefs (initial-prefs bit, and on change).
    pub prefs: Option<Prefs>,
    /// The self node changed.
    pub self_change: Option<Node>,
    /// Full status (first message only).
    pub initial_status: Option<Status>,
    /// Legacy full netmap (1.98 and older).
    pub net_map: Option<NetworkMap>,
    /// Peers to add or replace, by id.
    #[serde(deserialize_with = "null_default")]
    pub peers_changed: Vec<Node>,
    /// Peers to delete, by id.
    #[serde(deserialize_with = "null_default")]
    pub peers_removed: Vec<i64>,
    /// Only its presence matters.
    pub peer_changed_patch: Option<serde::de::IgnoredAny>,
    /// 1.98's deltas instead of a netmap; only its presence matters.
    pub peer_changes: Option<serde::de::IgnoredAny>,
    /// Users who are new or have another name; only its presence matters.
    pub user_profiles: Option<serde::de::IgnoredAny>,
    /// Interactive login URL.
    #[serde(rename = "BrowseToURL")]
    pub browse_to_url: Option<String>,
    /// The complete set of unhealthy warnables.
    pub health: Option<Health>,
}

/// The complete health state of the daemon.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// By code; a code that is absent is healthy.
    #[serde(deserialize_with = "null_default")]
    pub warnings: BTreeMap<String, Warning>,
}

/// One unhealthy warnable.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Warning {
    /// Human text.
    #[serde(deserialize_with = "null_default")]
    pub text: String,
    /// Details such as `error`.
    #[serde(deserialize_with = "null_default")]
    pub args: BTreeMap<String, String>,
}

/// The code of the warning that a certificate is being ordered, with the names in `domains` (`tsconst/health.go`).
pub const TLS_CERT_PENDING: &str = "tls-cert-pending";
/// The code of the warning that a login attempt failed (`health.LoginStateWarnable`).
pub const LOGIN_STATE: &str = "login-state";

/// `ipnstate.Status`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Status {
    /// The daemon's long version.
    #[serde(deserialize_with = "null_default")]
    pub version: String,
    /// False means userspace networking.
    #[serde(rename = "TUN", deserialize_with = "null_default")]
    pub tun: bool,
    /// [`State::from_name`]
    #[serde(deserialize_with = "null_default")]
    pub backend_state: String,
    /// Whether a node key exists: the node has logged in at least once.
    #[serde(deserialize_with = "null_default")]
    pub have_node_key: bool,
    /// Pending login URL.
    #[serde(rename = "AuthURL", deserialize_with = "null_default")]
    pub auth_url: String,
    /// This node; an empty `id` means that there is no netmap yet.
    #[serde(rename = "Self")]
    pub self_: Option<PeerStatus>,
    /// Human texts, not codes.
    #[serde(deserialize_with = "null_default")]
    pub health: Vec<String>,
    /// Names certificates can be had for, in control's order.
    #[serde(deserialize_with = "null_default")]
    pub cert_domains: Vec<String>,
    /// Extra DNS records.
    #[serde(deserialize_with = "null_default")]
    pub extra_records: Vec<DnsRecord>,
    /// Peers by node key.
    #[serde(deserialize_with = "null_default")]
    pub peer: BTreeMap<String, PeerStatus>,
}

/// `ipnstate.PeerStatus`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeerStatus {
    /// Stable id.
    #[serde(rename = "ID", deserialize_with = "null_default")]
    pub id: String,
    /// Numeric id; 0 on old daemons.
    #[serde(rename = "NodeID", deserialize_with = "null_default")]
    pub node_id: i64,
    /// FQDN with trailing dot.
    #[serde(rename = "DNSName", deserialize_with = "null_default")]
    pub dns_name: String,
    /// Own addresses.
    #[serde(rename = "TailscaleIPs", deserialize_with = "null_default")]
    pub tailscale_ips: Vec<IpAddr>,
    /// Prefixes routed to it.
    #[serde(rename = "AllowedIPs", deserialize_with = "null_default")]
    pub allowed_ips: Vec<Prefix>,
    /// For self: whether the daemon is in a map poll with control.
    #[serde(deserialize_with = "null_default")]
    pub online: bool,
    /// The node key has expired.
    #[serde(deserialize_with = "null_default")]
    pub expired: bool,
    /// RFC 3339; absent means never.
    #[serde(deserialize_with = "set_time")]
    pub key_expiry: Option<String>,
}

/// `tailcfg.Node`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// Numeric id.
    #[serde(rename = "ID", deserialize_with = "null_default")]
    pub id: i64,
    /// Stable id.
    #[serde(rename = "StableID", deserialize_with = "null_default")]
    pub stable_id: String,
    /// FQDN with trailing dot.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// Own addresses as host prefixes.
    #[serde(deserialize_with = "null_default")]
    pub addresses: Vec<Prefix>,
    /// Prefixes routed to it; absent means the same as `addresses`.
    pub allowed_ips: Option<Vec<Prefix>>,
    /// RFC 3339; absent means never.
    #[serde(deserialize_with = "set_time")]
    pub key_expiry: Option<String>,
    /// The node key has expired.
    #[serde(deserialize_with = "null_default")]
    pub expired: bool,
    /// `tag:…`; a tagged node has no user.
    #[serde(deserialize_with = "null_default")]
    pub tags: Vec<String>,
}

/// `netmap.NetworkMap`, legacy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkMap {
    /// This node.
    pub self_node: Option<Node>,
    /// All peers.
    #[serde(deserialize_with = "null_default")]
    pub peers: Vec<Node>,
    /// DNS configuration.
    #[serde(rename = "DNS", deserialize_with = "null_default")]
    pub dns: DnsConfig,
}

/// `tailcfg.DNSConfig`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsConfig {
    /// Names certificates can be had for, in control's order.
    #[serde(deserialize_with = "null_default")]
    pub cert_domains: Vec<String>,
    /// Extra records: how Tailscale Services appear to clients.
    #[serde(deserialize_with = "null_default")]
    pub extra_records: Vec<DnsRecord>,
}

/// `tailcfg.DNSRecord`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsRecord {
    /// Trailing dot optional.
    #[serde(deserialize_with = "null_default")]
    pub name: String,
    /// Empty means A or AAAA.
    #[serde(rename = "Type", deserialize_with = "null_default")]
    pub kind: String,
    /// Address text.
    #[serde(deserialize_with = "null_default")]
    pub value: String,
}

/// `tailcfg.UserProfile`
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct UserProfile {
    /// Numeric id.
    #[serde(rename = "ID", deserialize_with = "null_default")]
    pub id: i64,
    /// `alice@example.com`; a fixed placeholder for tagged nodes, so decide on [`Node::tags`].
    #[serde(deserialize_with = "null_default")]
    pub login_name: String,
    /// Human name.
    #[serde(deserialize_with = "null_default")]
    pub display_name: String,
}

/// Who is behind a tailnet address (`apitype.WhoIsResponse`).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WhoIs {
    /// The peer.
    #[serde(deserialize_with = "null_default")]
    pub node: Node,
    /// Its user.
    #[serde(deserialize_with = "null_default")]
    pub user_profile: UserProfile,
    /// Capabilities that the peer has towards this node, or towards the asked scope.
    #[serde(deserialize_with = "null_values")]
    pub cap_map: BTreeMap<String, Vec<serde_json::Value>>,
}

/// `ipn.Prefs`, kept as a JSON object: `PATCH` sends members by name, and members this build does not know
/// must survive a round trip through `start`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Prefs(pub serde_json::Map<String, serde_json::Value>);

/// `POST start`'s body (`ipn.Options`).
#[derive(Debug, Default)]
pub struct StartOptions {
    /// Replaces all prefs except the persisted identity; build it from a fresh `GET prefs`.
    pub update_prefs: Option<Prefs>,
    /// A literal key.
    pub auth_key: Option<crate::secret::Secret<String>>,
}

/// `POST reload-config`'s answer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Reload {
    /// Whether a config was reloaded; false with an empty error means "not started with `--config`".
    pub reloaded: bool,
    /// Why not.
    #[serde(deserialize_with = "null_default")]
    pub err: String,
}

/// `null` decodes as the default, as Go's nil slices, maps and strings need.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A time that is set; Go's zero time, which releases up to 1.86 send, means that there is none.
fn set_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let time: Option<String> = Option::deserialize(deserializer)?;
    Ok(time.filter(|time| !time.starts_with("0001-01-01T00:00:00")))
}

/// As [`null_default`] for a map, and for each of its values.
fn null_values<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    let map: Option<BTreeMap<String, Option<T>>> = Option::deserialize(deserializer)?;
    Ok(map.unwrap_or_default().into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_empty_everywhere() {
        let notify = r#"{"Version":null,"State":null,"SelfChange":{"ID":1,"Addresses":null,"Tags":null},"PeersChanged":null,
            "InitialStatus":{"CertDomains":null,"Self":{"ID":"","TailscaleIPs":null},"Peer":null,"Health":null},
            "NetMap":{"SelfNode":null,"Peers":null,"DNS":null},"Health":{"Warnings":null},"New":{"x":[1]}}"#;
        let notify: Notify = serde_json::from_str(notify).unwrap();
        assert!(notify.state.is_none() && notify.peers_changed.is_empty());
        let whois: WhoIs = serde_json::from_str(
            r#"{"Node":{"ID":9007199254740993},"UserProfile":null,"CapMap":{"a":null,"b":[{"x":1}]}}"#,
        )
        .unwrap();
        assert_eq!(whois.node.id, 9_007_199_254_740_993);
        assert_eq!((whois.cap_map["a"].len(), whois.cap_map["b"].len()), (0, 1));
        assert!(serde_json::from_str::<WhoIs>(r#"{"CapMap":null}"#).unwrap().cap_map.is_empty());
    }

    #[test]
    fn states_that_nobody_knows_yet_are_unknown() {
        assert_eq!(State::from_number(42), State::Unknown);
        assert_eq!(State::from_name("Hibernating"), Some(State::Unknown));
        assert_eq!(State::from_name(""), None);
    }
}
