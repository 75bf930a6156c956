//! The flags of `tailscale up` as desired prefs. Pure.
//!
//! `tailpod boot` applies `TS_EXTRA_ARGS` and the node's settings through LocalAPI instead of the CLI (boot.md E.3).
//! [`desired_prefs`] says what is wanted; [`crate::boot::prefs`] compares it with what is. Flags are read as Go's
//! `flag` package reads them, values are checked as the CLI checks them. Follows upstream's
//! `cmd/tailscale/cli/up.go` and `net/netutil/routes.go`.

mod table;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

pub(super) use self::table::SIMPLE;
use self::table::{OTHERS, hostname};
use crate::prefix::Prefix;
use crate::secret::{Secret, redact};
use crate::settings::login::LoginParts;
use crate::settings::{Login, Routes, Settings, parse};

/// What the flags come to.
#[derive(Clone, Debug)]
pub enum FlagsOutcome {
    /// Prefs that LocalAPI can set.
    Prefs(Box<DesiredPrefs>),
    /// Only the CLI knows what to do with this flag: the whole step falls back to it.
    NeedsCli {
        /// As it was written, without its value.
        flag: String,
    },
}

/// A flag that the CLI would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}: {reason}")]
pub struct FlagError {
    /// The variable.
    source_name: &'static str,
    reason: String,
}

impl FlagError {
    /// The reason quotes what was written, which may be a key in the wrong place.
    fn new(source_name: &'static str, reason: &str) -> Self {
        Self { source_name, reason: redact(reason) }
    }
}

/// What the operator wants the node to be like.
#[derive(Clone, Debug)]
pub struct DesiredPrefs {
    /// Members asked for by a flag or a variable, with their values.
    pub given: BTreeMap<&'static str, Value>,
    /// Routes asked for, without what `advertise_exit_node` adds.
    pub routes: Option<Vec<Prefix>>,
    /// `--advertise-exit-node`
    pub advertise_exit_node: Option<bool>,
    /// `--exit-node`
    pub exit_node: Option<ExitNode>,
    /// `--reset`: everything that was not asked for goes back to its default.
    pub reset: bool,
    /// `--force-reauth`: log in even when logged in.
    pub force_reauth: bool,
    /// `--timeout`: the login deadline; `None` when not given or zero, which means none.
    pub timeout: Option<Duration>,
    /// Credentials of the variables and the flags together.
    pub login: Login,
    /// Lines worth a warning.
    pub notes: Vec<String>,
}

/// Which exit node to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitNode {
    /// None.
    None,
    /// The node with this address.
    Ip(IpAddr),
    /// The daemon's choice, by this expression (`any`).
    Auto(String),
}

/// Where extra flags come from.
const EXTRA_ARGS: &str = "TS_EXTRA_ARGS";

/// What the node's settings and its extra arguments ask for.
///
/// # Errors
/// The first thing that the CLI would refuse.
pub fn desired_prefs(settings: &Settings) -> Result<FlagsOutcome, FlagError> {
    let refuse = |reason: String| FlagError::new(EXTRA_ARGS, &reason);
    let mut flags = match flags(&settings.node.extra_args).map_err(refuse)? {
        Scanned::Flags(flags) => flags,
        Scanned::Unknown(flag) => return Ok(FlagsOutcome::NeedsCli { flag }),
    };
    let exit_node = match flags.remove("exit-node").map(|text| exit_node(&text)) {
        Some(None) => return Ok(FlagsOutcome::NeedsCli { flag: "--exit-node".to_owned() }),
        Some(Some(node)) => Some(node),
        None => None,
    };
    let mut notes = Vec::new();
    let mut given = BTreeMap::from([("CorpDNS", json!(settings.node.accept_dns))]);
    if let Some(name) = &settings.node.hostname {
        let refuse = |reason: String| FlagError::new("TS_HOSTNAME", &reason);
        given.insert("Hostname", hostname(name).map_err(refuse)?);
    }
    for simple in &SIMPLE {
        if let Some(text) = flags.get(simple.flag) {
            let value = (simple.value)(text).map_err(|reason| refuse(format!("--{}: {reason}", simple.flag)))?;
            given.insert(simple.member, value);
        }
    }
    if given.get("ExitNodeAllowLANAccess") == Some(&json!(true))
        && exit_node.as_ref().is_none_or(|node| *node == ExitNode::None)
    {
        return Err(refuse("--exit-node-allow-lan-access can only be used with --exit-node".to_owned()));
    }
    // The flag stands behind the variable on the CLI's argv, so it wins.
    let routes = match (flags.get("advertise-routes"), &settings.node.routes) {
        (Some(text), _) => {
            Some(routes(text, &mut notes).map_err(|reason| refuse(format!("--advertise-routes: {reason}")))?)
        }
        (None, Routes::Set(text)) => {
            let refuse = |reason: String| FlagError::new("TS_ROUTES", &reason);
            Some(routes(text, &mut notes).map_err(refuse)?)
        }
        (None, Routes::Keep) => None,
    };
    let timeout = match flags.get("timeout") {
        Some(text) => parse::duration(text).map_err(|error| refuse(format!("--timeout: {error}")))?.deadline(),
        None => Duration::ZERO,
    };
    let is_set = |flag: &str| flags.get(flag).map(|value| value == "true");
    if is_set("host-routes") == Some(false) {
        return Err(refuse("--host-routes: only true is allowed".to_owned()));
    }
    let advertise_exit_node = is_set("advertise-exit-node");
    if advertise_exit_node == Some(true) && given.get("NoSNAT") == Some(&json!(true)) {
        notes.push(
            "--snat-subnet-routes=false with --advertise-exit-node: internet traffic through this exit node may not work"
                .to_owned(),
        );
    }
    Ok(FlagsOutcome::Prefs(Box::new(DesiredPrefs {
        reset: is_set("reset") == Some(true),
        force_reauth: is_set("force-reauth") == Some(true),
        timeout: (!timeout.is_zero()).then_some(timeout),
        login: login(&flags, &settings.login).map_err(refuse)?,
        given,
        routes,
        advertise_exit_node,
        exit_node,
        notes,
    })))
}

enum Scanned {
    /// Values by canonical name; booleans are `true` or `false`, the last of several wins.
    Flags(BTreeMap<&'static str, String>),
    /// A flag that is not in the table.
    Unknown(String),
}

/// Reads words as flags: `-f`, `--f`, `--f=v`, `--f v`; a boolean never takes the next word.
fn flags(words: &[String]) -> Result<Scanned, String> {
    let mut found = BTreeMap::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(bare) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|bare| !bare.is_empty())
        else {
            return Err(format!("{word:?} is not a flag"));
        };
        let (name, value) = match bare.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (bare, None),
        };
        let simple = SIMPLE.iter().map(|simple| (simple.flag, simple.is_bool));
        let Some((name, is_bool)) = simple.chain(OTHERS).find(|(known, _)| *known == name) else {
            return Ok(Scanned::Unknown(format!("--{name}")));
        };
        let value = match value {
            None if is_bool => "true".to_owned(),
            None => words.next().cloned().ok_or_else(|| format!("--{name} needs a value"))?,
            Some(value) if is_bool => match parse::boolean(&value) {
                Some(value) => value.to_string(),
                None => return Err(format!("--{name}={value:?}: not a boolean")),
            },
            Some(value) => value,
        };
        match name {
            "authkey" => found.insert("auth-key", value),
            name => found.insert(name, value),
        };
    }
    Ok(Scanned::Flags(found))
}

/// Credentials of the flags beside those of the variables.
fn login(flags: &BTreeMap<&'static str, String>, variables: &Login) -> Result<Login, String> {
    let mut parts = LoginParts::from(variables);
    for (flag, value) in flags {
        if value.is_empty() {
            continue;
        }
        let secret = || Secret::new(value.clone());
        let taken = match *flag {
            "auth-key" => parts.auth_key.replace(secret()).is_some(),
            "client-id" => parts.client_id.replace(value.clone()).is_some(),
            "client-secret" => parts.client_secret.replace(secret()).is_some(),
            "id-token" => parts.id_token.replace(secret()).is_some(),
            "audience" => parts.audience.replace(value.clone()).is_some(),
            _ => false,
        };
        if taken {
            return Err(format!("--{flag} is also set by a variable"));
        }
    }
    parts.login().map_err(|conflicts| conflicts.concat())
}

/// `None` for a name, which only the CLI can look up.
fn exit_node(text: &str) -> Option<ExitNode> {
    match text.strip_prefix("auto:") {
        Some(expression) if !expression.is_empty() => Some(ExitNode::Auto(expression.to_owned())),
        _ if text.is_empty() => Some(ExitNode::None),
        _ => parse::ip(text).ok().map(ExitNode::Ip),
    }
}

/// The default routes, which make an exit node.
pub(super) fn exit_routes() -> [Prefix; 2] {
    ["0.0.0.0/0", "::/0"].map(|route| route.parse().expect("a default route is a prefix"))
}

/// Routes to advertise: masked, without repetition; default routes only in pairs.
fn routes(text: &str, notes: &mut Vec<String>) -> Result<Vec<Prefix>, String> {
    let mut routes = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let route: Prefix = part.parse().map_err(|error| format!("{part:?}: {error}"))?;
        let masked = route.masked();
        if masked != route {
            notes.push(format!("route {route} has host bits set; advertising {masked}"));
        }
        if !routes.contains(&masked) {
            routes.push(masked);
        }
    }
    let [v4, v6] = exit_routes();
    match (routes.contains(&v4), routes.contains(&v6)) {
        (true, false) => Err(format!("{v4} is advertised without its IPv6 counterpart {v6}")),
        (false, true) => Err(format!("{v6} is advertised without its IPv4 counterpart {v4}")),
        _ => Ok(routes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{self, Persona};

    fn outcome(pairs: &[(&str, &str)]) -> Result<FlagsOutcome, FlagError> {
        let vars: BTreeMap<&str, &str> = pairs.iter().copied().collect();
        desired_prefs(&settings::read(&vars, Persona::Containerboot).unwrap_or_else(|problems| panic!("{problems}")))
    }

    fn desired(args: &str) -> DesiredPrefs {
        match outcome(&[("TS_EXTRA_ARGS", args)]) {
            Ok(FlagsOutcome::Prefs(prefs)) => *prefs,
            other => panic!("{args}: {other:?}"),
        }
    }

    #[test]
    fn every_flag_of_the_table_is_its_member() {
        for (args, member, value) in [
            ("--login-server=https://h.example", "ControlURL", json!("https://h.example")),
            ("--accept-routes", "RouteAll", json!(true)),
            ("-accept-routes=F", "RouteAll", json!(false)),
            ("-accept-dns", "CorpDNS", json!(true)),
            ("--exit-node=100.64.0.1 --exit-node-allow-lan-access", "ExitNodeAllowLANAccess", json!(true)),
            ("--shields-up", "ShieldsUp", json!(true)),
            ("--ssh", "RunSSH", json!(true)),
            ("--advertise-tags k8s,tag:ci", "AdvertiseTags", json!(["tag:k8s", "tag:ci"])),
            ("--advertise-tags=", "AdvertiseTags", json!([])),
            ("--hostname web-0", "Hostname", json!("web-0")),
            ("--advertise-connector", "AppConnector", json!({ "Advertise": true })),
            ("--report-posture", "PostureChecking", json!(true)),
            ("--operator=u", "OperatorUser", json!("u")),
            ("--snat-subnet-routes=false", "NoSNAT", json!(true)),
            ("--stateful-filtering", "NoStatefulFiltering", json!(false)),
            ("--netfilter-mode=nodivert", "NetfilterMode", json!(1)),
            ("--netfilter-mode=off --netfilter-mode=on", "NetfilterMode", json!(2)),
        ] {
            assert_eq!(desired(args).given.get(member), Some(&value), "{args}");
        }
        let none = desired("");
        assert_eq!(none.given, BTreeMap::from([("CorpDNS", json!(false))]), "boot always passes its own");
        assert!(!none.reset && !none.force_reauth && none.routes.is_none() && none.timeout.is_none());
    }

    #[test]
    fn flags_that_are_no_members() {
        assert!(desired("--reset").reset && desired("--force-reauth").force_reauth);
        assert_eq!(desired("--timeout=90s").timeout, Some(Duration::from_secs(90)));
        assert_eq!(desired("--timeout 0").timeout, None);
        assert_eq!(desired("--exit-node=auto:any").exit_node, Some(ExitNode::Auto("any".into())));
        assert_eq!(desired("--exit-node=").exit_node, Some(ExitNode::None));
        assert_eq!(desired("--exit-node 100.64.0.1").exit_node, "100.64.0.1".parse().ok().map(ExitNode::Ip));
        assert_eq!(desired("--advertise-exit-node").advertise_exit_node, Some(true));
        desired("--qr --qr-format=small --json --accept-risk=all --host-routes");
    }

    #[test]
    fn what_is_not_known_goes_to_the_cli() {
        for (args, wanted) in [
            ("--widget=a --ssh=maybe", "--widget"),
            ("-x", "--x"),
            ("--exit-node=gateway", "--exit-node"),
            ("--unattended", "--unattended"),
        ] {
            match outcome(&[("TS_EXTRA_ARGS", args)]) {
                Ok(FlagsOutcome::NeedsCli { flag }) => assert_eq!(flag, wanted),
                other => panic!("{args}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_the_cli_would_refuse_is_an_error() {
        for (args, reason) in [
            ("--ssh=maybe", r#"--ssh="maybe": not a boolean"#),
            ("--accept-dns=maybe", r#"--accept-dns="maybe": not a boolean"#),
            ("--ssh on", r#""on" is not a flag"#),
            ("--hostname", "--hostname needs a value"),
            (
                "--hostname=a_b",
                r#"--hostname: "a_b" is not a host name: labels of letters, digits and dashes, at most 63 characters each"#,
            ),
            ("--exit-node-allow-lan-access", "--exit-node-allow-lan-access can only be used with --exit-node"),
            (
                "--advertise-tags=tag:",
                r#"--advertise-tags: "tag:" is not a tag: `tag:`, a letter, then letters, digits and dashes"#,
            ),
            (
                "--advertise-tags=group:x",
                r#"--advertise-tags: "group:x" is not a tag: `tag:`, a letter, then letters, digits and dashes"#,
            ),
            (
                "--advertise-routes=10.0.0.0",
                r#"--advertise-routes: "10.0.0.0": not a network prefix; expected `<address>/<length>`"#,
            ),
            (
                "--advertise-routes=0.0.0.0/0",
                "--advertise-routes: 0.0.0.0/0 is advertised without its IPv6 counterpart ::/0",
            ),
            ("--netfilter-mode=maybe", r#"--netfilter-mode: "maybe" is not one of on, nodivert and off"#),
            ("--timeout=5", r#"--timeout: time: missing unit in duration "5""#),
            ("--host-routes=false", "--host-routes: only true is allowed"),
        ] {
            let error = outcome(&[("TS_EXTRA_ARGS", args)]).expect_err(args).to_string();
            assert_eq!(error, format!("TS_EXTRA_ARGS: {reason}"));
        }
        let error = outcome(&[("TS_ROUTES", "nonsense")]).expect_err("a bad route").to_string();
        assert!(error.starts_with("TS_ROUTES: \"nonsense\": not a network prefix"), "{error}");
        assert!(outcome(&[("TS_HOSTNAME", "-a")]).is_err());
    }

    #[test]
    fn flags_stand_behind_variables_and_win() {
        let pairs = [
            ("TS_HOSTNAME", "one"),
            ("TS_ROUTES", "10.0.0.0/8"),
            ("TS_EXTRA_ARGS", "--hostname=two --advertise-routes=10.1.2.3/16,10.1.0.0/16"),
        ];
        match outcome(&pairs) {
            Ok(FlagsOutcome::Prefs(prefs)) => {
                assert_eq!(prefs.given.get("Hostname"), Some(&json!("two")));
                assert_eq!(prefs.routes, "10.1.0.0/16".parse().ok().map(|route| vec![route]), "masked, once");
                assert_eq!(prefs.notes, ["route 10.1.2.3/16 has host bits set; advertising 10.1.0.0/16"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn credentials_in_flags_are_those_of_variables() {
        assert!(matches!(desired("--authkey=k").login, Login::AuthKey(key) if key.expose() == "k"));
        assert!(matches!(desired("--client-id=i --client-secret s").login, Login::Credentials(_)));
        let both = outcome(&[("TS_AUTHKEY", "s3cret"), ("TS_EXTRA_ARGS", "-auth-key s4cret")]).expect_err("both");
        assert_eq!(both.to_string(), "TS_EXTRA_ARGS: --auth-key is also set by a variable");
        let conflict = outcome(&[("TS_EXTRA_ARGS", "--id-token=t")]).expect_err("no id").to_string();
        assert_eq!(conflict, "TS_EXTRA_ARGS: TS_ID_TOKEN is set but TS_CLIENT_ID is not set");
        assert!(!format!("{:?}", desired("--auth-key=s3cret")).contains("s3cret"));
    }
}
