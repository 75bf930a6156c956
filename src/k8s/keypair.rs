//! A client certificate with its key, as TLS presents it. Pure.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::tls;
use crate::x509::{self, Validity};

/// A certificate chain and the key of its leaf; they belong together.
#[derive(Clone, Debug)]
pub(super) struct KeyPair {
    key: Arc<CertifiedKey>,
    validity: Validity,
}

/// Why two texts are not a key pair, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPair {
    /// One of them is not what it should be, or they do not belong together.
    #[error("failed parsing client key/certificate: {0}")]
    Pair(String),
    /// The leaf is not a certificate that can be understood.
    #[error("failed parsing client leaf certificate: {0}")]
    Leaf(String),
}

impl KeyPair {
    /// From a chain and a key in PEM. Keys: PKCS#8, PKCS#1, SEC1; RSA, ECDSA P-256 and P-384, Ed25519.
    pub(super) fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, BadPair> {
        let pair = |why: &str| BadPair::Pair(why.to_owned());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| pair("the certificate is not PEM"))?;
        let Some(leaf) = chain.first() else {
            return Err(pair("tls: failed to find any PEM data in certificate input"));
        };
        let not_one = || BadPair::Leaf("x509: malformed certificate".to_owned());
        let validity = x509::validity(leaf).ok_or_else(not_one)?;
        let public = x509::public_key(leaf).ok_or_else(not_one)?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|_| pair("tls: failed to find any PEM data in key input"))?;
        let key = tls::provider().key_provider.load_private_key(key);
        let key = key.map_err(|_| pair("tls: failed to parse private key"))?;
        if key.public_key().is_none_or(|of_key| *of_key != *public) {
            return Err(pair("tls: private key does not match public key"));
        }
        let key = CertifiedKey::new(chain, key);
        Ok(Self { key: Arc::new(key), validity })
    }

    /// For a TLS configuration.
    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }

    /// When the leaf is valid.
    pub(super) fn validity(&self) -> Validity {
        self.validity
    }
}

impl PartialEq for KeyPair {
    /// By content. Equal leaves have the same public key, and each key was found to fit its leaf.
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

impl Eq for KeyPair {}

#[cfg(test)]
#[cfg(feature = "sandbox")]
mod tests {
    use super::*;

    fn made(algorithm: &'static rcgen::SignatureAlgorithm) -> (String, String) {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let params = rcgen::CertificateParams::new(vec!["me".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn a_pair_fits_or_is_refused() {
        let algorithms = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        let made = algorithms.map(made);
        for (chain, key) in &made {
            let pair = KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
            assert_eq!(pair, pair.clone());
        }
        let parse =
            |chain: &str, key: &str| KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err().to_string();
        let prefix = "failed parsing client key/certificate: tls: ";
        let [(chain, key), (_, other), _] = &made;
        assert_eq!(parse(chain, other), format!("{prefix}private key does not match public key"));
        assert_eq!(parse("", key), format!("{prefix}failed to find any PEM data in certificate input"));
        assert_eq!(parse(chain, ""), format!("{prefix}failed to find any PEM data in key input"));
        let garbled = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert!(parse(garbled, key).starts_with("failed parsing client leaf certificate: "));
    }

    /// The forms that cannot be made here, as openssl makes them: certificate and key in one file.
    #[test]
    fn every_form_of_a_key_is_read() {
        let files = [
            ("RSA PRIVATE KEY", include_str!("../../tests/fixtures/keys/rsa-pkcs1.pem")),
            ("PRIVATE KEY", include_str!("../../tests/fixtures/keys/rsa-pkcs8.pem")),
            ("EC PRIVATE KEY", include_str!("../../tests/fixtures/keys/p256-sec1.pem")),
            ("EC PRIVATE KEY", include_str!("../../tests/fixtures/keys/p384-sec1.pem")),
        ];
        for (index, (form, pem)) in files.into_iter().enumerate() {
            assert!(pem.contains(&format!("-----BEGIN {form}-----")), "{form}");
            KeyPair::from_pem(pem.as_bytes(), pem.as_bytes()).unwrap_or_else(|error| panic!("{form}: {error}"));
            let (_, other) = files[(index + 1) % files.len()];
            let error = KeyPair::from_pem(pem.as_bytes(), other.as_bytes()).unwrap_err().to_string();
            assert!(error.ends_with("private key does not match public key"), "{form}: {error}");
        }
    }
}
