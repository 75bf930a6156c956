//! Which part a replica has where certificates are shared (certs.md 6.1, 9.1). Pure.

/// A replica's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertShare {
    /// It serves with what others have got.
    Reads,
    /// It gets them for all.
    Writes,
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
    /// Nothing restarts tailscaled when the Lease changes hands.
    #[error("TAILPOD_CERT_WRITER=lease is not supported by `boot` in this build of tailpod")]
    Lease,
}

impl CertShare {
    /// The part of the Pod `name`. `writer` is `TAILPOD_CERT_WRITER`: ordinal 0 by upstream's rule, or nobody here.
    ///
    /// # Errors
    /// No replica of the group would get certificates.
    pub fn of(name: Option<&str>, writer: &str) -> Result<Self, NoShare> {
        let ordinal = || replica_of(name.ok_or(NoShare::NoName)?).map(|(_, ordinal)| ordinal).ok_or(NoShare::NoOrdinal);
        match writer {
            "off" => Ok(Self::Reads),
            "lease" => Err(NoShare::Lease),
            _ => Ok(if ordinal()? == 0 { Self::Writes } else { Self::Reads }),
        }
    }

    /// `TS_CERT_SHARE_MODE`, for tailscaled.
    pub fn mode(self) -> &'static str {
        match self {
            Self::Reads => "ro",
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
        for (name, writer, expected) in [
            (Some("ingress-0"), "ordinal", Ok(CertShare::Writes)),
            (Some("ingress-10"), "ordinal", Ok(CertShare::Reads)),
            (Some("ingress-0"), "off", Ok(CertShare::Reads)),
            (None, "off", Ok(CertShare::Reads)),
            (None, "ordinal", Err(NoShare::NoName)),
            (Some("ingress-7d9f-x2x"), "ordinal", Err(NoShare::NoOrdinal)),
            (Some("ingress"), "ordinal", Err(NoShare::NoOrdinal)),
            (Some("ingress-0"), "lease", Err(NoShare::Lease)),
        ] {
            assert_eq!(CertShare::of(name, writer), expected, "{name:?} {writer}");
        }
        assert_eq!((group_of("ingress-eu-12"), group_of("ingress"), group_of("a-x")), (Some("ingress-eu"), None, None));
        assert_eq!((CertShare::Writes.mode(), CertShare::Reads.mode()), ("rw", "ro"));
    }
}
