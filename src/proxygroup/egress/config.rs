//! What the operator wants of an egress group: the files `egress-services` and `hep-pings`. Pure.
//!
//! ha-services.md 2.1 and 2.2; types follow `kube/egressservices/egressservices.go`.

use std::net::IpAddr;
use std::num::ParseIntError;

use serde::Serialize;
use serde_json::{Map, Value};

use super::super::entries::{self, Entry};
use super::super::plan::Kind;
use crate::netfilter::ruleset::{Port, Protocol};

/// The file with the Services, in the config directory.
pub const SERVICES_FILE: &str = "egress-services";
/// The file with the number of health checks, beside it.
pub const PINGS_FILE: &str = "hep-pings";

/// The file as it was read; by the name that the operator made of namespace and name.
pub type Config = entries::Config<Service>;

/// A target on the tailnet and the ports that lead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Where `/healthz` of some replica is reached through the cluster; older operators have none.
    pub health: Option<String>,
    /// The target as written: what is reported.
    pub target: TailnetTarget,
    /// The target as meant.
    pub wanted: Wanted,
    /// Sorted, each once: order and duplicates mean nothing.
    pub ports: Ports,
}

/// A target as the operator writes and compares it; exactly one is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TailnetTarget {
    /// An address, or nothing.
    pub ip: String,
    /// A MagicDNS name, or nothing.
    pub fqdn: String,
}

/// What a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An address.
    Ip(IpAddr),
    /// A name on the tailnet.
    Fqdn(String),
}

/// The ports of a Service. Most have one or two, for which a tree would be mostly room.
pub type Ports = Box<[PortMap]>;

/// A port of the Pod and the port it leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMap {
    /// As written: it is compared byte for byte.
    pub protocol: String,
    /// On the Pod.
    pub match_port: u16,
    /// On the target.
    pub target_port: u16,
}

impl PortMap {
    /// What is matched; `None` for a protocol that cannot be forwarded by port.
    pub fn port(&self) -> Option<Port> {
        let protocol = match self.protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        Some(Port { protocol, port: self.match_port })
    }

    fn read(value: &Value) -> Result<Self, String> {
        let number = |name: &str| match value.get(name).map_or(Some(0), Value::as_u64).map(u16::try_from) {
            Some(Ok(number)) if number > 0 => Ok(number),
            _ => Err(format!("{name} is {}, not a port", shown(value.get(name)))),
        };
        let protocol = value.get("protocol").and_then(Value::as_str).unwrap_or_default().to_owned();
        let map = Self { protocol, match_port: number("matchPort")?, target_port: number("targetPort")? };
        match map.port() {
            Some(_) => Ok(map),
            None => Err(format!("protocol is {}, neither TCP nor UDP", shown(value.get("protocol")))),
        }
    }
}

impl Entry for Service {
    const KIND: Kind = Kind::Egress;

    fn read(name: &str, entry: &Value, problems: &mut Vec<String>) -> Result<Self, String> {
        let entry = entry.as_object().ok_or("it is not an object")?;
        let target = TailnetTarget { ip: target(entry, "ip")?, fqdn: target(entry, "fqdn")? };
        let wanted = match (target.ip.as_str(), target.fqdn.as_str()) {
            ("", "") => return Err("neither tailnetTarget.ip nor tailnetTarget.fqdn is set".to_owned()),
            ("", fqdn) => Wanted::Fqdn(fqdn.to_owned()),
            (ip, _) => Wanted::Ip(ip.parse().map_err(|_| format!("tailnetTarget.ip is {ip:?}, not an IP address"))?),
        };
        let mut ports = Vec::new();
        let listed = match entry.get("ports") {
            None | Some(Value::Null) => &[][..],
            Some(Value::Array(listed)) => listed,
            Some(other) => return Err(format!("ports is {}, not an array", shown(Some(other)))),
        };
        for (nth, map) in listed.iter().enumerate() {
            match PortMap::read(map) {
                Ok(map) => ports.push(map),
                Err(problem) => problems.push(format!("egress service {name:?}: ports[{nth}] is left out: {problem}")),
            }
        }
        ports.sort_unstable();
        ports.dedup();
        let health = entry.get("healthCheckEndpoint").and_then(Value::as_str).filter(|url| !url.is_empty());
        Ok(Self { health: health.map(str::to_owned), target, wanted, ports: ports.into() })
    }
}

fn target(entry: &Map<String, Value>, member: &str) -> Result<String, String> {
    match entry.get("tailnetTarget").and_then(|target| target.get(member)) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("tailnetTarget.{member} is {}, not a string", shown(Some(other)))),
    }
}

/// A value of somebody else's, short.
fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "missing".to_owned(), Value::to_string);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// How many health checks reach every replica (`hep-pings`); 0 when nobody says. A number below zero is upstream's 0.
///
/// # Errors
/// It is not a number.
pub fn pings(text: &str) -> Result<u64, ParseIntError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(0);
    }
    text.parse::<i64>().map(|pings| u64::try_from(pings).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Config {
        Config::parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn the_example_of_the_contract() {
        let config = read(
            r#"{"default-web":{
              "healthCheckEndpoint":"http://ts-web-x7k2p.tailscale.svc.cluster.local:9002/healthz",
              "tailnetTarget":{"ip":"","fqdn":"web.example.ts.net"},
              "ports":[{"protocol":"TCP","matchPort":10345,"targetPort":80},
                       {"protocol":"TCP","matchPort":10871,"targetPort":443},
                       {"protocol":"TCP","matchPort":10345,"targetPort":80}]},
             "prod-dns":{"healthCheckEndpoint":"","tailnetTarget":{"ip":"100.100.20.7","fqdn":""},"later":1,
              "ports":[{"protocol":"udp","matchPort":10002,"targetPort":53}]}}"#,
        );
        assert_eq!(config.problems, Vec::<String>::new());
        let web = &config.services["default-web"];
        assert_eq!(web.wanted, Wanted::Fqdn("web.example.ts.net".to_owned()));
        assert_eq!(web.ports.len(), 2, "a set");
        assert!(web.health.as_ref().unwrap().ends_with(":9002/healthz"));
        let dns = &config.services["prod-dns"];
        assert_eq!((dns.health.as_ref(), &dns.wanted), (None, &Wanted::Ip("100.100.20.7".parse().unwrap())));
        let map = dns.ports.first().unwrap();
        assert_eq!(map.protocol, "udp", "reported as written");
        assert_eq!(map.port(), Some(Port { protocol: Protocol::Udp, port: 10002 }));
    }

    #[test]
    fn nothing_and_an_empty_object_are_two_things() {
        assert_eq!(Config::parse(b"").unwrap(), None);
        assert_eq!(Config::parse(b"{}").unwrap(), Some(Config::default()));
        assert_eq!(Config::parse(b"null").unwrap(), Some(Config::default()));
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        let error = Config::parse(b"{\n \"a\": {,}}").unwrap_err();
        let text = crate::causes::chain(&error);
        assert!(text.contains("line 2 column 8"), "{text}");
        assert!(Config::parse(b"[]").is_err());
        assert!(Config::parse(b"{} x").is_err());
    }

    #[test]
    fn one_odd_service_does_not_take_the_others_along() {
        let config = read(
            r#"{"a":{"tailnetTarget":{"ip":"","fqdn":""},"ports":[]},
                "b":{"tailnetTarget":{"ip":"100.64.0.300"}},
                "c":7,
                "d":{"tailnetTarget":{"ip":7}},
                "e":{"tailnetTarget":{"fqdn":"x.ts.net"},"ports":{}},
                "ok":{"tailnetTarget":{"ip":"100.64.0.9","fqdn":"ignored.ts.net"},"ports":[
                  {"protocol":"SCTP","matchPort":1,"targetPort":1},
                  {"protocol":"TCP","matchPort":70000,"targetPort":1},
                  {"protocol":"TCP","matchPort":0,"targetPort":1},
                  {"protocol":"TCP","matchPort":"x","targetPort":1},
                  {"protocol":"TCP","matchPort":80,"targetPort":8080}]}}"#,
        );
        assert_eq!(config.services.keys().collect::<Vec<_>>(), ["ok"]);
        let ok = &config.services["ok"];
        assert_eq!(ok.wanted, Wanted::Ip("100.64.0.9".parse().unwrap()), "the address wins");
        assert_eq!(ok.ports.iter().map(|map| map.match_port).collect::<Vec<_>>(), [80]);
        for (line, part) in config.problems.iter().zip([
            r#""a" is left out: neither tailnetTarget.ip nor tailnetTarget.fqdn is set"#,
            r#""b" is left out: tailnetTarget.ip is "100.64.0.300", not an IP address"#,
            r#""c" is left out: it is not an object"#,
            r#""d" is left out: tailnetTarget.ip is 7, not a string"#,
            r#""e" is left out: ports is {}, not an array"#,
            r#""ok": ports[0] is left out: protocol is "SCTP", neither TCP nor UDP"#,
            r#""ok": ports[1] is left out: matchPort is 70000, not a port"#,
            r#""ok": ports[2] is left out: matchPort is 0, not a port"#,
            r#""ok": ports[3] is left out: matchPort is "x", not a port"#,
        ]) {
            assert!(line.ends_with(part), "{line}");
        }
        assert_eq!(config.problems.len(), 9, "{:?}", config.problems);
    }

    #[test]
    fn pings_take_a_newline_and_no_words() {
        assert_eq!(pings("12"), Ok(12));
        assert_eq!(pings("12\n"), Ok(12));
        assert_eq!((pings(""), pings("0"), pings("-3")), (Ok(0), Ok(0), Ok(0)));
        assert!(pings("twelve").is_err());
        assert!(pings("1 2").is_err());
    }
}
