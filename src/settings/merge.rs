//! Values made of several variables: accept-dns, and the repaired listen address (boot.md 2.4). Pure.

use std::net::IpAddr;

use super::parse;

/// `TS_ACCEPT_DNS` and `TS_EXTRA_ARGS`, merged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AcceptDns {
    /// What counts.
    pub(super) value: bool,
    /// Whether it counts as set: by its variable, or because the flag changed it.
    pub(super) is_set: bool,
    /// `TS_EXTRA_ARGS` without the flag that was taken.
    pub(super) words: Vec<String>,
    /// A line to log.
    pub(super) note: Option<String>,
}

/// Takes `--accept-dns` out of the extra arguments; it wins over the variable.
pub(super) fn accept_dns(variable: Option<bool>, mut words: Vec<String>) -> AcceptDns {
    const FLAG: &str = "--accept-dns";
    let old = variable.unwrap_or(false);
    let kept = |words, note| AcceptDns { value: old, is_set: variable.is_some(), words, note };
    let Some(index) = words.iter().position(|word| word.starts_with(FLAG)) else { return kept(words, None) };
    let parts: Vec<&str> = words[index].split('=').collect();
    let value = match parts[..] {
        [FLAG] => true,
        [FLAG, text] => {
            let Some(value) = parse::boolean(text) else {
                let note = format!(
                    "TS_EXTRA_ARGS contains --accept-dns={text:?}, which is not a valid boolean value, ignoring it"
                );
                return kept(words, Some(note));
            };
            value
        }
        _ => {
            let note = "TS_EXTRA_ARGS contains --accept-dns, but it is not in the expected format \
                        --accept-dns=<true|false>, ignoring it";
            return kept(words, Some(note.to_owned()));
        }
    };
    words.remove(index);
    let note = (value != old)
        .then(|| format!("TS_EXTRA_ARGS contains --accept-dns={value}, which overrides TS_ACCEPT_DNS={old}"));
    AcceptDns { value, is_set: variable.is_some() || value != old, words, note }
}

/// Brackets around the Pod's IPv6 address in a listen address that has none: manifests write `$(POD_IP):9002`.
pub(super) fn repair_brackets(addr_port: &str, pod_ipv6: Option<IpAddr>) -> String {
    let Some(ip) = pod_ipv6.map(|ip| ip.to_string()) else { return addr_port.to_owned() };
    if addr_port.contains(['[', ']']) {
        return addr_port.to_owned();
    }
    addr_port.replacen(&ip, &format!("[{ip}]"), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_variable() {
        let merge = |variable, args: &str| {
            let merged = accept_dns(variable, parse::words(args));
            (merged.value, merged.is_set, merged.words.join(" "), merged.note.unwrap_or_default())
        };
        let overrides =
            |new, old| format!("TS_EXTRA_ARGS contains --accept-dns={new}, which overrides TS_ACCEPT_DNS={old}");
        let none = String::new();
        for (variable, args, expected) in [
            (None, "", (false, false, none.clone(), none.clone())),
            (Some(false), "--a", (false, true, "--a".into(), none.clone())),
            (Some(true), "--accept-dns=false --widget=a", (false, true, "--widget=a".into(), overrides(false, true))),
            (Some(false), "--accept-dns", (true, true, none.clone(), overrides(true, false))),
            (None, "--x  --accept-dns=T --y", (true, true, "--x --y".into(), overrides(true, false))),
            // Not a change, so the variable still counts as unset.
            (None, "--accept-dns=false", (false, false, none.clone(), none.clone())),
            (None, "-accept-dns", (false, false, "-accept-dns".into(), none.clone())),
            (
                None,
                "--accept-dns=maybe",
                (
                    false,
                    false,
                    "--accept-dns=maybe".into(),
                    r#"TS_EXTRA_ARGS contains --accept-dns="maybe", which is not a valid boolean value, ignoring it"#
                        .into(),
                ),
            ),
            (
                Some(true),
                "--accept-dns=a=b",
                (
                    true,
                    true,
                    "--accept-dns=a=b".into(),
                    "TS_EXTRA_ARGS contains --accept-dns, but it is not in the expected format \
                     --accept-dns=<true|false>, ignoring it"
                        .into(),
                ),
            ),
        ] {
            assert_eq!(merge(variable, args), expected, "{variable:?} {args}");
        }
    }

    #[test]
    fn only_the_pods_own_address_gets_brackets() {
        let pod = "fd7a:115c:a1e0::6c34:352".parse().ok();
        for (given, expected) in [
            ("fd7a:115c:a1e0::6c34:352:9002", "[fd7a:115c:a1e0::6c34:352]:9002"),
            ("[fd7a:115c:a1e0::6c34:352]:9002", "[fd7a:115c:a1e0::6c34:352]:9002"),
            ("fd7a::1:9002", "fd7a::1:9002"),
            ("[::]:9002", "[::]:9002"),
        ] {
            assert_eq!(repair_brackets(given, pod), expected);
        }
        assert_eq!(repair_brackets("fd7a::1:9002", None), "fd7a::1:9002");
    }
}
