//! Capability versions: the build's own, and those of released daemons. Pure.

/// The capability version of the tailscaled this build was made beside (1.104), unless the build says otherwise
/// through `TAILPOD_CAPVER`.
pub const CAPVER: u32 = match option_env!("TAILPOD_CAPVER") {
    Some(text) => number(text.as_bytes()),
    None => 148,
};

/// `1.<minor>` and its capability version (localapi.md 11); releases in between have that of the one before.
const RELEASES: [(u32, u32); 17] = [
    (60, 87),
    (66, 95),
    (70, 102),
    (76, 106),
    (80, 113),
    (82, 115),
    (84, 116),
    (86, 122),
    (88, 125),
    (90, 130),
    (92, 131),
    (96, 133),
    (98, 138),
    (100, 141),
    (102, 142),
    (103, 145),
    (104, 148),
];

/// The capability version of a daemon by its version text (`1.98.2-t0123abcd`, the first line of
/// `tailscaled --version`). `None` when the text does not start with `N.N.N` or the daemon is older than 1.60.
///
/// A daemon newer than the table is taken for the newest in it: it reads everything older.
pub fn of_release(version: &str) -> Option<u32> {
    let mut parts = version.trim().splitn(3, '.');
    let major: u32 = parts.next()?.parse().ok()?;
    let minor: u32 = parts.next()?.parse().ok()?;
    if !parts.next()?.starts_with(|c: char| c.is_ascii_digit()) || major == 0 {
        return None;
    }
    let minor = if major > 1 { u32::MAX } else { minor };
    RELEASES.iter().rev().find(|(release, _)| *release <= minor).map(|(_, capver)| *capver)
}

/// A decimal number, at build time.
const fn number(digits: &[u8]) -> u32 {
    let mut value = 0;
    let mut at = 0;
    while at < digits.len() {
        assert!(digits[at].is_ascii_digit(), "TAILPOD_CAPVER must be a decimal number");
        value = value * 10 + (digits[at] - b'0') as u32;
        at += 1;
    }
    assert!(!digits.is_empty(), "TAILPOD_CAPVER must not be empty");
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_their_capability_version() {
        for (version, capver) in [
            ("1.98.2-t0123abcd-g4567ef", Some(138)),
            ("1.104.5\n", Some(148)),
            ("1.94.0", Some(131)),
            ("1.103.0-dev20260822-t1", Some(145)),
            ("1.103.0-ERR-BuildInfo", Some(145)),
            ("1.110.0", Some(148)),
            ("2.0.0", Some(148)),
            ("1.58.0", None),
            ("1.98", None),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(of_release(version), capver, "{version}");
        }
        assert_eq!(number(b"0148"), 148);
    }
}
