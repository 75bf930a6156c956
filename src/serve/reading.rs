//! The members that a serve config may have, and their values, in the order and spelling of the daemon. Pure.

use serde_json::{Map, Value, json};

use super::document::{Content, Fault, MOST};
use super::services;
use crate::located::{self, Located, Member, Place};

/// What a member holds.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bool,
    Number,
    Texts,
    /// An object whose names are the user's, each with an object of this shape, or `null`.
    Map(Keys, Shape),
    /// As the user has it.
    Any,
}

#[derive(Clone, Copy)]
enum Keys {
    Port,
    HostPort,
    Mount,
    Service,
    Session,
}

/// The known members of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Config,
    Service,
    Tcp,
    Web,
    Handler,
    /// Values of `AllowFunnel`.
    Flag,
}

impl Shape {
    fn members(self) -> &'static [(&'static str, Kind)] {
        use Kind::{Any, Bool, Map, Number, Text, Texts};
        match self {
            Self::Config => &[
                ("TCP", Map(Keys::Port, Shape::Tcp)),
                ("Web", Map(Keys::HostPort, Shape::Web)),
                ("Services", Map(Keys::Service, Shape::Service)),
                ("AllowFunnel", Map(Keys::HostPort, Shape::Flag)),
                ("Foreground", Map(Keys::Session, Shape::Config)),
            ],
            Self::Service => {
                &[("TCP", Map(Keys::Port, Shape::Tcp)), ("Web", Map(Keys::HostPort, Shape::Web)), ("Tun", Bool)]
            }
            Self::Tcp => &[
                ("HTTPS", Bool),
                ("HTTP", Bool),
                ("TCPForward", Text),
                ("TerminateTLS", Text),
                ("ProxyProtocol", Number),
            ],
            Self::Web => &[("Handlers", Map(Keys::Mount, Shape::Handler))],
            Self::Handler => {
                &[("Path", Text), ("Proxy", Text), ("Text", Text), ("Redirect", Text), ("AcceptAppCaps", Texts)]
            }
            Self::Flag => &[("", Any)],
        }
    }
}

/// Reads one text.
pub(super) struct Reader<'t> {
    pub(super) text: &'t str,
    pub(super) warnings: Vec<String>,
}

impl Reader<'_> {
    /// The whole of it.
    pub(super) fn document(&mut self, root: &Located) -> Result<Content, Fault> {
        let members = match &root.value {
            located::Value::Null => return Ok(Content::Raw(json!({}))),
            located::Value::Object(members) => members,
            other => return Err((root.offset, format!("a serve config is an object, and this is {}", other.kind()))),
        };
        // The daemon's own format has no member of that name.
        if members.iter().any(|member| member.name == "version") {
            return services::read(members).map(Content::Services);
        }
        Ok(Content::Raw(self.shaped(root, Shape::Config)?))
    }

    fn warn(&mut self, offset: usize, reason: &str) {
        self.warnings.push(format!("{}: {reason}", Place::of(self.text, offset)));
    }

    /// An object of a known shape, its names in the daemon's spelling.
    fn shaped(&mut self, located: &Located, shape: Shape) -> Result<Value, Fault> {
        let members = match &located.value {
            located::Value::Null => return Ok(Value::Null),
            located::Value::Bool(flag) if shape == Shape::Flag => return Ok((*flag).into()),
            located::Value::Object(members) if shape != Shape::Flag => members,
            other => {
                let wanted = if shape == Shape::Flag { "a boolean" } else { "an object" };
                return Err((located.offset, format!("{wanted} was expected, and this is {}", other.kind())));
            }
        };
        let mut object = Map::new();
        for member in members {
            let known = shape.members().iter().find(|(name, _)| name.eq_ignore_ascii_case(&member.name));
            let (name, kind) = known.map_or((member.name.as_str(), Kind::Any), |(name, kind)| (*name, *kind));
            let value = self.kind(&member.value, kind)?;
            if object.insert(name.to_owned(), value).is_some() {
                self.warn(member.offset, &format!("`{name}` is there twice; the last one counts"));
            }
        }
        if shape == Shape::Service {
            let has = |name: &str| object.get(name).and_then(Value::as_object).is_some_and(|map| !map.is_empty());
            if object.get("Tun") == Some(&Value::Bool(true)) && (has("TCP") || has("Web")) {
                return Err((located.offset, "a Service in TUN mode cannot have TCP or Web handlers".to_owned()));
            }
        }
        if shape == Shape::Tcp {
            let has = |name: &str| object.get(name).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
            if has("TerminateTLS") && !has("TCPForward") {
                self.warn(located.offset, "TerminateTLS without TCPForward has no effect");
            }
        }
        Ok(Value::Object(object))
    }

    fn kind(&mut self, located: &Located, kind: Kind) -> Result<Value, Fault> {
        let wanted = match (kind, &located.value) {
            (Kind::Any, _) | (_, located::Value::Null) => return self.any(located),
            (Kind::Text, located::Value::Text(_))
            | (Kind::Bool, located::Value::Bool(_))
            | (Kind::Number, located::Value::Number(_)) => return self.any(located),
            (Kind::Texts, located::Value::List(list))
                if list.iter().all(|item| matches!(item.value, located::Value::Text(_))) =>
            {
                return self.any(located);
            }
            (Kind::Map(keys, shape), located::Value::Object(members)) => return self.map(members, keys, shape),
            (Kind::Text, _) => "a string",
            (Kind::Bool, _) => "a boolean",
            (Kind::Number, _) => "a number",
            (Kind::Texts, _) => "a list of strings",
            (Kind::Map(..), _) => "an object",
        };
        Err((located.offset, format!("{wanted} was expected, and this is {}", located.value.kind())))
    }

    fn map(&mut self, members: &[Member], keys: Keys, shape: Shape) -> Result<Value, Fault> {
        if let (Keys::Service | Keys::HostPort, Some(first)) = (keys, members.first())
            && members.len() > MOST
        {
            return Err((
                first.offset,
                format!("there are {} entries, and at most {MOST} are possible", members.len()),
            ));
        }
        let mut object = Map::new();
        for member in members {
            let name = member.name.as_str();
            match keys {
                Keys::Port if !name.parse::<u16>().is_ok_and(|port| port > 0 && !name.starts_with('+')) => {
                    return Err((member.offset, format!("`{name}` is no port from 1 to 65535")));
                }
                Keys::Service => services::check_name(name).map_err(|reason| (member.offset, reason))?,
                Keys::HostPort => {
                    if let Err(reason) = split_host_port(name) {
                        self.warn(member.offset, &format!("`{name}`: {reason}"));
                    }
                }
                Keys::Port | Keys::Mount | Keys::Session => {}
            }
            let value = self.shaped(&member.value, shape)?;
            if object.insert(name.to_owned(), value).is_some() {
                self.warn(member.offset, &format!("`{name}` is there twice; the last one counts"));
            }
        }
        Ok(Value::Object(object))
    }

    fn any(&mut self, located: &Located) -> Result<Value, Fault> {
        Ok(match &located.value {
            located::Value::Null => Value::Null,
            located::Value::Bool(flag) => (*flag).into(),
            located::Value::Text(text) => text.as_str().into(),
            located::Value::Number(number) => serde_json::from_str(number)
                .map_err(|_| (located.offset, format!("`{number}` is too large a number")))?,
            located::Value::List(list) => {
                list.iter().map(|item| self.any(item)).collect::<Result<Vec<_>, _>>().map(Value::Array)?
            }
            located::Value::Object(members) => {
                let mut object = Map::new();
                for member in members {
                    let value = self.any(&member.value)?;
                    if object.insert(member.name.clone(), value).is_some() {
                        self.warn(member.offset, &format!("`{}` is there twice; the last one counts", member.name));
                    }
                }
                Value::Object(object)
            }
        })
    }
}

/// Host and port as Go's `net.SplitHostPort` parts them; the port has to be a number too.
pub fn split_host_port(text: &str) -> Result<(&str, &str), &'static str> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("a `]` is missing")?;
        (host, after.strip_prefix(':').ok_or("the port is missing")?)
    } else {
        let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
        if host.contains(':') {
            return Err("an address with colons belongs in brackets");
        }
        (host, port)
    };
    match port.parse::<u16>() {
        Ok(_) if port.bytes().all(|byte| byte.is_ascii_digit()) => Ok((host, port)),
        _ => Err("the port is not a number from 0 to 65535"),
    }
}
