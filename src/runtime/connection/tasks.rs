//! The two tasks of a connection: one reads calls and hands them to the core, one sends answers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::BytesMut;
use futures_lite::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::protocol::message::{Answer, Failure};
use crate::runtime::core::Core;
use crate::wire::call::decode_call;
use crate::wire::frame::{CALL_BYTES_MAX, CallId, next_frame};

/// Calls that one connection may bring in a turn before others have theirs.
const CALLS_A_TURN: usize = 128;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// A buffer that once held a large frame or answer is given back.
const KEPT_BYTES: usize = 64 * 1024;

/// Why a connection ended. For the log.
#[derive(Debug)]
pub enum End {
    /// The client closed it.
    Closed,
    /// The bytes were no frames.
    Refused(Failure),
    /// The network failed.
    Lost(std::io::Error),
}

/// Reads calls until the connection ends. `scratch` is the core's: what is left of a frame between two reads is
/// kept in `partial`, so that ten thousand silent connections hold no buffers.
pub async fn read(
    core: &RefCell<Core>,
    scratch: &RefCell<Vec<u8>>,
    connection: &Rc<Connection>,
    mut partial: BytesMut,
) -> End {
    loop {
        match take_calls(core, connection, &mut partial) {
            Err(failure) => {
                let answer = Answer::One(Err(failure.clone()));
                core.borrow_mut().farewell(connection, &answer);
                return End::Refused(failure);
            }
            Ok(Turn::More) => {
                core.borrow_mut().flush();
                glommio::executor().yield_task_queue_now().await;
                continue;
            }
            Ok(Turn::Full) => {
                core.borrow_mut().flush();
                if !has_room(core, connection).await {
                    return End::Closed;
                }
            }
            Ok(Turn::Drained) => {
                core.borrow_mut().flush();
                if !has_room(core, connection).await {
                    return End::Closed;
                }
                match receive(core, scratch, connection, &mut partial).await {
                    Ok(0) => return End::Closed,
                    Ok(_) => {}
                    Err(error) => return End::Lost(error),
                }
            }
        }
    }
}

/// Waits for room for further answers, not for what other clients leave unread; false when the connection was closed
/// meanwhile.
async fn has_room(core: &RefCell<Core>, connection: &Connection) -> bool {
    while connection.is_full() || (core.borrow().replies_are_full() && connection.has_answers()) {
        if connection.closed.get() {
            return false;
        }
        connection.wait_for_room().await;
    }
    true
}

enum Turn {
    /// No whole frame is left.
    Drained,
    /// There may be more, but no room for their answers.
    Full,
    /// There are more, but others wait for their turn.
    More,
}

/// Hands whole frames to the core, up to a turn's worth.
fn take_calls(core: &RefCell<Core>, connection: &Rc<Connection>, partial: &mut BytesMut) -> Result<Turn, Failure> {
    let mut core = core.borrow_mut();
    for _ in 0..CALLS_A_TURN {
        if connection.is_full() {
            return Ok(Turn::Full);
        }
        let next = next_frame(partial, CALL_BYTES_MAX, |frame| (frame.id, decode_call(frame)))?;
        let Some((id, call)) = next else {
            let since = if partial.is_empty() { None } else { connection.frame_since.get().or(Some(core.instant())) };
            connection.frame_since.set(since);
            if partial.is_empty() && partial.capacity() > KEPT_BYTES {
                *partial = BytesMut::new();
            }
            return Ok(Turn::Drained);
        };
        connection.frame_since.set(None);
        if id == CallId::NONE {
            return Err(Failure::Malformed { reason: "id 0 belongs to no call".to_owned() });
        }
        connection.under_way.set(connection.under_way.get() + 1);
        match call {
            Ok(call) => core.on_call(connection, id, call),
            Err(error) => core.on_malformed(connection, id, error.into()),
        }
    }
    Ok(Turn::More)
}

async fn receive(
    core: &RefCell<Core>,
    scratch: &RefCell<Vec<u8>>,
    connection: &Connection,
    partial: &mut BytesMut,
) -> std::io::Result<usize> {
    let received = poll_fn(|context| {
        let mut scratch = scratch.borrow_mut();
        let mut stream = connection.stream.borrow_mut();
        let polled = Pin::new(&mut *stream).poll_read(context, &mut scratch);
        if let Poll::Ready(Ok(bytes)) = polled {
            partial.extend_from_slice(&scratch[..bytes]);
        }
        polled
    })
    .await?;
    connection.read_at.set(core.borrow().instant());
    Ok(received)
}

/// Sends answers until the connection ends.
pub async fn write(core: &RefCell<Core>, connection: &Connection) {
    let mut sending = BytesMut::new();
    while !connection.closed.get() {
        if connection.finishing.get() && connection.is_answered() {
            connection.close();
            break;
        }
        connection.writer.wait().await;
        loop {
            std::mem::swap(&mut sending, &mut connection.answers.borrow_mut());
            if sending.is_empty() {
                break;
            }
            if connection.answers_since.get().is_none() {
                connection.answers_since.set(Some(core.borrow().instant()));
            }
            if send_all(core, connection, &sending).await.is_err() {
                connection.close();
                break;
            }
            connection.answers_since.set(None);
            if sending.capacity() > KEPT_BYTES {
                sending = BytesMut::new()
            } else {
                sending.clear()
            }
            connection.reader.raise();
        }
    }
    core.borrow_mut().on_sent(connection.waiting_bytes.take());
}

async fn send_all(core: &RefCell<Core>, connection: &Connection, bytes: &[u8]) -> std::io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        let more = poll_fn(|context| {
            let mut stream = connection.stream.borrow_mut();
            Pin::new(&mut *stream).poll_write(context, &bytes[sent..])
        })
        .await?;
        if more == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        sent += more;
        connection.waiting_bytes.set(connection.waiting_bytes.get() - more);
        let mut core = core.borrow_mut();
        core.on_sent(more);
        // A client that takes a large answer slowly but steadily is not stalled.
        connection.answers_since.set(Some(core.instant()));
    }
    Ok(())
}

/// The scratch buffer that the connections of a core share.
pub fn scratch() -> RefCell<Vec<u8>> {
    RefCell::new(vec![0; READ_BYTES])
}
