//! Certificates for the node's names: `GET cert/<name>` and `GET cert-domains` (localapi.md 7.10, 7.11).

use std::time::Duration;

use super::client::Call;
use super::{Error, ErrorKind, LocalApi, Peers, Right};
use crate::secret::Secret;

/// A chain has a few KiB.
const LARGEST: usize = 1 << 20;

impl LocalApi {
    /// The names that certificates can be had for, sorted; of a daemon older than 1.98, those of `status`.
    pub async fn cert_domains(&self) -> Result<Vec<String>, Error> {
        match self.get::<Option<Vec<String>>>("cert-domains").await {
            Ok(names) => Ok(names.unwrap_or_default()),
            Err(Error { kind: ErrorKind::Unsupported, .. }) => {
                let mut names = self.status(Peers::Omit).await?.cert_domains;
                names.sort();
                Ok(names)
            }
            Err(error) => Err(error),
        }
    }

    /// The chain of `name`, leaf first, as PEM; its key never comes here. **May issue or renew a certificate first**,
    /// which takes minutes; dropping the call aborts the order. A `min_validity` above zero renews what ends sooner
    /// before it answers. `name` must be one that is fit for a certificate: it goes into the path as it is.
    pub async fn certificate(&self, name: &str, min_validity: Duration, limit: Duration) -> Result<String, Error> {
        self.cert("cert", name, min_validity, limit).await
    }

    /// As [`certificate`](Self::certificate): the private key, then the chain.
    pub async fn certificate_pair(
        &self,
        name: &str,
        min_validity: Duration,
        limit: Duration,
    ) -> Result<Secret<String>, Error> {
        self.cert("pair", name, min_validity, limit).await.map(Secret::new)
    }

    async fn cert(&self, kind: &str, name: &str, min_validity: Duration, limit: Duration) -> Result<String, Error> {
        let validity = format!("{}s", min_validity.as_secs());
        let call = Call {
            right: Right::Certificate,
            total: limit,
            ..Call::get("cert").target(format!("cert/{name}?type={kind}&min_validity={validity}"))
        };
        let answer = self.transport.call_alone(call, LARGEST).await?;
        String::from_utf8(answer.body)
            .map_err(|error| self.transport.error("cert", ErrorKind::Malformed { source: error.utf8_error().into() }))
    }
}
