//! A proxy in this process, where the clock is the test's: what takes seconds to hours, in milliseconds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tailpod::k8s::upstream::{Upstream as Way, Whose};
use tailpod::localapi::LocalApi;
use tailpod::proxy::{
    At, Client as ClientAddress, Grants, Limits, Listen, Metrics, Mode, Options, Proxy, ServerTiming, StartError,
    Surroundings, Tls, UnrecordedStreams, Workers,
};
use tailpod::sandbox::{Daemon, Sandbox};
use tailpod::settings::KubeAccess;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::upstream::Upstream;
use super::world::{ANN, Client, TOKEN, World, proxy_header};

/// A proxy that runs in this process.
pub(crate) struct Inside {
    pub(crate) sandbox: Sandbox,
    pub(crate) upstream: Upstream,
    pub(crate) addr: SocketAddr,
    stop: CancellationToken,
    serving: JoinSet<Result<(), StartError>>,
}

impl Inside {
    /// One behind `serve`, whose API server is the pretended one.
    pub(crate) async fn start() -> Self {
        let (sandbox, upstream) = World::parts().await;
        let kubeconfig = sandbox.pod().write("etc/upstream", upstream.kubeconfig("", TOKEN)).expect("a file");
        let access = KubeAccess::Kubeconfig { path: kubeconfig, context: None };
        Self::with(sandbox, upstream, &access, ClientAddress::ProxyHeader, Tls::Off).await
    }

    /// One that reaches the API server by `access`, and whose clients come in this way.
    pub(crate) async fn with(
        sandbox: Sandbox,
        upstream: Upstream,
        access: &KubeAccess,
        client: ClientAddress,
        tls: Tls,
    ) -> Self {
        let at = At::Address("127.0.0.1:0".parse().expect("an address"));
        let options = Options {
            mode: Mode::Auth,
            listen: Listen { at, client, tls },
            grants: Grants::Node,
            unrecorded_streams: UnrecordedStreams::Forward,
            server_timing: ServerTiming::Hide,
            limits: Limits::default(),
        };
        let surroundings = Surroundings {
            localapi: LocalApi::new(&sandbox.pod().backend()),
            upstream: Way::open(access, Whose::Ours).await.expect("a way to the API server"),
            metrics: Arc::new(Metrics::default()),
            workers: Workers::here(),
        };
        let proxy = Proxy::bind(options, surroundings).await.expect("a listener");
        let (addr, stop) = (proxy.addresses()[0], CancellationToken::new());
        let mut serving = JoinSet::new();
        serving.spawn(proxy.serve(stop.clone()));
        Self { sandbox, upstream, addr, stop, serving }
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.sandbox.daemon()
    }

    /// A connection of the usual peer.
    pub(crate) async fn client(&self) -> Client<TcpStream> {
        let mut stream = TcpStream::connect(self.addr).await.expect("a connection");
        stream.write_all(&proxy_header(ANN)).await.expect("sent");
        Client::new(stream)
    }

    /// Stops it, in good order.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let ended = self.serving.join_next().await.expect("it was started");
        ended.expect("no panic").expect("a good end");
    }
}

/// Lets this much time pass in no time. Whatever was due is due at its end, once.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}
