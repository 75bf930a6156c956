//! Whether a client that is not read from is still there.
//!
//! Reading tells when somebody goes. Where nothing is read, because what was read before has not left or enough has been
//! read ahead, the kernel still tells the runtime; but bytes that wait unread keep the runtime from waking anybody for
//! it. So what it was told is looked at now and then, which costs no system call.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// Between two looks. Whoever leaves is let go within a second (api-proxy.md 14, row 18).
const OFTEN: Duration = Duration::from_millis(250);

/// Looks after a client, from the first time that it is not read from.
#[derive(Debug, Default)]
pub(super) struct Lookout(Option<Pin<Box<Sleep>>>);

impl Lookout {
    /// Ready once `is_gone`, which is asked now and again in a while.
    pub(super) fn poll(&mut self, is_gone: impl Fn() -> bool, cx: &mut Context<'_>) -> Poll<()> {
        if is_gone() {
            return Poll::Ready(());
        }
        let timer = self.0.get_or_insert_with(|| Box::pin(sleep(OFTEN)));
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(Instant::now() + OFTEN);
        }
        Poll::Pending
    }
}
