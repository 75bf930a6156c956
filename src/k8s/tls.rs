//! Trust in the API server's certificate.
//!
//! A server certificate that is byte for byte one of the certificates in the CA bundle is accepted after name and
//! validity checks: Go accepts it and home-made API servers use it, webpki alone refuses it (`CaUsedAsEndEntity`).
//! Everything else goes to webpki. The bundle is read again at each handshake, so a rotated CA needs no restart;
//! while it cannot be read, what was read last stays trusted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::rereads::Rereads;
use crate::lock::lock;
use crate::unverified::Unverified;
use crate::x509;

/// Where the trusted certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bundle {
    /// A PEM file that may change.
    File(PathBuf),
    /// The machine's own bundle: what cannot be used of it is passed over, as everybody does.
    System(PathBuf),
    /// Fixed DER certificates.
    Fixed(Vec<CertificateDer<'static>>),
}

/// Who decides about server certificates.
#[derive(Clone, Debug)]
pub(super) enum Trusts {
    /// A bundle of authorities.
    Bundle(Arc<Verifier>),
    /// Nobody: every certificate will do (`insecure-skip-tls-verify`).
    Anyone,
}

/// Where Linux systems keep their bundle (Go's `crypto/x509/root_linux.go`).
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl Bundle {
    /// The machine's bundle: `named` (from `SSL_CERT_FILE`) or the first that is there.
    pub(super) fn system(named: Option<PathBuf>) -> io::Result<Self> {
        let found = named.or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()));
        let missing = || io::Error::new(io::ErrorKind::NotFound, "this system has no bundle of CA certificates");
        found.map(Self::System).ok_or_else(missing)
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path) | Self::System(path) => Some(path),
            Self::Fixed(_) => None,
        }
    }
}

/// The one cryptography provider of this program.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

impl Trusts {
    /// Trusts `bundle` and nothing else.
    pub(super) fn only(bundle: Bundle) -> io::Result<Self> {
        Ok(Self::Bundle(Arc::new(Verifier::new(bundle)?)))
    }

    /// Reads the bundle again; the number changes with its content. A TLS configuration belongs to one of them, since a
    /// resumed session is not verified again.
    pub(super) fn version(&self) -> u64 {
        match self {
            Self::Bundle(verifier) => verifier.fresh().1,
            Self::Anyone => 0,
        }
    }

    fn verifier(&self) -> Arc<dyn ServerCertVerifier> {
        match self {
            Self::Bundle(verifier) => Arc::<Verifier>::clone(verifier),
            Self::Anyone => Arc::new(Unverified::new(provider())),
        }
    }
}

/// A client configuration for HTTP/1.1 that presents `identity`. Its session cache is its own: two configurations
/// never resume each other's sessions.
pub(super) fn client_config(trusts: &Trusts, identity: Option<Arc<CertifiedKey>>) -> io::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(trusts.verifier());
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Trusts a bundle that may change.
#[derive(Debug)]
pub(super) struct Verifier {
    bundle: Bundle,
    /// With the number of times that it has changed.
    held: Mutex<(Arc<Trust>, u64)>,
    rereads: Rereads,
}

/// One state of the bundle.
#[derive(Debug)]
struct Trust {
    pem: Vec<u8>,
    roots: Vec<CertificateDer<'static>>,
    webpki: Arc<WebPkiServerVerifier>,
}

impl Trust {
    fn from_pem(pem: Vec<u8>, bundle: &Bundle) -> io::Result<Self> {
        let roots: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(io::Error::other)?;
        Self::new(pem, roots, bundle)
    }

    fn new(pem: Vec<u8>, roots: Vec<CertificateDer<'static>>, bundle: &Bundle) -> io::Result<Self> {
        let mut store = RootCertStore::empty();
        if matches!(bundle, Bundle::System(_)) {
            store.add_parsable_certificates(roots.iter().cloned());
        } else {
            for root in &roots {
                store.add(root.clone()).map_err(io::Error::other)?;
            }
        }
        if store.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds no PEM certificate"));
        }
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(io::Error::other)?;
        Ok(Self { pem, roots, webpki })
    }
}

impl Verifier {
    fn new(bundle: Bundle) -> io::Result<Self> {
        let trust = match &bundle {
            Bundle::File(path) | Bundle::System(path) => Trust::from_pem(std::fs::read(path)?, &bundle)?,
            Bundle::Fixed(roots) => Trust::new(Vec::new(), roots.clone(), &bundle)?,
        };
        Ok(Self { bundle, held: Mutex::new((Arc::new(trust), 0)), rereads: Rereads::default() })
    }

    fn held(&self) -> Arc<Trust> {
        Arc::clone(&lock(&self.held).0)
    }

    /// The state of the bundle now, and its number. Runs on new connections only, which are rare.
    fn fresh(&self) -> (Arc<Trust>, u64) {
        // Before reading: what was read last is then what was there last.
        let mut held = lock(&self.held);
        let Some(path) = self.bundle.path() else { return held.clone() };
        let changed = |pem| if pem == held.0.pem { Ok(None) } else { Trust::from_pem(pem, &self.bundle).map(Some) };
        let read = std::fs::read(path).and_then(changed);
        let what = format_args!("the cluster's CA bundle {}", path.display());
        if let Some(Some(changed)) = self.rereads.told(&what, read) {
            tracing::info!(path = %path.display(), "the cluster's CA bundle changed");
            *held = (Arc::new(changed), held.1 + 1);
        }
        held.clone()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (trust, _) = self.fresh();
        if !trust.roots.iter().any(|root| root == end_entity) {
            return trust.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        }
        let valid = x509::validity(end_entity).ok_or(CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < valid.not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > valid.not_after {
            return Err(CertificateError::Expired.into());
        }
        rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.held().webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.held().webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.held().webpki.supported_verify_schemes()
    }
}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Made {
        der: CertificateDer<'static>,
        pem: String,
    }

    /// A certificate that is its own root, as Go's `httptest` makes them.
    fn self_rooted(name: &str, not_after: (i32, u8, u8)) -> Made {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(1970, 1, 2);
        params.not_after = rcgen::date_time_ymd(not_after.0, not_after.1, not_after.2);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        Made { der: made.der().clone(), pem: made.pem() }
    }

    fn check(verifier: &Verifier, leaf: &CertificateDer<'_>, name: &str, now: u64) -> Result<(), rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        verifier.verify_server_cert(leaf, &[], &name, &[], now).map(|_| ())
    }

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn a_server_certificate_that_is_its_own_root_is_accepted_for_its_name_and_time_only() {
        let made = self_rooted("127.0.0.1", (2084, 1, 29));
        let verifier = Verifier::new(Bundle::Fixed(vec![made.der.clone()])).unwrap();
        assert_eq!(check(&verifier, &made.der, "127.0.0.1", NOW), Ok(()));
        assert!(matches!(
            check(&verifier, &made.der, "127.0.0.2", NOW),
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
        ));
        assert_eq!(
            check(&verifier, &made.der, "127.0.0.1", 4_000_000_000),
            Err(rustls::Error::InvalidCertificate(CertificateError::Expired))
        );
        assert_eq!(
            check(&verifier, &made.der, "127.0.0.1", 0),
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYet))
        );
    }

    #[test]
    fn another_certificate_of_the_same_name_is_refused() {
        let trusted = self_rooted("127.0.0.1", (2084, 1, 29));
        let other = self_rooted("127.0.0.1", (2084, 1, 29));
        let verifier = Verifier::new(Bundle::Fixed(vec![trusted.der])).unwrap();
        assert!(check(&verifier, &other.der, "127.0.0.1", NOW).is_err());
    }

    #[test]
    fn a_certificate_signed_by_the_bundle_goes_through_webpki() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let leaf = rcgen::CertificateParams::new(vec!["kubernetes.default.svc".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&rcgen::KeyPair::generate().unwrap(), &issuer).unwrap();
        let verifier = Verifier::new(Bundle::Fixed(vec![root.der().clone()])).unwrap();
        assert_eq!(check(&verifier, leaf.der(), "kubernetes.default.svc", NOW), Ok(()));
        assert!(check(&verifier, leaf.der(), "elsewhere", NOW).is_err());
    }

    #[test]
    fn a_rotated_bundle_is_noticed_and_a_broken_one_keeps_the_last() {
        let (old, new) = (self_rooted("localhost", (2084, 1, 29)), self_rooted("localhost", (2084, 1, 29)));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        std::fs::write(&path, &old.pem).unwrap();
        let verifier = Verifier::new(Bundle::File(path.clone())).unwrap();
        assert_eq!(check(&verifier, &old.der, "localhost", NOW), Ok(()));
        assert!(check(&verifier, &new.der, "localhost", NOW).is_err());

        let (log, _guard) = crate::telemetry::testing::captured();
        std::fs::write(&path, "not a certificate").unwrap();
        for _ in 0..2 {
            assert_eq!(check(&verifier, &old.der, "localhost", NOW), Ok(()));
        }
        let lines = log.take();
        assert_eq!(lines.iter().filter(|line| line.starts_with("warning: cannot read the cluster's CA")).count(), 1);

        std::fs::write(&path, &new.pem).unwrap();
        assert_eq!(check(&verifier, &new.der, "localhost", NOW), Ok(()));
        assert!(check(&verifier, &old.der, "localhost", NOW).is_err());
        assert!(log.take().iter().any(|line| line.ends_with("ca.crt can be read again")));
    }

    #[test]
    fn a_bundle_without_certificates_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.crt");
        std::fs::write(&path, "hello\n").unwrap();
        assert!(Verifier::new(Bundle::File(path)).is_err());
    }
}
