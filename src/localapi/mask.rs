//! Which IPN bus mask to ask for, by what is known of the daemon. Pure.
//!
//! Bits are those of upstream's `ipn.NotifyWatchOpt`. Daemons from 1.100 on send a status snapshot and then deltas;
//! older ones know only the full netmap; from 1.104 on asking for that netmap is an error. So the mask depends on the
//! version, and the version is known only after the first answer.

use super::{Mask, Peers};

/// First message has `State` (and makes sure that there is a first message).
const INITIAL_STATE: u64 = 1 << 1;
/// First message has `Prefs`.
const INITIAL_PREFS: u64 = 1 << 2;
/// First message has `NetMap`; an error since 1.104.
const INITIAL_NETMAP: u64 = 1 << 3;
/// No effect today, but needed by non-writers up to 1.90.
const NO_PRIVATE_KEYS: u64 = 1 << 4;
/// First message has `Health`.
const INITIAL_HEALTH: u64 = 1 << 7;
/// `PeersChanged` and `PeersRemoved`; means something else on 1.98.
const PEER_CHANGES: u64 = 1 << 12;
/// Only matters on Windows; upstream sets it.
const NO_NETMAP: u64 = 1 << 13;
/// First message has `InitialStatus`.
const INITIAL_STATUS: u64 = 1 << 14;

/// A release such as 1.98.2. Compares in release order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1
    pub major: u32,
    /// Odd numbers are development versions.
    pub minor: u32,
    /// Patch release.
    pub patch: u32,
}

/// The oldest release that tailpod supports.
pub const OLDEST: Version = Version { major: 1, minor: 76, patch: 0 };
/// The newest release line that tailpod was tested with.
pub const NEWEST: Version = Version { major: 1, minor: 104, patch: u32::MAX };
/// The first release with `InitialStatus` and deltas.
const FIRST_MODERN: Version = Version { major: 1, minor: 100, patch: 0 };
/// The capability version of that release, for a daemon whose version cannot be parsed.
const FIRST_MODERN_CAPABILITY: u32 = 141;

/// How a daemon reports its state on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// 1.100 and newer: status snapshot, then deltas.
    Modern,
    /// Older: full netmaps.
    Legacy,
    /// Not known yet; to be treated as modern until an answer shows otherwise.
    Unknown,
}

/// What the watcher needs at the start of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Prefs and health too, so that a login failure from before the watch is seen.
    Login,
    /// Only state and self.
    Steady,
}

impl Version {
    /// The leading `N.N.N` of a long version such as `1.103.0-dev20260822-t0123abcd`.
    pub fn parse(long: &str) -> Option<Self> {
        let short = long.split(['-', '+', ' ']).next()?;
        let mut parts = short.split('.').map(|part| part.parse::<u32>().ok());
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => Some(Self { major, minor, patch }),
            _ => None,
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Generation {
    /// From the daemon's long version, else from its capability version.
    pub fn of(version: Option<&str>, capability: Option<u32>) -> Self {
        let modern = match version.and_then(Version::parse) {
            Some(version) => version >= FIRST_MODERN,
            None => match capability {
                Some(capability) => capability >= FIRST_MODERN_CAPABILITY,
                None => return Self::Unknown,
            },
        };
        if modern { Self::Modern } else { Self::Legacy }
    }
}

impl Mask {
    /// The mask for a watcher that wants this.
    pub fn choose(generation: Generation, phase: Phase, peers: Peers) -> Self {
        let mut bits = INITIAL_STATE | NO_PRIVATE_KEYS;
        match generation {
            Generation::Modern | Generation::Unknown => {
                bits |= NO_NETMAP | INITIAL_STATUS;
                if peers == Peers::Include {
                    bits |= PEER_CHANGES;
                }
            }
            Generation::Legacy => bits |= INITIAL_NETMAP,
        }
        if phase == Phase::Login {
            bits |= INITIAL_PREFS | INITIAL_HEALTH;
        }
        Self(bits)
    }

    /// The mask for consumers that need only this node itself and read `status` after the headers.
    pub fn self_only(generation: Generation) -> Self {
        match generation {
            Generation::Modern | Generation::Unknown => Self(INITIAL_STATE | NO_PRIVATE_KEYS),
            Generation::Legacy => Self(INITIAL_STATE | INITIAL_NETMAP | NO_PRIVATE_KEYS),
        }
    }

    /// The mask for consumers that only need to know that something about a node changed.
    pub fn changes(generation: Generation) -> Self {
        match generation {
            Generation::Modern | Generation::Unknown => Self(INITIAL_STATE | NO_PRIVATE_KEYS | PEER_CHANGES),
            Generation::Legacy => Self::self_only(generation),
        }
    }

    /// Whether peer deltas were asked for.
    pub(super) fn peers(self) -> Peers {
        if self.0 & PEER_CHANGES == 0 { Peers::Omit } else { Peers::Include }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_leading_three_numbers() {
        for (long, expected) in [
            ("1.98.2-t0123abcd-g4567ef", Some("1.98.2")),
            ("1.103.0-dev20260822-t0123", Some("1.103.0")),
            ("1.103.0-ERR-BuildInfo", Some("1.103.0")),
            ("1.104.5", Some("1.104.5")),
            ("1.104", None),
            ("1.104.5.6", None),
            ("date.20260101", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(long).map(|v| v.to_string()).as_deref(), expected, "{long}");
        }
    }

    #[test]
    fn generations_go_by_version_first() {
        assert_eq!(Generation::of(Some("1.98.9"), Some(999)), Generation::Legacy);
        assert_eq!(Generation::of(Some("1.99.1"), None), Generation::Legacy);
        assert_eq!(Generation::of(Some("1.100.0"), None), Generation::Modern);
        assert_eq!(Generation::of(Some("2.0.0"), None), Generation::Modern);
        assert_eq!(Generation::of(Some("custom"), Some(138)), Generation::Legacy);
        assert_eq!(Generation::of(Some("custom"), Some(141)), Generation::Modern);
        assert_eq!(Generation::of(None, None), Generation::Unknown);
    }

    #[test]
    fn masks_are_the_documented_numbers() {
        use Generation::{Legacy, Modern, Unknown};
        for (generation, phase, peers, expected) in [
            (Modern, Phase::Steady, Peers::Omit, 24_594),
            (Modern, Phase::Steady, Peers::Include, 28_690),
            (Modern, Phase::Login, Peers::Omit, 24_594 + 132),
            (Unknown, Phase::Steady, Peers::Omit, 24_594),
            (Legacy, Phase::Steady, Peers::Omit, 26),
            (Legacy, Phase::Steady, Peers::Include, 26),
            (Legacy, Phase::Login, Peers::Include, 158),
        ] {
            assert_eq!(Mask::choose(generation, phase, peers), Mask(expected), "{generation:?} {phase:?} {peers:?}");
        }
        assert_eq!((Mask::changes(Modern), Mask::changes(Legacy)), (Mask(4114), Mask(26)));
        assert_eq!((Mask::self_only(Modern), Mask::self_only(Legacy)), (Mask(18), Mask(26)));
    }
}
