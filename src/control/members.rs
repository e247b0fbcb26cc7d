//! Exchanges between members over TCP: one letter each way on a connection of its own, behind the handshake.
//!
//! ```text
//! dialer    hello (kind 2), claim      acceptor  challenge, welcome (`wire::greet`)
//! dialer    length u32, letter         acceptor  length u32, answer; both close
//! ```

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::shake::{self, Party, ShakeError};
use crate::protocol::membership::{Answer, Knowledge, Letter, Order, OrderRefused, Plan};
use crate::protocol::types::{ClusterId, NodeId};
use crate::wire::WireError;
use crate::wire::hello::Kind;
use crate::wire::members::{
    MESSAGE_BYTES_MAX, decode_letter, decode_letter_answer, encode_letter, encode_letter_answer,
};

/// Time for a whole exchange.
const EXCHANGE_MAX: Duration = Duration::from_secs(3);

/// Letters of other members that wait for the membership.
const LETTERS_MAX: usize = 256;

/// Orders of operators that wait for the membership.
const ORDERS_MAX: usize = 16;

/// A letter from a member, and where its answer goes.
#[derive(Debug)]
pub struct Received {
    /// Whose it is.
    pub from: NodeId,
    /// What it says.
    pub says: Letter,
    /// Where the answer goes; dropped, the connection ends without one.
    pub answer: oneshot::Sender<Answer>,
}

/// Where letters of other members go.
pub type Letters = mpsc::Sender<Received>;

/// A box for letters.
pub fn letters() -> (Letters, mpsc::Receiver<Received>) {
    mpsc::channel(LETTERS_MAX)
}

/// What an order comes to.
pub type Ordered = Result<Box<Plan>, OrderRefused>;

/// An order of an operator, and where its outcome goes once what it changed is durable. Dropped, the node stops.
pub type Wanted = (Order, oneshot::Sender<Ordered>);

/// Where orders of operators go.
pub type Orders = mpsc::Sender<Wanted>;

/// A box for orders.
pub fn orders() -> (Orders, mpsc::Receiver<Wanted>) {
    mpsc::channel(ORDERS_MAX)
}

/// Why there was no answer to a letter.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// Nobody is there, or the connection broke.
    #[error("no connection: {0}")]
    Broken(#[from] io::Error),
    /// It took too long.
    #[error("no answer within {} s", EXCHANGE_MAX.as_secs())]
    Late,
    /// The handshake failed.
    #[error(transparent)]
    Shake(#[from] ShakeError),
    /// What came was not understood.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Another node is there than the one that was meant.
    #[error("node \"{0}\" is there, which is another")]
    OtherNode(String),
    /// The membership takes no letters.
    #[error("the membership takes no letters")]
    Stopping,
}

impl ExchangeError {
    /// The other cluster that was met instead.
    pub fn foreign(&self) -> Option<ClusterId> {
        match self {
            ExchangeError::Shake(ShakeError::Foreign { theirs, .. }) => Some(*theirs),
            _ => None,
        }
    }
}

/// Sends a letter to whoever listens at an address, `to` where that is known, and hears the answer.
///
/// # Errors
/// [`ExchangeError`].
pub async fn exchange(
    party: &Party,
    to: Option<NodeId>,
    address: SocketAddr,
    says: &Letter,
) -> Result<Answer, ExchangeError> {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut read = BytesMut::new();
        let welcome = shake::dial(&mut socket, &mut read, (Kind::Members, None), party).await?;
        if to.is_some_and(|to| to != NodeId::of(&welcome.node)) {
            return Err(ExchangeError::OtherNode(welcome.node));
        }
        let mut out = BytesMut::new();
        encode_letter(&mut out, says);
        socket.write_all(&out).await?;
        Ok(decode_letter_answer(&hear(&mut socket, &mut read).await?)?)
    };
    timeout(EXCHANGE_MAX, exchange).await.unwrap_or(Err(ExchangeError::Late))
}

/// What the node at an address knows.
///
/// # Errors
/// [`ExchangeError`].
pub async fn ask(party: &Party, address: SocketAddr) -> Result<Knowledge, ExchangeError> {
    match exchange(party, None, address, &Letter::Compare(Box::new(Knowledge::nothing()))).await? {
        Answer::Knowledge(knowledge) => Ok(*knowledge),
    }
}

/// Takes the letter of a node that has proven the secret to the membership, and its answer back.
///
/// # Errors
/// [`ExchangeError`].
pub async fn serve(
    socket: &mut TcpStream,
    read: &mut BytesMut,
    from: NodeId,
    letters: &Letters,
) -> Result<(), ExchangeError> {
    let says = decode_letter(&hear(socket, read).await?)?;
    let (answer, answered) = oneshot::channel();
    letters.try_send(Received { from, says, answer }).map_err(|_| ExchangeError::Stopping)?;
    let answer = answered.await.map_err(|_| ExchangeError::Stopping)?;
    let mut out = BytesMut::new();
    encode_letter_answer(&mut out, &answer);
    socket.write_all(&out).await?;
    Ok(socket.shutdown().await?)
}

/// Reads one message. It grows by what has come, and to its bound at most.
async fn hear(socket: &mut TcpStream, read: &mut BytesMut) -> Result<Bytes, ExchangeError> {
    loop {
        if let Some(head) = read.first_chunk() {
            let found = u32::from_le_bytes(*head) as usize;
            if found > MESSAGE_BYTES_MAX {
                return Err(WireError::TooLong { what: "message", found, max: MESSAGE_BYTES_MAX }.into());
            }
            if 4 + found <= read.len() {
                return Ok(read.split_to(4 + found).freeze().slice(4..));
            }
        }
        if socket.read_buf(read).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}
