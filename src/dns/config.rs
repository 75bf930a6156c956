//! `/etc/resolv.conf` and `/etc/hosts`, read as musl reads them. Pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Where DNS servers listen.
const PORT: u16 = 53;
/// As many servers as every C library takes.
const SERVERS: usize = 3;

/// What `resolv.conf` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// At least one.
    pub servers: Vec<SocketAddr>,
    /// Suffixes for names that are not whole.
    pub search: Vec<String>,
    /// Names with so many dots are whole.
    pub ndots: usize,
    /// For one answer of one server.
    pub timeout: Duration,
    /// How often all servers are asked.
    pub attempts: u32,
}

impl Config {
    /// Reads the file's text. What is not understood is passed over, as everywhere.
    ///
    /// A server may carry a port as BSDs write it, `[127.0.0.1]:5353`.
    pub fn parse(text: &str) -> Self {
        let mut config =
            Self { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: Duration::from_secs(5), attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => config.servers.extend(words.next().and_then(server)),
                // The last line counts.
                Some("search" | "domain") => {
                    config.search = words.map(|word| word.trim_end_matches('.').to_owned()).collect();
                }
                Some("options") => words.for_each(|word| config.option(word)),
                _ => {}
            }
        }
        config.search.retain(|suffix| !suffix.is_empty());
        config.servers.truncate(SERVERS);
        if config.servers.is_empty() {
            config.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        config
    }

    fn option(&mut self, word: &str) {
        let Some((name, value)) = word.split_once(':') else { return };
        let Ok(value) = value.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = value.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(value.clamp(1, 60).into()),
            "attempts" => self.attempts = value.clamp(1, 10),
            _ => {}
        }
    }

    /// The whole names that `name` may stand for, in the order to try.
    pub fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let mut candidates = Vec::new();
        if name.bytes().filter(|byte| *byte == b'.').count() < self.ndots {
            candidates.extend(self.search.iter().map(|suffix| format!("{name}.{suffix}")));
        }
        candidates.push(name.to_owned());
        candidates
    }
}

fn server(text: &str) -> Option<SocketAddr> {
    if let Some((ip, port)) = text.strip_prefix('[').and_then(|text| text.split_once("]:")) {
        return Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?));
    }
    let (ip, zone) = text.split_once('%').map_or((text, None), |(ip, zone)| (ip, Some(zone)));
    let mut addr = SocketAddr::new(ip.parse().ok()?, PORT);
    if let (SocketAddr::V6(v6), Some(zone)) = (&mut addr, zone) {
        v6.set_scope_id(zone.parse().ok()?);
    }
    Some(addr)
}

/// The addresses of a name in `/etc/hosts`; empty when it is not there.
pub fn host(text: &str, name: &str) -> BTreeSet<IpAddr> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let found = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|alias| alias.eq_ignore_ascii_case(name)).then_some(ip)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kubelet_writes() {
        let text = "search prod.svc.cluster.local svc.cluster.local. cluster.local\nnameserver 10.96.0.10\n\
                    nameserver fd00::a\nnameserver fe80::1%2\nnameserver 1.1.1.1\noptions ndots:5 timeout:2 rotate\n";
        let config = Config::parse(text);
        let servers: Vec<_> = config.servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[fd00::a]:53", "[fe80::1%2]:53"]);
        assert_eq!((config.ndots, config.timeout.as_secs(), config.attempts), (5, 2, 2));
        assert_eq!(
            config.candidates("db.prod"),
            ["db.prod.prod.svc.cluster.local", "db.prod.svc.cluster.local", "db.prod.cluster.local", "db.prod"]
        );
        assert_eq!(config.candidates("db.prod."), ["db.prod"]);
        assert_eq!(config.candidates("a.b.c.d.e.f"), ["a.b.c.d.e.f"]);
    }

    #[test]
    fn an_empty_file_means_this_host() {
        let config = Config::parse("# nothing\nnameserver nonsense\n");
        assert_eq!(config.servers, ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(config.candidates("db"), ["db"]);
        assert_eq!(Config::parse("nameserver [127.0.0.1]:5353").servers, ["127.0.0.1:5353".parse().unwrap()]);
    }

    #[test]
    fn hosts_have_aliases_and_several_addresses() {
        let text = "127.0.0.1 localhost\n10.0.0.1\tdb.prod db # primary\n10.0.0.2 DB\nfd00::1 db\nnonsense db\n";
        let found: Vec<_> = host(text, "db.").iter().map(IpAddr::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "10.0.0.2", "fd00::1"]);
        assert!(host(text, "primary").is_empty());
    }
}
