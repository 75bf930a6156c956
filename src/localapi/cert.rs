//! Certificates for the node's names: `GET cert/<name>?type=pair` (localapi.md 7.10).

use std::time::Duration;

use super::client::{Call, SMALL};
use super::{Error, LocalApi, Right};
use crate::secret::Secret;

/// tailscaled may have to ask the CA first; whoever needs longer than a handshake asks ahead.
const LIMIT: Duration = Duration::from_secs(60);

impl LocalApi {
    /// Key and certificate chain of `name` as PEM, the key first. May make the daemon order a certificate.
    ///
    /// `name` must be one of the node's `CertDomains`: it becomes a part of the path.
    pub async fn certificate_pair(&self, name: &str) -> Result<Secret<Vec<u8>>, Error> {
        let target = format!("cert/{name}?type=pair&min_validity=0s");
        let call = Call { right: Right::Certificate, total: LIMIT, ..Call::get("cert") };
        let answer = self.transport.call(call.target(target), SMALL).await?;
        Ok(Secret::new(answer.body))
    }
}
