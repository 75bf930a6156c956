//! What the played release of tailscaled has and takes. Pure.

/// Mask bits of `watch-ipn-bus` (localapi.md 6.1).
pub(crate) mod bit {
    pub(crate) const INITIAL_STATE: u64 = 1 << 1;
    pub(crate) const INITIAL_PREFS: u64 = 1 << 2;
    pub(crate) const INITIAL_NETMAP: u64 = 1 << 3;
    pub(crate) const INITIAL_HEALTH: u64 = 1 << 7;
    pub(crate) const RATE_LIMIT: u64 = 1 << 8;
    pub(crate) const PEER_CHANGES: u64 = 1 << 12;
    pub(crate) const INITIAL_STATUS: u64 = 1 << 14;
    pub(crate) const PEER_PATCHES: u64 = 1 << 15;
    pub(crate) const IN_PROCESS: u64 = 1 << 16;
}

/// The daemon version that is played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) long: String,
    /// The `y` of `1.y.z`.
    pub(crate) minor: u32,
}

impl Version {
    pub(crate) fn new(long: &str) -> Self {
        let minor = long.split('.').nth(1).and_then(|part| part.parse().ok()).unwrap_or(102);
        Self { long: long.to_owned(), minor }
    }

    /// `1.y.z`.
    pub(crate) fn short(&self) -> &str {
        self.long.split('-').next().unwrap_or_default()
    }

    /// The capability version of that release (localapi.md 11).
    pub(crate) fn capability(&self) -> u32 {
        const RELEASES: [(u32, u32); 15] = [
            (104, 148),
            (103, 145),
            (102, 142),
            (100, 141),
            (98, 138),
            (96, 133),
            (92, 131),
            (90, 130),
            (88, 125),
            (86, 122),
            (84, 116),
            (82, 115),
            (80, 113),
            (76, 106),
            (70, 102),
        ];
        RELEASES.iter().find(|(minor, _)| self.minor >= *minor).map_or(87, |(_, capability)| *capability)
    }

    /// Why a mask is refused, if it is.
    pub(crate) fn refuses(&self, mask: u64) -> bool {
        let with_rate = [bit::PEER_CHANGES, 1 << 13, bit::INITIAL_STATUS, bit::PEER_PATCHES];
        let clash = mask & bit::RATE_LIMIT != 0 && with_rate.iter().any(|bit| mask & bit != 0);
        (self.minor >= 104 && mask & (bit::INITIAL_NETMAP | bit::RATE_LIMIT) != 0)
            || (self.minor >= 102 && (clash || mask & bit::IN_PROCESS != 0))
    }

    /// Whether status and deltas replace the full netmap on the bus.
    pub(crate) fn has_initial_status(&self) -> bool {
        self.minor >= 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_refused_as_the_version_does() {
        for (version, mask, refused) in [
            ("1.96.0", 8 | 256 | (1 << 14), false),
            ("1.102.5", 28804, false),
            ("1.102.5", 8, false),
            ("1.102.5", 256 | (1 << 14), true),
            ("1.102.5", 1 << 16, true),
            ("1.104.5", 8, true),
            ("1.104.5", 24594, false),
        ] {
            assert_eq!(Version::new(version).refuses(mask), refused, "{version} {mask}");
        }
    }

    #[test]
    fn a_long_version_tells_release_and_capability() {
        for (long, short, capability) in
            [("1.98.2-t0123-g45", "1.98.2", 138), ("1.102.5", "1.102.5", 142), ("1.60.0", "1.60.0", 87)]
        {
            let version = Version::new(long);
            assert_eq!((version.short(), version.capability()), (short, capability));
        }
    }
}
