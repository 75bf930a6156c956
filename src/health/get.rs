//! One GET over a connection of its own: what asks a health endpoint, ours or that of another Pod.

use std::error::Error;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How much of an answer is read.
const LARGEST: usize = 64 * 1024;

/// Asks for `target` and closes the connection. Has no time limit of its own.
pub(crate) async fn get(
    stream: TcpStream,
    host: &str,
    target: &str,
) -> Result<Response<Bytes>, Box<dyn Error + Send + Sync>> {
    let request = Request::get(target)
        .header(header::HOST, host)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, Limited::new(body, LARGEST).collect().await?.to_bytes()))
    };
    // What goes wrong on the connection also fails the answer, with more to say.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
