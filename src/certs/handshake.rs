//! One TLS handshake with one server, for the certificate that it serves.
//!
//! Whether an authority vouches for it is not asked: it is compared with the one that ought to be served. That the
//! server has the certificate's key is part of the handshake. Nothing is sent but the name.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::chain::{Certificate, ChainError};
use super::names::Name;
use crate::unverified::Unverified;

/// Why no certificate was seen.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The server wants no TLS, or not for this name.
    #[error("no TLS handshake")]
    Tls(#[source] io::Error),
    /// It took too long.
    #[error("no TLS handshake within {}", crate::goduration::format(*.0))]
    Timeout(Duration),
    /// What came is no certificate.
    #[error("what is served cannot be read")]
    Unreadable(#[source] ChainError),
    /// The name stands for many, and none can be asked for.
    #[error("a wildcard is nobody's name")]
    Wildcard,
}

/// Shakes hands as `name` over `stream`, and leaves.
pub async fn served(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    name: &Name,
    limit: Duration,
) -> Result<Certificate, HandshakeError> {
    if name.is_wildcard() {
        return Err(HandshakeError::Wildcard);
    }
    let tls = |error: &dyn fmt::Display| HandshakeError::Tls(io::Error::other(error.to_string()));
    let server = ServerName::try_from(name.as_str().to_owned()).map_err(|error| tls(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified::new(provider)))
        .with_no_client_auth();
    // A resumed session shows no certificate.
    config.resumption = Resumption::disabled();
    let connecting = TlsConnector::from(Arc::new(config)).connect(server, stream);
    let stream = timeout(limit, connecting).await.map_err(|_| HandshakeError::Timeout(limit))?;
    let stream = stream.map_err(HandshakeError::Tls)?;
    let (_, connection) = stream.get_ref();
    Certificate::of(connection.peer_certificates().unwrap_or_default()).map_err(HandshakeError::Unreadable)
}
