//! Which part a replica has where certificates are shared (certs.md 6.1, 9.1). Pure.

/// How the one is chosen that gets certificates for all: `TAILPOD_CERT_WRITER`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CertWriter {
    /// Replica 0 is it.
    #[default]
    Ordinal,
    /// Whoever holds the group's Lease is it.
    Lease,
    /// Nobody of us is it.
    Off,
}

/// A replica's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertShare {
    /// It serves with what others have got.
    Reads,
    /// It gets them for all.
    Writes,
    /// It gets them while it holds the Lease, and reads otherwise.
    Elected,
}

/// Why no part can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoShare {
    /// Upstream makes every replica a reader then, and nobody gets certificates, silently.
    #[error("TS_EXPERIMENTAL_CERT_SHARE needs POD_NAME: without it no replica would get certificates")]
    NoName,
    /// All would be readers, too.
    #[error("TS_EXPERIMENTAL_CERT_SHARE needs a POD_NAME that ends in an ordinal: no replica would get certificates")]
    NoOrdinal,
}

impl CertWriter {
    /// All spellings.
    pub const ALL: &[&str] = &["ordinal", "lease", "off"];

    /// What the variable says, which is the usual one where it says nothing; nothing when it is misspelled.
    pub fn of(text: Option<&str>) -> Option<Self> {
        text.map_or(Some(Self::default()), Self::parse)
    }

    /// As the variable spells it.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "ordinal" => Some(Self::Ordinal),
            "lease" => Some(Self::Lease),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

impl CertShare {
    /// The part of the Pod `name`.
    ///
    /// # Errors
    /// No replica of the group would get certificates.
    pub fn of(name: Option<&str>, writer: CertWriter) -> Result<Self, NoShare> {
        let replica = || name.ok_or(NoShare::NoName);
        match writer {
            CertWriter::Off => Ok(Self::Reads),
            CertWriter::Lease => replica().map(|_| Self::Elected),
            CertWriter::Ordinal => match replica_of(replica()?) {
                Some((_, 0)) => Ok(Self::Writes),
                Some(_) => Ok(Self::Reads),
                None => Err(NoShare::NoOrdinal),
            },
        }
    }

    /// Whether it may get certificates.
    pub fn may_write(self) -> bool {
        self != Self::Reads
    }

    /// Whether it may serve with what others have got.
    pub fn may_read(self) -> bool {
        self != Self::Writes
    }

    /// `TS_CERT_SHARE_MODE`, for a tailscaled that is started for the first time.
    pub fn mode(self) -> &'static str {
        match self {
            Self::Reads | Self::Elected => "ro",
            Self::Writes => "rw",
        }
    }
}

/// The proxy group of a Pod: its name without the ordinal.
pub fn group_of(pod: &str) -> Option<&str> {
    replica_of(pod).map(|(group, _)| group)
}

/// The proxy group of a Pod and the replica's ordinal in it.
pub fn replica_of(pod: &str) -> Option<(&str, u32)> {
    let (group, ordinal) = pod.rsplit_once('-')?;
    // `parse` lets a sign pass.
    let is_number = ordinal.bytes().all(|byte| byte.is_ascii_digit());
    Some((group, ordinal.parse().ok().filter(|_| is_number)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinal_0_gets_them_and_nobody_silently_does_not() {
        use CertWriter::{Lease, Off, Ordinal};
        for (name, writer, expected) in [
            (Some("ingress-0"), Ordinal, Ok(CertShare::Writes)),
            (Some("ingress-10"), Ordinal, Ok(CertShare::Reads)),
            (Some("ingress-0"), Off, Ok(CertShare::Reads)),
            (None, Off, Ok(CertShare::Reads)),
            (None, Ordinal, Err(NoShare::NoName)),
            (Some("ingress-7d9f-x2x"), Ordinal, Err(NoShare::NoOrdinal)),
            (Some("ingress"), Ordinal, Err(NoShare::NoOrdinal)),
            (Some("ingress-1"), Lease, Ok(CertShare::Elected)),
            (Some("ingress-7d9f-x2x"), Lease, Ok(CertShare::Elected)),
            (None, Lease, Err(NoShare::NoName)),
        ] {
            assert_eq!(CertShare::of(name, writer), expected, "{name:?} {writer:?}");
        }
        assert!(CertWriter::ALL.iter().all(|text| CertWriter::parse(text).is_some()));
        assert_eq!((CertWriter::of(Some("Lease")), CertWriter::of(None)), (None, Some(Ordinal)));
        assert_eq!((group_of("ingress-eu-12"), group_of("ingress"), group_of("a-x")), (Some("ingress-eu"), None, None));
        assert_eq!((CertShare::Writes.mode(), CertShare::Reads.mode()), ("rw", "ro"));
    }
}
