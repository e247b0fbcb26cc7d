//! The door of the binary port: strangers become clients or peers here, or go.
//!
//! A stranger is slow, silent or wrong at the cost of this thread and of a few hundred bytes, never of a data core. Who
//! says hello as it should, with the token, is welcomed, and the socket goes to a core with whatever was read behind
//! the hello. A core of another node proves the cluster's secret in place of the token; a member that compares what it
//! knows does so too, and is served here.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::members::{self, ExchangeError};
use super::node::Node;
use super::shake::{self, ShakeError};
use crate::protocol::message::Failure;
use crate::runtime::connection::{ASKS_MAX, CALLS_MAX};
use crate::runtime::mail::{Arrival, Caller};
use crate::runtime::slots::{Slot, Slots};
use crate::wire::frame::{ANSWER_BYTES_MAX, CALL_BYTES_MAX};
use crate::wire::hello::{
    Features, Greeting, HELLO_BYTES_MAX, Hello, Kind, Limits, VERSIONS, Welcome, encode_greeting,
};
use crate::wire::peer::PEER_BYTES_MAX;

/// Strangers at the door. Who comes when so many stand there takes the place of whoever has stood there longest: a
/// crowd that says nothing must not keep out who says hello.
const STRANGERS_MAX: usize = 256;

/// Connections of other nodes: 1,000 nodes of 16 cores to each of 4, and they never take the place of a client. Who has
/// the secret is not a stranger, so this bounds mistakes.
const PEERS_MAX: u32 = 65_536;

/// Nobody loses the place before this: a hello comes right behind the connection, or behind one lost packet.
const HELLO_TIME_MIN: Duration = Duration::from_millis(100);

/// Time for a hello to come; and as much again for its answer to go.
const HELLO_TIME_MAX: Duration = Duration::from_secs(5);

/// What a failed accept waits for: no descriptor is free, and one may be in a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a stranger did not become a client.
#[derive(Debug, thiserror::Error)]
enum Turned {
    #[error("it broke off: {0}")]
    Broken(#[from] io::Error),
    #[error("it does not read what it was told")]
    Deaf,
    #[error(transparent)]
    Refused(#[from] Failure),
    #[error(transparent)]
    Unproven(#[from] ShakeError),
    #[error(transparent)]
    Unheard(#[from] ExchangeError),
}

/// Somebody who was accepted and has not become a client yet, as far as we know.
struct Stranger {
    since: Instant,
    greeting: JoinHandle<()>,
}

/// The acceptor of one node.
#[derive(Clone)]
pub struct Acceptor {
    node: Node,
    slots: Slots,
    peers: Slots,
}

impl Acceptor {
    /// An acceptor with that many places for clients.
    pub fn new(node: Node, slots: Slots) -> Acceptor {
        let peers = Slots::new(node.cores.count, PEERS_MAX);
        Acceptor { node, slots, peers }
    }

    /// Accepts until the future is dropped. Polled on the control thread.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub async fn serve(self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let mut strangers = VecDeque::new();
        loop {
            self.make_room(&mut strangers).await;
            match listener.accept().await {
                Ok((socket, peer)) => {
                    let greeting = tokio::spawn(self.clone().receive(socket, peer));
                    strangers.push_back(Stranger { since: Instant::now(), greeting });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until there is a place at the door, or makes one.
    async fn make_room(&self, strangers: &mut VecDeque<Stranger>) {
        if strangers.len() < STRANGERS_MAX {
            return;
        }
        strangers.retain(|stranger| !stranger.greeting.is_finished());
        if strangers.len() < STRANGERS_MAX {
            return;
        }
        let mut oldest = strangers.pop_front().expect("the door is full");
        if timeout_at(oldest.since + HELLO_TIME_MIN, &mut oldest.greeting).await.is_err() {
            tracing::debug!("a connection gave way to a new one before it said hello");
            oldest.greeting.abort();
            self.node.metrics.hello(false);
        }
    }

    async fn receive(self, socket: TcpStream, peer: SocketAddr) {
        let outcome = match timeout(2 * HELLO_TIME_MAX, self.greet(socket, peer)).await {
            Ok(outcome) => outcome,
            Err(_late) => Err(Turned::Deaf),
        };
        if let Err(turned) = &outcome {
            tracing::debug!(%peer, reason = %turned, "a connection was turned away");
        }
        self.node.metrics.hello(outcome.is_ok());
    }

    async fn greet(&self, mut socket: TcpStream, peer: SocketAddr) -> Result<(), Turned> {
        let mut read = BytesMut::with_capacity(HELLO_BYTES_MAX);
        let judged = match timeout(HELLO_TIME_MAX, self.judge(&mut socket, &mut read)).await {
            Ok(judged) => judged,
            Err(_late) => Err(malformed(&format!("no whole hello within {} s", HELLO_TIME_MAX.as_secs())).into()),
        };
        match judged {
            Ok((hello, slot)) if hello.kind == Kind::Members => {
                let welcome = self.welcome(&hello, &slot);
                let proven = shake::accept(&mut socket, &mut read, &hello, &self.node.party, welcome).await?;
                Ok(members::serve(&mut socket, &mut read, proven.node, &self.node.letters).await?)
            }
            Ok((hello, slot)) => {
                let caller = self.let_in(&mut socket, &mut read, &hello, &slot).await?;
                let socket = socket.into_std()?;
                socket.set_nonblocking(false)?;
                socket.set_nodelay(true)?;
                Ok(self.node.door.hand_over(Arrival { socket, leftover: read.freeze(), peer, slot, caller })?)
            }
            Err(Turned::Refused(failure)) => {
                say(&mut socket, &Err(failure.clone())).await?;
                see_off(socket).await?;
                Err(failure.into())
            }
            Err(turned) => Err(turned),
        }
    }

    /// Reads the hello and finds a place for who said it. The token is looked at before anything else that it says.
    async fn judge(&self, socket: &mut TcpStream, read: &mut BytesMut) -> Result<(Hello, Slot), Turned> {
        let hello = hear(socket, read).await?;
        if hello.kind == Kind::Client && !self.node.guard.admits(hello.token.as_bytes()) {
            return Err(Failure::Unauthorized.into());
        }
        if VERSIONS.common(hello.versions).is_none() {
            return Err(Failure::Version { min: VERSIONS.min, max: VERSIONS.max }.into());
        }
        let slots = match hello.kind {
            Kind::Client => &self.slots,
            Kind::Peer | Kind::Members => &self.peers,
        };
        match slots.take(hello.core) {
            Ok(slot) => Ok((hello, slot)),
            Err(open) => Err(Failure::Connections { open, max: slots.max() }.into()),
        }
    }

    /// Welcomes who was judged, and says who it is. A peer is welcomed when it has proven the secret.
    async fn let_in(
        &self,
        socket: &mut TcpStream,
        read: &mut BytesMut,
        hello: &Hello,
        slot: &Slot,
    ) -> Result<Caller, Turned> {
        let welcome = self.welcome(hello, slot);
        if hello.kind == Kind::Client {
            say(socket, &Ok(welcome)).await?;
            return Ok(Caller::Client);
        }
        let proven = shake::accept(socket, read, hello, &self.node.party, welcome).await?;
        match proven.cluster {
            Some(_) => Ok(Caller::Peer(proven.node)),
            None => Err(malformed("a node without a cluster asks for nothing").into()),
        }
    }

    fn welcome(&self, hello: &Hello, slot: &Slot) -> Welcome {
        let bytes = |max: usize| u32::try_from(max).expect("a frame is far below 4 GiB");
        let (request_bytes, in_flight) = match hello.kind {
            Kind::Client => (CALL_BYTES_MAX, CALLS_MAX),
            Kind::Peer | Kind::Members => (PEER_BYTES_MAX, ASKS_MAX),
        };
        Welcome {
            version: VERSIONS.common(hello.versions).expect("it was judged"),
            features: hello.features.common(Features::default()),
            cluster: self.node.cluster,
            core: slot.core(),
            cores: self.node.cores.count,
            salt: self.node.cores.salt,
            partitions: self.node.ring.partitions(),
            limits: Limits {
                request_bytes: bytes(request_bytes),
                answer_bytes: bytes(ANSWER_BYTES_MAX),
                in_flight: bytes(in_flight),
            },
            node: self.node.name.to_string(),
        }
    }
}

/// Reads until the hello is whole, and takes it off what was read. A hello is bounded, so this ends.
async fn hear(socket: &mut TcpStream, read: &mut BytesMut) -> Result<Hello, Turned> {
    loop {
        match Hello::decode(read) {
            Ok(Some((hello, taken))) => {
                drop(read.split_to(taken));
                return Ok(hello);
            }
            Ok(None) if socket.read_buf(read).await? == 0 => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Ok(None) => {}
            Err(error) => return Err(malformed(&error.to_string()).into()),
        }
    }
}

async fn say(socket: &mut TcpStream, greeting: &Greeting) -> io::Result<()> {
    let mut out = BytesMut::new();
    encode_greeting(&mut out, greeting);
    socket.write_all(&out).await
}

/// Waits until the other end has closed: closing on unread bytes would reset the connection, and the refusal might
/// never be read.
async fn see_off(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let mut passed_over = [0; 512];
    while socket.read(&mut passed_over).await? > 0 {}
    Ok(())
}

fn malformed(reason: &str) -> Failure {
    Failure::Malformed { reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;
    use crate::protocol::types::CoreId;
    use crate::wire::hello::{Token, Versions, decode_greeting};

    struct Port {
        address: SocketAddr,
        slots: Slots,
        arrivals: flume::Receiver<Arrival>,
    }

    fn hello() -> Hello {
        Hello {
            versions: VERSIONS,
            features: Features(u64::MAX),
            kind: Kind::Client,
            core: None,
            token: Token::new("secret").unwrap(),
        }
    }

    fn spelt(hello: &Hello) -> Vec<u8> {
        let mut out = BytesMut::new();
        hello.encode(&mut out);
        out.to_vec()
    }

    impl Port {
        fn open(connections_max: u32) -> Port {
            let (node, arrivals) = testing::node(Some("secret"));
            let slots = Slots::new(node.cores.count, connections_max);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(Acceptor::new(node, slots.clone()).serve(listener));
            Port { address, slots, arrivals }
        }

        async fn say(&self, bytes: &[u8]) -> (TcpStream, Greeting) {
            let mut socket = TcpStream::connect(self.address).await.unwrap();
            socket.write_all(bytes).await.unwrap();
            let mut read = BytesMut::new();
            loop {
                if let Some((greeting, _)) = decode_greeting(&read).unwrap() {
                    return (socket, greeting);
                }
                assert!(socket.read_buf(&mut read).await.unwrap() > 0, "closed after {read:?}");
            }
        }

        async fn refusal(&self, bytes: &[u8]) -> Failure {
            let (mut socket, greeting) = self.say(bytes).await;
            let failure = greeting.unwrap_err();
            assert_eq!(socket.read(&mut [0]).await.unwrap(), 0, "the connection ends behind a refusal");
            assert_eq!(self.slots.open(), 0);
            failure
        }
    }

    #[tokio::test]
    async fn a_client_is_welcomed_and_its_socket_goes_to_a_core_with_what_it_said_since() {
        let port = Port::open(8);
        let wanted = Hello { core: Some(CoreId(1)), ..hello() };

        let (mut socket, greeting) = port.say(&[spelt(&wanted), b"frames".to_vec()].concat()).await;

        let welcome = greeting.unwrap();
        assert_eq!((welcome.core, welcome.cores, welcome.version), (CoreId(1), 2, 1));
        assert_eq!((welcome.cluster, welcome.node.as_str()), (testing::CLUSTER, "node-a"));
        assert_eq!(welcome.features, Features::default(), "only what both can do");
        let arrival = port.arrivals.recv_async().await.unwrap();
        assert_eq!(&arrival.leftover[..], b"frames");
        assert_eq!(arrival.peer, socket.local_addr().unwrap());
        assert_eq!(port.slots.open(), 1);

        // The socket is the same one, and blocks as a core expects of it.
        std::io::Write::write_all(&mut &arrival.socket, b"!").unwrap();
        let mut said = [0];
        socket.read_exact(&mut said).await.unwrap();
        assert_eq!(&said, b"!");
        drop(arrival);
        assert_eq!(port.slots.open(), 0);
    }

    #[tokio::test]
    async fn a_hello_may_come_byte_by_byte() {
        let port = Port::open(8);
        let mut socket = TcpStream::connect(port.address).await.unwrap();
        for byte in spelt(&hello()) {
            socket.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert!(port.arrivals.recv_async().await.is_ok());
    }

    #[tokio::test]
    async fn a_stranger_is_told_why_it_is_refused() {
        let port = Port::open(8);
        let wrong = Hello { token: Token::new("Secret").unwrap(), ..hello() };
        assert_eq!(port.refusal(&spelt(&wrong)).await, Failure::Unauthorized);

        let newer = Hello { versions: Versions { min: 7, max: 9 }, ..hello() };
        assert_eq!(port.refusal(&spelt(&newer)).await, Failure::Version { min: 1, max: 1 });

        let newer_peer = Hello { kind: Kind::Peer, ..newer };
        assert_eq!(port.refusal(&spelt(&newer_peer)).await, Failure::Version { min: 1, max: 1 });

        let http = port.refusal(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(matches!(http, Failure::Malformed { .. }));
    }

    #[tokio::test]
    async fn a_full_door_lets_in_who_says_hello_in_place_of_who_stands_there_silent() {
        let port = Port::open(8);
        let mut silent = vec![];
        for _ in 0..2 * STRANGERS_MAX {
            silent.push(TcpStream::connect(port.address).await.unwrap());
        }

        let welcomed = timeout(HELLO_TIME_MAX / 2, port.say(&spelt(&hello()))).await;

        assert!(welcomed.expect("it does not wait for their time to end").1.is_ok());
        let gone = timeout(HELLO_TIME_MAX / 2, silent[0].read(&mut [0])).await.expect("the first has gone");
        assert_eq!(gone.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn connections_are_bounded() {
        let port = Port::open(1);
        let (_first, greeting) = port.say(&spelt(&hello())).await;
        assert!(greeting.is_ok());

        let (_second, greeting) = port.say(&spelt(&hello())).await;

        assert_eq!(greeting.unwrap_err(), Failure::Connections { open: 1, max: 1 });
    }
}
