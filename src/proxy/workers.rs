//! The threads that serve connections.
//!
//! Each has a runtime of its own, and a connection stays on the one that it was given to, with its timers and its way to
//! the API server: no request wakes another thread. One runtime whose two threads take work from each other gave 7 %
//! fewer answers.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use super::StartError;

/// The threads; they end with the last clone.
#[derive(Clone, Debug)]
pub struct Workers(Option<Arc<[Worker; 2]>>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    load: Load,
    stop: CancellationToken,
}

/// Work for a worker, while it exists: its clones are counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Load(Arc<()>);

impl Workers {
    /// Starts two: while one computes a handshake, the other one answers.
    ///
    /// # Errors
    /// There are no threads or no descriptors left.
    pub fn start() -> Result<Self, StartError> {
        let start = || Worker::start().map_err(StartError::Workers);
        Ok(Self(Some(Arc::new([start()?, start()?]))))
    }

    /// No thread: connections are served by the runtime that accepts them, and share its clock.
    pub fn here() -> Self {
        Self(None)
    }

    /// Where the next connection is served: where there are fewer.
    pub(super) fn place(&self) -> (Handle, Load) {
        let Some(workers) = &self.0 else { return (Handle::current(), Load::default()) };
        let [first, second] = &**workers;
        let worker = if first.load.count() <= second.load.count() { first } else { second };
        (worker.runtime.clone(), worker.load.clone())
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        thread::Builder::new().name("worker".to_owned()).spawn(move || {
            runtime.block_on(stopped.cancelled());
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, load: Load::default(), stop })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Load {
    fn count(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

/// A connection that another runtime accepted, for the one that this is called in.
pub(super) fn adopt(accepted: TcpStream) -> io::Result<TcpStream> {
    TcpStream::from_std(accepted.into_std()?)
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[test]
    fn a_connection_goes_where_fewer_are() {
        let workers = Workers::start().unwrap();
        let (one, first) = workers.place();
        let (other, _second) = workers.place();
        assert_ne!(one.id(), other.id());
        drop(first);
        let (next, _third) = workers.place();
        assert_eq!(next.id(), one.id());
    }

    #[tokio::test]
    async fn threads_end_with_the_last_clone() {
        let workers = Workers::start().unwrap();
        let (runtime, _load) = workers.place();
        let last = workers.clone();
        drop(workers);
        let here = thread::current().id();
        let there = async move { thread::current().id() };
        let mut served = JoinSet::new();
        served.spawn_on(there, &runtime);
        assert_ne!(served.join_next().await.unwrap().unwrap(), here);
        served.spawn_on(std::future::pending(), &runtime);
        drop(last);
        assert!(served.join_next().await.unwrap().unwrap_err().is_cancelled());
    }
}
