//! The members of the `alpha0` config format and their types. Pure.
//!
//! Names match whatever their case, as in Go; a `null` fits every type. Follows upstream's `ipn/conf.go` and
//! `ipn/serve.go`.

use serde_json::Value;

use crate::prefix::Prefix;
use crate::settings::parse;

/// The members of one kind of object.
pub(super) struct Object(&'static [(&'static str, Kind)]);

/// The type of a value.
enum Kind {
    Text,
    Bool,
    Int,
    Port,
    Prefix,
    Endpoint,
    List(&'static Kind),
    /// Any names, values of one kind.
    Map(&'static Kind),
    /// As a map, but the names are port numbers.
    PortMap(&'static Kind),
    Object(&'static Object),
}

/// The top level.
pub(super) static CONFIG: Object = Object(&[
    ("Version", Kind::Text),
    ("Locked", Kind::Bool),
    ("ServerURL", Kind::Text),
    ("AuthKey", Kind::Text),
    ("Enabled", Kind::Bool),
    ("OperatorUser", Kind::Text),
    ("Hostname", Kind::Text),
    ("acceptDNS", Kind::Bool),
    ("acceptRoutes", Kind::Bool),
    ("exitNode", Kind::Text),
    ("allowLANWhileUsingExitNode", Kind::Bool),
    ("AdvertiseRoutes", Kind::List(&Kind::Prefix)),
    ("AdvertiseExitNode", Kind::Bool),
    ("DisableSNAT", Kind::Bool),
    ("AdvertiseServices", Kind::List(&Kind::Text)),
    ("AppConnector", Kind::Object(&APP_CONNECTOR)),
    ("NetfilterMode", Kind::Text),
    ("NoStatefulFiltering", Kind::Bool),
    ("PostureChecking", Kind::Bool),
    ("RunSSHServer", Kind::Bool),
    ("RunWebClient", Kind::Bool),
    ("ShieldsUp", Kind::Bool),
    ("RemoteConfig", Kind::Bool),
    ("AutoUpdate", Kind::Object(&AUTO_UPDATE)),
    ("ServeConfigTemp", Kind::Object(&SERVE)),
    ("StaticEndpoints", Kind::List(&Kind::Endpoint)),
    ("RelayServerPort", Kind::Port),
    ("RelayServerStaticEndpoints", Kind::List(&Kind::Endpoint)),
]);

static APP_CONNECTOR: Object = Object(&[("Advertise", Kind::Bool)]);

static AUTO_UPDATE: Object = Object(&[("Check", Kind::Bool), ("Apply", Kind::Bool)]);

static SERVE: Object = Object(&[
    ("TCP", Kind::PortMap(&Kind::Object(&TCP_HANDLER))),
    ("Web", Kind::Map(&Kind::Object(&WEB))),
    ("Services", Kind::Map(&Kind::Object(&SERVICE))),
    ("AllowFunnel", Kind::Map(&Kind::Bool)),
    ("Foreground", Kind::Map(&Kind::Object(&SERVE))),
]);

static SERVICE: Object = Object(&[
    ("TCP", Kind::PortMap(&Kind::Object(&TCP_HANDLER))),
    ("Web", Kind::Map(&Kind::Object(&WEB))),
    ("Tun", Kind::Bool),
]);

static TCP_HANDLER: Object = Object(&[
    ("HTTPS", Kind::Bool),
    ("HTTP", Kind::Bool),
    ("TCPForward", Kind::Text),
    ("TerminateTLS", Kind::Text),
    ("ProxyProtocol", Kind::Int),
]);

static WEB: Object = Object(&[("Handlers", Kind::Map(&Kind::Object(&HTTP_HANDLER)))]);

static HTTP_HANDLER: Object = Object(&[
    ("Path", Kind::Text),
    ("Proxy", Kind::Text),
    ("Text", Kind::Text),
    ("AcceptAppCaps", Kind::List(&Kind::Text)),
    ("Redirect", Kind::Text),
]);

impl Object {
    /// Checks one member. A member that is not known goes to `strangers`, by its path.
    ///
    /// # Errors
    /// Which value has the wrong type, and what it must be; the value itself is not shown.
    pub(super) fn check(&self, name: &str, value: &Value, strangers: &mut Vec<String>) -> Result<(), String> {
        self.member("", name, value, strangers)
    }

    fn member(&self, path: &str, name: &str, value: &Value, strangers: &mut Vec<String>) -> Result<(), String> {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if let Some((_, kind)) = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            return kind.check(&path, value, strangers);
        }
        strangers.push(path);
        Ok(())
    }
}

impl Kind {
    fn check(&self, path: &str, value: &Value, strangers: &mut Vec<String>) -> Result<(), String> {
        let wrong = || Err(format!("{path:?} must be {}", self.description()));
        let text = |fits: fn(&str) -> bool| value.as_str().is_some_and(fits);
        let fits = match (self, value) {
            (_, Value::Null) | (Self::Text, Value::String(_)) | (Self::Bool, Value::Bool(_)) => true,
            (Self::List(kind), Value::Array(list)) => {
                for (index, element) in list.iter().enumerate() {
                    kind.check(&format!("{path}[{index}]"), element, strangers)?;
                }
                true
            }
            (Self::Map(kind) | Self::PortMap(kind), Value::Object(map)) => {
                for (name, element) in map {
                    if matches!(self, Self::PortMap(_)) && name.parse::<u16>().is_err() {
                        return wrong();
                    }
                    kind.check(&format!("{path}.{name}"), element, strangers)?;
                }
                true
            }
            (Self::Object(object), Value::Object(map)) => {
                for (name, element) in map {
                    object.member(path, name, element, strangers)?;
                }
                true
            }
            (Self::Int, _) => value.as_i64().is_some(),
            (Self::Port, _) => value.as_u64().is_some_and(|port| u16::try_from(port).is_ok()),
            // Go leaves an empty text as the zero value.
            (Self::Prefix, _) => text(|text| text.is_empty() || text.parse::<Prefix>().is_ok()),
            (Self::Endpoint, _) => text(|text| text.is_empty() || parse::addr_port(text).is_ok()),
            _ => false,
        };
        if fits { Ok(()) } else { wrong() }
    }

    fn description(&self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Bool => "true, false or null",
            Self::Int => "a whole number",
            Self::Port => "a number from 0 to 65535",
            Self::Prefix => "a network prefix",
            Self::Endpoint => "an IP address and port",
            Self::List(_) => "a list",
            Self::Map(_) | Self::Object(_) => "an object",
            Self::PortMap(_) => "an object with port numbers as names",
        }
    }
}
