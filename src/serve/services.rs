//! The documented file format for Tailscale Services (`"version": "0.0.1"`). Pure.
//!
//! An endpoint leads ports of a Service to a target: `"tcp:443": "https://localhost:8443"`. Follows upstream's
//! `ipn/conffile/serveconf.go` in what is accepted, and `cmd/tailscale/cli/serve_v2.go` (`set-config`) in what it means.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::document::{Fault, MOST, split_host_port};
use crate::located::{self, Located, Member};

/// The only version there is.
const VERSION: &str = "0.0.1";

/// One Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    /// `svc:…`
    pub(super) name: String,
    /// Whether it is ready to be advertised.
    pub(super) advertised: bool,
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Endpoint {
    Tun,
    /// From these ports to as many of a host, from the first on.
    Ports {
        ports: RangeInclusive<u16>,
        protocol: Protocol,
        host: String,
        first: u16,
    },
    /// From these ports to a file or directory.
    File {
        ports: RangeInclusive<u16>,
        path: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http,
    Https,
    HttpsInsecure,
    TlsTerminatedHttp,
    Tcp,
    TlsTerminatedTcp,
}

/// Whether `name` is `svc:` and a DNS label.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let Some(label) = name.strip_prefix("svc:") else {
        return Err(format!("`{name}` is no Service: it has to begin with `svc:`"));
    };
    let fits = (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-');
    if fits { Ok(()) } else { Err(format!("`{name}` is no Service: what follows `svc:` has to be a DNS label")) }
}

/// Reads the members of such a file.
pub(super) fn read(members: &[Member]) -> Result<Vec<Service>, Fault> {
    let mut services = Vec::new();
    for member in members {
        match member.name.as_str() {
            "version" => match &member.value.value {
                located::Value::Text(version) if version == VERSION => {}
                _ => return Err((member.value.offset, format!("the only version is \"{VERSION}\""))),
            },
            "services" => {
                let entries = entries(&member.value)?;
                if entries.len() > MOST {
                    let reason = format!("there are {} Services, and at most {MOST} are possible", entries.len());
                    return Err((member.offset, reason));
                }
                for member in entries {
                    check_name(&member.name).map_err(|reason| (member.offset, reason))?;
                    if services.iter().any(|known: &Service| known.name == member.name) {
                        return Err((member.offset, format!("`{}` is there twice", member.name)));
                    }
                    services.push(service(member)?);
                }
            }
            other => return Err((member.offset, format!("this format has no member `{other}`"))),
        }
    }
    Ok(services)
}

fn entries(located: &Located) -> Result<&[Member], Fault> {
    match &located.value {
        located::Value::Object(members) => Ok(members),
        located::Value::Null => Ok(&[]),
        other => Err((located.offset, format!("an object was expected, and this is {}", other.kind()))),
    }
}

fn service(member: &Member) -> Result<Service, Fault> {
    let mut service = Service { name: member.name.clone(), advertised: true, endpoints: Vec::new() };
    let mut has_endpoints = false;
    for detail in entries(&member.value)? {
        match (detail.name.as_str(), &detail.value.value) {
            ("endpoints", _) => {
                has_endpoints = true;
                for endpoint in entries(&detail.value)? {
                    let new = self::endpoint(endpoint)?;
                    for known in &service.endpoints {
                        check_beside(known, &new).map_err(|reason| (endpoint.offset, reason))?;
                    }
                    service.endpoints.push(new);
                }
            }
            ("advertised", located::Value::Bool(advertised)) => service.advertised = *advertised,
            ("advertised", located::Value::Null) => {}
            ("advertised", other) => {
                return Err((detail.value.offset, format!("a boolean was expected, and this is {}", other.kind())));
            }
            (other, _) => return Err((detail.offset, format!("a Service has no member `{other}`"))),
        }
    }
    if !has_endpoints {
        return Err((member.offset, format!("`{}` has no `endpoints`", member.name)));
    }
    Ok(service)
}

fn check_beside(known: &Endpoint, new: &Endpoint) -> Result<(), String> {
    let ports = |endpoint: &Endpoint| match endpoint {
        Endpoint::Tun => None,
        Endpoint::Ports { ports, .. } | Endpoint::File { ports, .. } => Some(ports.clone()),
    };
    match (ports(known), ports(new)) {
        (Some(a), Some(b)) if a.start() <= b.end() && b.start() <= a.end() => {
            Err("its ports overlap with those of another endpoint".to_owned())
        }
        (Some(_), Some(_)) => Ok(()),
        _ => Err("TUN mode excludes all other endpoints".to_owned()),
    }
}

fn endpoint(member: &Member) -> Result<Endpoint, Fault> {
    let located::Value::Text(target) = &member.value.value else {
        let reason = format!("a target is a string, and this is {}", member.value.value.kind());
        return Err((member.value.offset, reason));
    };
    let at_name = |reason: String| (member.offset, reason);
    let at_target = |reason: &str| (member.value.offset, format!("`{target}`: {reason}"));
    if target == "TUN" {
        return match member.name.as_str() {
            "*" => Ok(Endpoint::Tun),
            _ => Err(at_name("\"TUN\" goes with \"*\" only".to_owned())),
        };
    }
    let ports = member.name.strip_prefix("tcp:").and_then(ports).ok_or_else(|| {
        at_name(format!("`{}` is no source: `tcp:<port>` or `tcp:<first>-<last>` was expected", member.name))
    })?;
    let (protocol, rest) =
        target.split_once("://").ok_or_else(|| at_target("a target is <protocol>://<destination>"))?;
    let protocol = match protocol {
        "file" => return Ok(Endpoint::File { ports, path: rest.to_owned() }),
        "http" => Protocol::Http,
        "https" => Protocol::Https,
        "https+insecure" => Protocol::HttpsInsecure,
        "tls-terminated-http" => Protocol::TlsTerminatedHttp,
        "tcp" => Protocol::Tcp,
        "tls-terminated-tcp" => Protocol::TlsTerminatedTcp,
        _ => {
            return Err(at_target(
                "the protocol is not one of http, https, https+insecure, tls-terminated-http, tcp, tls-terminated-tcp, file",
            ));
        }
    };
    let (host, to) = destination(rest).ok_or_else(|| at_target("the destination is no <host>:<port>"))?;
    if to.end() - to.start() != ports.end() - ports.start() {
        return Err(at_target("it has not as many ports as its source"));
    }
    Ok(Endpoint::Ports { ports, protocol, host, first: *to.start() })
}

/// `<port>` or `<first>-<last>`
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && !text.starts_with('+'));
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last).then_some(first..=last)
}

fn destination(text: &str) -> Option<(String, RangeInclusive<u16>)> {
    let (_, range) = text.rsplit_once(':')?;
    let range = ports(range)?;
    let single = format!("{}:{}", &text[..text.rfind(':')?], range.start());
    let (host, _) = split_host_port(&single).ok()?;
    (!host.is_empty()).then(|| (host.to_owned(), range))
}

/// The serve config for `services` in the tailnet of that MagicDNS suffix.
pub(super) fn config(services: &[Service], suffix: &str) -> Value {
    let services: Map<_, _> = services.iter().map(|service| (service.name.clone(), entry(service, suffix))).collect();
    json!({ "Services": services })
}

fn entry(service: &Service, suffix: &str) -> Value {
    let host = format!("{}.{suffix}", service.name.trim_start_matches("svc:"));
    let (mut tcp, mut web, mut tun) = (Map::new(), Map::new(), false);
    let mut serve = |port: u16, kind: &str, handler: Value| {
        tcp.insert(port.to_string(), json!({ kind: true }));
        web.insert(format!("{host}:{port}"), json!({"Handlers": {"/": handler}}));
    };
    let mut forwards = Vec::new();
    for endpoint in &service.endpoints {
        match endpoint {
            Endpoint::Tun => tun = true,
            Endpoint::File { ports, path } => {
                ports.clone().for_each(|port| serve(port, "HTTPS", json!({ "Path": path })));
            }
            Endpoint::Ports { ports, protocol, host: to, first } => {
                for port in ports.clone() {
                    let to = join(to, first + (port - ports.start()));
                    match protocol {
                        Protocol::Http => serve(port, "HTTP", json!({"Proxy": format!("http://{to}")})),
                        Protocol::Https => serve(port, "HTTPS", json!({"Proxy": format!("https://{to}")})),
                        Protocol::HttpsInsecure => {
                            serve(port, "HTTPS", json!({"Proxy": format!("https+insecure://{to}")}));
                        }
                        Protocol::TlsTerminatedHttp => serve(port, "HTTPS", json!({"Proxy": format!("http://{to}")})),
                        Protocol::Tcp => forwards.push((port, json!({ "TCPForward": to }))),
                        Protocol::TlsTerminatedTcp => {
                            forwards.push((port, json!({"TCPForward": to, "TerminateTLS": host})));
                        }
                    }
                }
            }
        }
    }
    tcp.extend(forwards.into_iter().map(|(port, handler)| (port.to_string(), handler)));
    let mut entry = Map::new();
    if !tcp.is_empty() {
        entry.insert("TCP".to_owned(), tcp.into());
    }
    if !web.is_empty() {
        entry.insert("Web".to_owned(), web.into());
    }
    if tun {
        entry.insert("Tun".to_owned(), true.into());
    }
    entry.into()
}

fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::super::document::{Document, Held, NodeFacts};
    use super::*;

    fn facts() -> NodeFacts {
        let suffix = "tail1.ts.net".to_owned();
        NodeFacts { known: true, cert_domain: Some(format!("n.{suffix}")), suffix: Some(suffix) }
    }

    #[test]
    fn endpoints_become_what_set_config_makes_of_them() {
        let text = r#"{"version": "0.0.1", "services": {
            "svc:web": {"endpoints": {"tcp:443": "https://localhost:8443", "tcp:80": "http://localhost:8080"}},
            "svc:db": {"endpoints": {"tcp:5432-5433": "tcp://[fd7a::1]:15432-15433", "tcp:6": "tls-terminated-tcp://h:7"},
                       "advertised": false},
            "svc:dir": {"endpoints": {"tcp:443": "file:///srv"}},
            "svc:net": {"endpoints": {"*": "TUN"}}}}"#;
        let document = Document::parse(text).unwrap();
        assert_eq!(
            document.resolve(&facts()).unwrap(),
            json!({"Services": {
                "svc:web": {
                    "TCP": {"443": {"HTTPS": true}, "80": {"HTTP": true}},
                    "Web": {"web.tail1.ts.net:443": {"Handlers": {"/": {"Proxy": "https://localhost:8443"}}},
                            "web.tail1.ts.net:80": {"Handlers": {"/": {"Proxy": "http://localhost:8080"}}}}},
                "svc:db": {"TCP": {"5432": {"TCPForward": "[fd7a::1]:15432"}, "5433": {"TCPForward": "[fd7a::1]:15433"},
                           "6": {"TCPForward": "h:7", "TerminateTLS": "db.tail1.ts.net"}}},
                "svc:dir": {"TCP": {"443": {"HTTPS": true}},
                            "Web": {"dir.tail1.ts.net:443": {"Handlers": {"/": {"Path": "/srv"}}}}},
                "svc:net": {"Tun": true}}})
        );
        assert_eq!(document.unadvertised(), ["svc:db"]);
        let none = NodeFacts { suffix: None, ..facts() };
        assert_eq!(document.resolve(&none), Err(Held::NoSuffix));
        assert_eq!(Document::parse(r#"{"version": "0.0.1"}"#).unwrap().resolve(&none), Ok(json!({})));
    }

    #[test]
    fn what_upstream_refuses_is_refused_with_its_place() {
        let service = |endpoints: &str| {
            format!("{{\"version\": \"0.0.1\", \"services\": {{\n\"svc:a\": {{\"endpoints\": {endpoints}}}}}}}")
        };
        for (text, error) in [
            (r#"{"version": "2"}"#.to_owned(), "line 1, column 13: the only version is \"0.0.1\""),
            (r#"{"version": "0.0.1", "TCP": {}}"#.to_owned(), "line 1, column 22: this format has no member `TCP`"),
            (
                service(r#"{"443": "tcp://h:1"}"#),
                "line 2, column 25: `443` is no source: `tcp:<port>` or `tcp:<first>-<last>` was expected",
            ),
            (service(r#"{"tcp:443": "h:1"}"#), "line 2, column 36: `h:1`: a target is <protocol>://<destination>"),
            (service(r#"{"tcp:443": "tcp://h"}"#), "line 2, column 36: `tcp://h`: the destination is no <host>:<port>"),
            (
                service(r#"{"tcp:1-3": "tcp://h:1-2"}"#),
                "line 2, column 36: `tcp://h:1-2`: it has not as many ports as its source",
            ),
            (
                service(r#"{"tcp:1-3": "tcp://h:1-3", "tcp:3": "tcp://h:9"}"#),
                "line 2, column 51: its ports overlap with those of another endpoint",
            ),
            (
                service(r#"{"*": "TUN", "tcp:1": "tcp://h:9"}"#),
                "line 2, column 37: TUN mode excludes all other endpoints",
            ),
            (service(r#"{"tcp:1": "TUN"}"#), "line 2, column 25: \"TUN\" goes with \"*\" only"),
            (service("7"), "line 2, column 24: an object was expected, and this is a number"),
        ] {
            assert_eq!(Document::parse(&text).unwrap_err().to_string(), error, "{text}");
        }
    }
}
