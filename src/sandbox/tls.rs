//! Certificates for the sandbox's servers, made on the spot.
//!
//! Keys are ECDSA P-256: an identity is made in about a millisecond. It is valid for the names under which a Pod
//! reaches its API server and for loopback.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The names a server certificate is good for.
const NAMES: &[&str] = &[
    "localhost",
    "127.0.0.1",
    "::1",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// How a server certificate is rooted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// An authority signs the server's certificate, as in a real cluster.
    #[default]
    Authority,
    /// The server's certificate is its own authority, as Go's `httptest` makes it. rustls refuses those by itself.
    SelfRooted,
    /// As in a real cluster, and nobody renewed it.
    Expired,
}

/// A server's key and certificate, and what to trust.
#[derive(Clone, Debug)]
pub struct Identity {
    ca_pem: String,
    config: Arc<rustls::ServerConfig>,
}

impl Identity {
    /// Makes a new one.
    pub fn new(style: Style) -> io::Result<Self> {
        let (ca_pem, leaf, key) = certificate(style).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(io::Error::other)?;
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![leaf], key))
            .map_err(io::Error::other)?;
        Ok(Self { ca_pem, config: Arc::new(config) })
    }

    /// The certificate to trust, as PEM.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// For [`super::http::Listener::tls`].
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// A certificate for some names, as PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// What to trust.
    pub ca_pem: String,
    /// The key.
    pub key_pem: String,
    /// The certificate.
    pub chain_pem: String,
    /// Key and certificate in one, as tailscaled gives them out.
    pub pem: String,
}

/// Makes a certificate for `names`, signed by an authority of its own.
pub fn issue(names: &[&str]) -> io::Result<Pair> {
    issued(params("tailpod sandbox node", names)).map_err(io::Error::other)
}

/// The same, valid from so long ago and for so long from now.
pub fn issue_for(names: &[&str], before: Duration, after: Duration) -> io::Result<Pair> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    issue_between(names, now.saturating_sub(before), now + after)
}

/// The same, valid from the first to the second moment, both since 1970.
pub fn issue_between(names: &[&str], not_before: Duration, not_after: Duration) -> io::Result<Pair> {
    let leaf = params("tailpod sandbox node", names).map(|mut leaf| {
        let start = date_time_ymd(1970, 1, 1);
        (leaf.not_before, leaf.not_after) = (start + not_before, start + not_after);
        leaf
    });
    issued(leaf).map_err(io::Error::other)
}

fn issued(leaf: Result<CertificateParams, rcgen::Error>) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut authority = params("tailpod sandbox authority", &[])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let leaf = leaf?.signed_by(&key, &authority)?;
    let (key_pem, chain_pem) = (key.serialize_pem(), leaf.pem());
    let pem = format!("{key_pem}{chain_pem}");
    Ok(Pair { ca_pem: authority.pem(), key_pem, chain_pem, pem })
}

fn certificate(style: Style) -> Result<(String, CertificateDer<'static>, KeyPair), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut leaf = params("tailpod sandbox", NAMES)?;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    match style {
        Style::Authority | Style::Expired => {
            if style == Style::Expired {
                leaf.not_after = date_time_ymd(2021, 1, 1);
            }
            let mut authority = params("tailpod sandbox authority", &[])?;
            authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
            let leaf = leaf.signed_by(&key, &authority)?;
            Ok((authority.pem(), leaf.der().clone(), key))
        }
        Style::SelfRooted => {
            leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            leaf.key_usages.push(KeyUsagePurpose::KeyCertSign);
            let leaf = leaf.self_signed(&key)?;
            Ok((leaf.pem(), leaf.der().clone(), key))
        }
    }
}

fn params(common_name: &str, names: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    // Wide enough for a test that moves the clock.
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    fn verify(style: Style, name: &str) -> Result<(), rustls::Error> {
        let (ca_pem, leaf, _) = certificate(style).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn an_authority_vouches_for_every_name_and_no_other() {
        for name in NAMES {
            assert_eq!(verify(Style::Authority, name), Ok(()), "{name}");
        }
        assert!(verify(Style::Authority, "example.com").is_err());
    }

    #[test]
    fn a_self_rooted_certificate_is_what_webpki_refuses() {
        let error = verify(Style::SelfRooted, "127.0.0.1").unwrap_err();
        assert!(format!("{error:?}").contains("CaUsedAsEndEntity"), "{error:?}");
    }
}
