//! Memory that all requests share: who wants more than is free waits, for a while.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::protocol::message::Failure;

/// Time that a request waits for memory. Longer, and whoever asked has given up.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Permits count KiB: a semaphore's count of bytes would not fit into the u32 that a request may take.
const UNIT: usize = 1_024;

/// A bounded number of bytes.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    free: Arc<Semaphore>,
    units: usize,
}

/// Bytes that are taken until this is dropped.
#[derive(Debug)]
pub(super) struct Taken {
    _permit: OwnedSemaphorePermit,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        let units = bytes / UNIT;
        Budget { free: Arc::new(Semaphore::new(units)), units }
    }

    /// Takes `bytes`, or all there is where that is less, so that nobody waits for what will never be free.
    pub(super) async fn take(&self, bytes: usize) -> Result<Taken, Refusal> {
        let units = bytes.div_ceil(UNIT).min(self.units);
        let units = u32::try_from(units).expect("a budget is far below 4 TiB");
        match timeout(WAIT_MAX, Arc::clone(&self.free).acquire_many_owned(units)).await {
            Ok(permit) => Ok(Taken { _permit: permit.expect("nobody closes a budget") }),
            Err(_late) => Err(Failure::Overloaded { retry_after_ms: 1_000 }.into()),
        }
    }
}

/// A body that gives something back once it is sent or given up.
pub(super) struct Held<T> {
    body: Body,
    _held: T,
}

impl<T> Held<T> {
    pub(super) fn new(body: impl Into<Body>, held: T) -> Held<T> {
        Held { body: body.into(), _held: held }
    }
}

impl<T: Unpin> HttpBody for Held<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}
