//! The text of a config to its values: versions, names in any case, types, places. Pure.

use std::net::IpAddr;

use super::{ApiServer, Config, ConfigError, DEFAULT_LOCAL_PORT, LogLevel, Mode, Parsed, ServiceName, VERSION};
use crate::located::{Located, Member, Place, Value, parse};
use crate::secret::Secret;
use crate::settings::parse as texts;
use crate::spelling::distance;

/// The members of the config, by their documented spelling.
const FIELDS: [&str; 15] = [
    "version",
    "AuthKey",
    "State",
    "LogLevel",
    "App",
    "ServerURL",
    "LocalAddr",
    "LocalPort",
    "MetricsEnabled",
    "HealthCheckEnabled",
    "Hostname",
    "AcceptRoutes",
    "AdvertiseServices",
    "APIServerProxy",
    "StaticEndpoints",
];

/// The members of `APIServerProxy`.
const API_SERVER_FIELDS: [&str; 4] = ["Enabled", "Mode", "ServiceName", "IssueCerts"];

pub(super) fn read(text: &str) -> Result<Parsed, ConfigError> {
    let root = parse(text).map_err(|error| ConfigError {
        place: Place { line: error.line, column: error.column },
        reason: error.reason,
    })?;
    let mut reader = Reader { text, warnings: Vec::new() };
    let config = reader.config(&root)?;
    Ok(Parsed { config, warnings: reader.warnings })
}

struct Reader<'t> {
    text: &'t str,
    warnings: Vec<String>,
}

/// The members of one object.
struct Object<'l> {
    /// What stands before a member's name in messages.
    path: &'static str,
    members: &'l [Member],
}

impl<'l> Object<'l> {
    /// Every value under `name`, in any letter case, in order.
    fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &'l Located> {
        let name = name.to_owned();
        self.members.iter().filter(move |member| member.name.eq_ignore_ascii_case(&name)).map(|member| &member.value)
    }
}

impl Reader<'_> {
    fn config(&mut self, root: &Located) -> Result<Config, ConfigError> {
        let object = self.object(root, "the config", "")?;
        let version = self.text_of(&object, "version")?;
        let versioned = object.all(VERSION).next_back().filter(|value| value.value != Value::Null);
        let object = match (version.as_deref(), versioned) {
            (None | Some(""), _) => return Err(self.error(root, r#"no "version" field provided"#.to_owned())),
            (Some(VERSION), None) => object,
            (Some(VERSION), Some(both)) => {
                return Err(self.error(both, format!("both root and {VERSION} config provided")));
            }
            (Some(_), Some(value)) => self.object(value, VERSION, "")?,
            (Some(other), None) => {
                let at = object.all("version").next_back().unwrap_or(root);
                return Err(self.error(at, format!("unsupported \"version\" value {other:?}; want \"{VERSION}\"")));
            }
        };
        self.strangers(&object, &FIELDS);
        Ok(Config {
            auth_key: self.filled(&object, "AuthKey")?.map(Secret::new),
            state: self.filled(&object, "State")?,
            log_level: self.one(&object, "LogLevel", log_level)?.flatten(),
            app: self.filled(&object, "App")?,
            server_url: self.filled(&object, "ServerURL")?,
            local_addr: self.one(&object, "LocalAddr", local_addr)?.flatten(),
            local_port: self.port(&object, "LocalPort")?.unwrap_or(DEFAULT_LOCAL_PORT),
            metrics: self.boolean(&object, "MetricsEnabled")?.unwrap_or(false),
            health: self.boolean(&object, "HealthCheckEnabled")?.unwrap_or(false),
            hostname: self.filled(&object, "Hostname")?,
            accept_routes: self.boolean(&object, "AcceptRoutes")?,
            advertise_services: distinct(self.list(&object, "AdvertiseServices", service)?),
            api_server: self.api_server(&object)?,
            static_endpoints: self.list(&object, "StaticEndpoints", |text| {
                texts::addr_port(text).map_err(|_| "must be an IP address and port".to_owned())
            })?,
        })
    }

    fn api_server(&mut self, object: &Object<'_>) -> Result<ApiServer, ConfigError> {
        let mut api_server = ApiServer::default();
        for value in object.all("APIServerProxy") {
            if value.value == Value::Null {
                api_server = ApiServer::default();
                continue;
            }
            let object = self.object(value, "`APIServerProxy`", "APIServerProxy.")?;
            self.strangers(&object, &API_SERVER_FIELDS);
            api_server = ApiServer {
                enabled: self.boolean(&object, "Enabled")?.unwrap_or(false),
                mode: self.one(&object, "Mode", mode)?.unwrap_or_default(),
                service: self.one(&object, "ServiceName", optional_service)?.flatten(),
                issue_certs: self.boolean(&object, "IssueCerts")?.unwrap_or(false),
            };
        }
        Ok(api_server)
    }

    // === Values ===

    fn object<'l>(&self, value: &'l Located, what: &str, path: &'static str) -> Result<Object<'l>, ConfigError> {
        match &value.value {
            Value::Object(members) => Ok(Object { path, members }),
            other => Err(self.error(value, format!("{what} must be an object, not {}", other.kind()))),
        }
    }

    /// The last value under `name` as `convert` reads it; `None` when it is absent or null. Earlier ones have to be
    /// of the right type as well.
    fn last<T>(
        &self,
        object: &Object<'_>,
        name: &str,
        wanted: &str,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<(T, usize)>, ConfigError> {
        let mut last = None;
        for value in object.all(name) {
            if value.value == Value::Null {
                last = None;
                continue;
            }
            let Some(converted) = convert(&value.value) else {
                let reason = format!("`{}{name}` must be {wanted}, not {}", object.path, value.value.kind());
                return Err(self.error(value, reason));
            };
            last = Some((converted, value.offset));
        }
        Ok(last)
    }

    fn text_of(&self, object: &Object<'_>, name: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.last(object, name, "a string", as_text)?.map(|(text, _)| text))
    }

    /// A text that is not empty.
    fn filled(&self, object: &Object<'_>, name: &str) -> Result<Option<String>, ConfigError> {
        Ok(self.text_of(object, name)?.filter(|text| !text.is_empty()))
    }

    fn boolean(&self, object: &Object<'_>, name: &str) -> Result<Option<bool>, ConfigError> {
        let convert = |value: &Value| match value {
            Value::Bool(bool) => Some(*bool),
            _ => None,
        };
        Ok(self.last(object, name, "true, false or null", convert)?.map(|(bool, _)| bool))
    }

    fn port(&self, object: &Object<'_>, name: &str) -> Result<Option<u16>, ConfigError> {
        let number = self.last(object, name, "a number from 0 to 65535", |value| match value {
            Value::Number(number) => Some(number.clone()),
            _ => None,
        })?;
        let Some((number, offset)) = number else { return Ok(None) };
        number
            .parse()
            .map(Some)
            .map_err(|_| self.at(offset, format!("`{}{name}` must be a number from 0 to 65535", object.path)))
    }

    /// A text that `convert` gives its meaning.
    fn one<T>(
        &self,
        object: &Object<'_>,
        name: &str,
        convert: fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some((text, offset)) = self.last(object, name, "a string", as_text)? else { return Ok(None) };
        convert(&text).map(Some).map_err(|reason| self.at(offset, format!("`{}{name}` {reason}", object.path)))
    }

    /// A list of such texts; absent and null are none.
    fn list<T>(
        &self,
        object: &Object<'_>,
        name: &str,
        convert: fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let convert_list = |value: &Value| match value {
            Value::List(list) => Some(list.clone()),
            _ => None,
        };
        let Some((list, _)) = self.last(object, name, "a list", convert_list)? else { return Ok(Vec::new()) };
        let element = |(index, value): (usize, &Located)| match &value.value {
            Value::Text(text) => {
                convert(text).map_err(|reason| self.error(value, format!("`{}{name}[{index}]` {reason}", object.path)))
            }
            other => {
                let reason = format!("`{}{name}[{index}]` must be a string, not {}", object.path, other.kind());
                Err(self.error(value, reason))
            }
        };
        list.iter().enumerate().map(element).collect()
    }

    /// Warns of members that nobody reads and that are near to one that somebody does.
    fn strangers(&mut self, object: &Object<'_>, known: &[&str]) {
        for member in object.members {
            let name = member.name.to_ascii_lowercase();
            let nearest = known.iter().map(|known| (distance(&name, &known.to_ascii_lowercase()), *known)).min();
            if let Some((1..=2, nearest)) = nearest {
                let place = Place::of(self.text, member.offset);
                let warning = format!(
                    "{place}: nothing reads `{}{}`; is `{nearest}` meant?",
                    object.path,
                    crate::escape::escape(&member.name)
                );
                self.warnings.push(warning);
            }
        }
    }

    fn error(&self, value: &Located, reason: String) -> ConfigError {
        self.at(value.offset, reason)
    }

    fn at(&self, offset: usize, reason: String) -> ConfigError {
        ConfigError { place: Place::of(self.text, offset), reason }
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

/// `None` for an empty text.
fn log_level(text: &str) -> Result<Option<LogLevel>, String> {
    let level = match text.to_ascii_lowercase().as_str() {
        "" => return Ok(None),
        "debug" => LogLevel::Debug,
        "info" => LogLevel::Info,
        "warn" => LogLevel::Warn,
        "error" | "dpanic" | "panic" | "fatal" => LogLevel::Error,
        _ => return Err(format!("is {text:?}; it must be debug, info, warn or error")),
    };
    Ok(Some(level))
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "auth" | "" => Ok(Mode::Auth),
        "noauth" => Ok(Mode::NoAuth),
        _ => Err(format!("is {text:?}; it must be \"auth\" or \"noauth\"")),
    }
}

fn service(text: &str) -> Result<ServiceName, String> {
    text.parse().map_err(|error| format!("is {text:?}; {error}"))
}

fn optional_service(text: &str) -> Result<Option<ServiceName>, String> {
    if text.is_empty() { Ok(None) } else { service(text).map(Some) }
}

/// `None` for every address, which upstream's default `[::]` means.
fn local_addr(text: &str) -> Result<Option<IpAddr>, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match bare {
        "" => Ok(None),
        "localhost" => Ok(Some(IpAddr::from([127, 0, 0, 1]))),
        _ => texts::ip(bare).map(Some).map_err(|_| format!("is {text:?}; it must be an IP address")),
    }
}

fn distinct(services: Vec<ServiceName>) -> Vec<ServiceName> {
    let mut seen = Vec::new();
    for service in services {
        if !seen.contains(&service) {
            seen.push(service);
        }
    }
    seen
}
