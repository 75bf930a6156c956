//! One open stream of the IPN bus.

use std::sync::Arc;

use reqwest::Response;

use super::client::{Transport, frame_kind, next_chunk};
use super::framer::Framer;
use super::types::Notify;
use super::{Error, ErrorKind, Peers, keep};

/// An open IPN bus.
#[derive(Debug)]
pub struct Watch {
    response: Response,
    framer: Framer,
    transport: Arc<Transport>,
}

impl Watch {
    pub(super) fn new(transport: Arc<Transport>, response: Response, peers: Peers) -> Self {
        Self { response, framer: Framer::new(keep::notify(peers), keep::limits(peers)), transport }
    }

    /// The next message; `None` when the daemon ended the stream. Cancel safe.
    ///
    /// # Errors
    /// `Disconnected` when the stream ended inside a message; `Malformed` for a message that is not one.
    pub async fn next(&mut self) -> Result<Option<Notify>, Error> {
        let Some(frame) = self.next_frame().await? else { return Ok(None) };
        let decoded = serde_json::from_slice(&frame);
        decoded.map(Some).map_err(|error| self.error(ErrorKind::Malformed { source: error.into() }))
    }

    /// The next message, undecoded, without the members that nobody needs.
    pub(super) async fn next_frame(&mut self) -> Result<Option<Vec<u8>>, Error> {
        loop {
            match self.framer.next() {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) => {}
                Err(error) => return Err(self.error(frame_kind(error))),
            }
            match next_chunk(&mut self.response).await {
                Ok(Some(bytes)) => self.framer.push(&bytes),
                Ok(None) if self.framer.is_idle() => return Ok(None),
                Ok(None) => return Err(self.error(ErrorKind::Disconnected { source: None })),
                Err(kind) => return Err(self.error(kind)),
            }
        }
    }

    fn error(&self, kind: ErrorKind) -> Error {
        self.transport.error("watch-ipn-bus", kind)
    }
}
