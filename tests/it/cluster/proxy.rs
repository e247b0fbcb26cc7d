//! A way to a node on which single messages of other nodes are held back, and are overtaken by those behind them.
//!
//! A node listens where nobody looks for it and advertises the proxy's address. What comes there goes on to the node:
//! gossip, clients and letters of members as they are, the frames of peers one by one. How many bytes went, by the kind
//! of the frame that they were in, is counted.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::now;
use crate::dice::Dice;

/// Where the node behind a proxy listens, for all that knows the protocol and for HTTP, and where its proxy does.
const NODE_PORT: u16 = 7600;
const HTTP_PORT: u16 = 7601;
const PROXY_PORT: u16 = 7700;

/// Of the hello: a peer's connection.
const PEER: u8 = 1;
/// Where the hello says so, behind the versions and the features.
const KIND_AT: usize = 2 + 2 + 8;
/// Of what the acceptor says: a challenge, and that the claim is proven. Anything else is a refusal.
const CHALLENGE: u8 = 2;
const ACCEPTED: u8 = 3;
/// "SLOP" and the length.
const MESSAGE_HEAD: usize = 6;

/// Length, id and kind of a frame.
const FRAME_HEAD: usize = 4 + 8 + 1;
/// Frames that were read and wait to be written.
const FRAMES_WAITING: usize = 16;

/// Addresses of the loopback network that no other test of this process has, nor other processes that run now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(Ipv4Addr);

impl Place {
    /// The next one.
    ///
    /// # Panics
    /// When there are more than 254 in one run.
    pub(super) fn new() -> Place {
        static LAST: AtomicU8 = AtomicU8::new(0);
        let own = LAST.fetch_add(1, Ordering::Relaxed).checked_add(1).expect("254 places are enough");
        let process = std::process::id();
        let part = |number: u32, first: u32| u8::try_from(first + number % 200).expect("below 256");
        Place(Ipv4Addr::new(127, part(process / 200, 16), part(process, 0), own))
    }

    pub(super) fn node(self) -> SocketAddr {
        SocketAddr::from((self.0, NODE_PORT))
    }

    pub(super) fn http(self) -> SocketAddr {
        SocketAddr::from((self.0, HTTP_PORT))
    }

    fn proxy(self) -> SocketAddr {
        SocketAddr::from((self.0, PROXY_PORT))
    }
}

/// Which frames of peers are held back, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    pub(super) of_thousand: u64,
    pub(super) time: Duration,
}

impl Delays {
    pub(super) const NONE: Delays = Delays { of_thousand: 0, time: Duration::ZERO };
    /// One of twenty, for half a second.
    pub(super) const SOME: Delays = Delays { of_thousand: 50, time: Duration::from_millis(500) };
}

/// A proxy at work, until it is dropped.
pub(super) struct Proxy {
    /// What the node behind it advertises.
    pub(super) address: SocketAddr,
    counts: Arc<Counts>,
    end: Option<oneshot::Sender<()>>,
    works: Option<JoinHandle<()>>,
}

struct Counts {
    /// Bytes of peers' frames of each kind, and how many there were.
    bytes: [AtomicU64; 256],
    frames: [AtomicU64; 256],
    delayed: AtomicU64,
    /// Whether frames are held back now.
    holds_back: AtomicBool,
}

impl Proxy {
    /// In front of the node at this place.
    #[expect(clippy::disallowed_methods, reason = "a proxy works beside the test")]
    pub(super) fn begin(place: Place, delays: Delays, dice: Dice) -> Proxy {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        let counts = Arc::new(Counts {
            bytes: zeros(),
            frames: zeros(),
            delayed: AtomicU64::new(0),
            holds_back: AtomicBool::new(true),
        });
        let way = Way { to: place.node(), delays, counts: Arc::clone(&counts) };
        let (end, ended) = oneshot::channel();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let works = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind(place.proxy()).await.expect("nobody else has this address");
                let gossip = UdpSocket::bind(place.proxy()).await.expect("nobody else has this address");
                bound.send(()).unwrap();
                tokio::select! {
                    _ = ended => {}
                    error = carry_gossip(&gossip, place) => panic!("no gossip any more: {error:?}"),
                    () = carry_all(&listener, &way, dice) => {}
                }
            });
        });
        is_bound.recv().expect("the proxy begins");
        Proxy { address: place.proxy(), counts, end: Some(end), works: Some(works) }
    }

    /// Whether frames are held back from now on: at first they are.
    pub(super) fn hold_back(&self, holds_back: bool) {
        self.counts.holds_back.store(holds_back, Ordering::Relaxed);
    }

    /// Frames that were held back so far.
    pub(super) fn delayed(&self) -> u64 {
        self.counts.delayed.load(Ordering::Relaxed)
    }

    /// Frames of these kinds so far, both ways, and their bytes.
    pub(super) fn carried(&self, kinds: &[RangeInclusive<u8>]) -> Carried {
        let of = |counts: &[AtomicU64; 256]| {
            let kinds = kinds.iter().cloned().flatten();
            kinds.map(|kind| counts[usize::from(kind)].load(Ordering::Relaxed)).sum()
        };
        Carried { frames: of(&self.counts.frames), bytes: of(&self.counts.bytes) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It has panicked already, and the test will say so: nobody listens.
        let _ = self.end.take().expect("a proxy ends once").send(());
        let ended = self.works.take().expect("a proxy ends once").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the proxy failed");
    }
}

/// Frames, and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Carried {
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

impl Carried {
    pub(super) fn plus(self, other: Carried) -> Carried {
        Carried { frames: self.frames + other.frames, bytes: self.bytes + other.bytes }
    }

    pub(super) fn minus(self, before: Carried) -> Carried {
        Carried { frames: self.frames - before.frames, bytes: self.bytes - before.bytes }
    }
}

/// Where everything goes, and how.
#[derive(Clone)]
struct Way {
    to: SocketAddr,
    delays: Delays,
    counts: Arc<Counts>,
}

/// Packets, until the socket fails.
async fn carry_gossip(from: &UdpSocket, place: Place) -> Result<()> {
    let out = UdpSocket::bind((place.0, 0)).await?;
    let mut packet = [0; 65_536];
    loop {
        let (bytes, _) = from.recv_from(&mut packet).await?;
        // A node that is away tells so by an error that belongs to an earlier packet.
        let _ = out.send_to(&packet[..bytes], place.node()).await;
    }
}

async fn carry_all(listener: &TcpListener, way: &Way, mut dice: Dice) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let (way, dice) = (way.clone(), dice.split());
            connections.spawn(async move {
                // Whatever ends a connection ends both halves of it; there is nobody to tell.
                let _ = carry(stream, &way, dice).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until one of its ends closes it.
async fn carry(mut near: TcpStream, way: &Way, mut dice: Dice) -> Result<()> {
    let mut far = TcpStream::connect(way.to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let hello = read_message(&mut near).await?;
    far.write_all(&hello).await?;
    if hello.get(MESSAGE_HEAD + KIND_AT) != Some(&PEER) {
        return copy_bidirectional(&mut near, &mut far).await.map(|_bytes| ());
    }
    let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.split(), far.split());
    let (asks, tells) = (dice.split(), dice.split());
    let there = async {
        far_out.write_all(&read_message(&mut near_in).await?).await?;
        carry_frames(near_in, far_out, way, asks).await
    };
    let back = async {
        for expected in [CHALLENGE, ACCEPTED] {
            let message = read_message(&mut far_in).await?;
            near_out.write_all(&message).await?;
            if message.get(MESSAGE_HEAD) != Some(&expected) {
                return copy(&mut far_in, &mut near_out).await.map(|_bytes| ());
            }
        }
        carry_frames(far_in, near_out, way, tells).await
    };
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}

/// A message of the handshake, with its head.
async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let mut message = vec![0; MESSAGE_HEAD];
    from.read_exact(&mut message).await?;
    let length = u16::from_le_bytes([message[4], message[5]]);
    message.resize(MESSAGE_HEAD + usize::from(length), 0);
    from.read_exact(&mut message[MESSAGE_HEAD..]).await?;
    Ok(message)
}

/// One direction of a peer's connection, until it ends. What was held back then is lost with the connection.
async fn carry_frames(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: &Way,
    mut dice: Dice,
) -> Result<()> {
    let (sender, mut frames) = mpsc::channel(FRAMES_WAITING);
    let read = async move {
        loop {
            let frame = read_frame(&mut from).await?;
            let (kind, bytes) = (usize::from(frame[FRAME_HEAD - 1]), frame.len() as u64);
            way.counts.frames[kind].fetch_add(1, Ordering::Relaxed);
            way.counts.bytes[kind].fetch_add(bytes, Ordering::Relaxed);
            let is_drawn = dice.below(1_000) < way.delays.of_thousand;
            let is_held = is_drawn && way.counts.holds_back.load(Ordering::Relaxed);
            way.counts.delayed.fetch_add(u64::from(is_held), Ordering::Relaxed);
            let due = is_held.then(|| now() + way.delays.time);
            sender.send((due, frame)).await.map_err(|_gone| Error::other("nobody takes it"))?;
        }
    };
    let write = async move {
        let mut held: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
        for number in 0.. {
            let next = held.first_key_value().map(|((due, _), _)| *due);
            let frame = tokio::select! {
                biased;
                () = sleep_until(next.unwrap_or_else(now).into()), if next.is_some() => {
                    held.pop_first().map(|(_, frame)| frame)
                }
                came = frames.recv() => match came {
                    None => break,
                    Some((None, frame)) => Some(frame),
                    Some((Some(due), frame)) => {
                        held.insert((due, number), frame);
                        None
                    }
                },
            };
            if let Some(frame) = frame {
                to.write_all(&frame).await?;
            }
        }
        Ok(())
    };
    let (read, written): (Result<()>, Result<()>) = tokio::join!(read, write);
    read.and(written)
}

async fn read_frame(from: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEAD];
    from.read_exact(&mut frame).await?;
    let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]);
    let all = 4 + usize::try_from(length).expect("32 bits");
    if all < FRAME_HEAD {
        return Err(Error::other("no frame is this short"));
    }
    frame.resize(all, 0);
    from.read_exact(&mut frame[FRAME_HEAD..]).await?;
    Ok(frame)
}

mod tests;
