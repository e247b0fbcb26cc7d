//! Connections of HTTP: how many, how long they may say nothing, how long they may not read.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Most connections. Each has one request at a time, so this bounds requests too. Who comes when all are taken waits
/// in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;

/// Time for a request's head to come, the wait for a next request on the same connection included.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Time in which a connection that has bytes to send must take some of them.
const STALL_MAX: Duration = Duration::from_secs(30);

/// Bytes buffered of a connection; a head with the largest context fits.
const BUFFER_BYTES_MAX: usize = 128 * 1_024;

/// What a failed accept waits for: no descriptor is free, and one may be in a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the future is dropped. Polled on the control thread.
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(listener: TcpListener, router: Router) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the places");
        match listener.accept().await {
            Ok((socket, peer)) => {
                tokio::spawn(converse(socket, peer, router.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "http: a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(socket: TcpStream, peer: SocketAddr, router: Router, _place: OwnedSemaphorePermit) {
    // Replies are written whole; waiting to fill a packet would only delay their end.
    let _ = socket.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(Impatient::new(socket)), service);
    if let Err(error) = connection.await {
        tracing::debug!(%peer, %error, "http: a connection broke off");
    }
}

/// A socket whose writes fail when the other end takes nothing for too long.
struct Impatient {
    socket: TcpStream,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Impatient {
    fn new(socket: TcpStream) -> Impatient {
        Impatient { socket, stalled: None }
    }

    /// The outcome of a write, or the end of patience.
    fn judge<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = None;
            return outcome;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_MAX)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end does not read")))
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, to)
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, from);
        self.judge(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_flush(cx);
        self.judge(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.judge(cx, outcome)
    }
}
