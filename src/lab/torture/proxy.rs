//! A way to a node that can be slow and can be cut: single messages of other nodes are held back, and are overtaken by
//! those behind them; all that comes from one node, or goes to it, stands still or breaks.
//!
//! A node listens where nobody looks for it and advertises the proxy's address. What comes there goes on to the node:
//! gossip, clients and letters of members as they are, the frames of peers one by one. How many bytes went, by the kind
//! of the frame that they were in, is counted. Which node sends is told by the address that its gossip comes from, and
//! by its claim in the handshake.

use std::collections::BTreeMap;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::links::{Links, Network};
use super::now;
use super::place::Place;
use crate::lab::workload::Random;
use crate::protocol::types::NodeId;
use crate::wire::greet::Claim;

/// Of the hello: a peer's connection, and that of a letter.
const PEER: u8 = 1;
const MEMBERS: u8 = 2;
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

/// Which frames of peers are held back, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// How many of a thousand.
    pub of_thousand: u64,
    /// For how long.
    pub time: Duration,
}

impl Delays {
    /// No frame.
    pub const NONE: Delays = Delays { of_thousand: 0, time: Duration::ZERO };
    /// One of twenty, for half a second.
    pub const SOME: Delays = Delays { of_thousand: 50, time: Duration::from_millis(500) };
}

/// A proxy at work, until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// What the node behind it advertises.
    pub address: SocketAddr,
    counts: Arc<Counts>,
    end: Option<oneshot::Sender<()>>,
    works: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug)]
struct Counts {
    /// Bytes of peers' frames of each kind, and how many there were.
    bytes: [AtomicU64; 256],
    frames: [AtomicU64; 256],
    delayed: AtomicU64,
    /// Whether frames are held back now.
    holds_back: AtomicBool,
}

impl Proxy {
    /// In front of the node of this name, at its place in this network. It holds frames back at first.
    ///
    /// # Errors
    /// What the system says when it gives neither addresses nor a thread.
    pub fn begin(place: Place, name: &str, network: &Network, delays: Delays, random: Random) -> Result<Proxy> {
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        let counts = Arc::new(Counts {
            bytes: zeros(),
            frames: zeros(),
            delayed: AtomicU64::new(0),
            holds_back: AtomicBool::new(true),
        });
        let links = network.links(name, place);
        let way = Way { place, links, delays, counts: Arc::clone(&counts) };
        let (end, ended) = oneshot::channel();
        let listener = std::net::TcpListener::bind(place.proxy())?;
        let gossip = std::net::UdpSocket::bind(place.proxy())?;
        listener.set_nonblocking(true)?;
        gossip.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let work = async move {
            let (listener, gossip) = (TcpListener::from_std(listener)?, UdpSocket::from_std(gossip)?);
            tokio::select! {
                _ = ended => Ok(()),
                ended = carry_gossip(&gossip, &way) => ended,
                () = carry_all(&listener, &way, random) => Ok(()),
            }
        };
        let works = std::thread::Builder::new().name(format!("proxy-{name}")).spawn(move || runtime.block_on(work))?;
        Ok(Proxy { address: place.proxy(), counts, end: Some(end), works: Some(works) })
    }

    /// Whether frames are held back from now on: at first they are.
    pub fn hold_back(&self, holds_back: bool) {
        self.counts.holds_back.store(holds_back, Ordering::Relaxed);
    }

    /// Frames that were held back so far.
    pub fn delayed(&self) -> u64 {
        self.counts.delayed.load(Ordering::Relaxed)
    }

    /// Frames of these kinds so far, both ways, and their bytes.
    pub fn carried(&self, kinds: &[RangeInclusive<u8>]) -> Carried {
        let of = |counts: &[AtomicU64; 256]| {
            let kinds = kinds.iter().cloned().flatten();
            kinds.map(|kind| counts[usize::from(kind)].load(Ordering::Relaxed)).sum()
        };
        Carried { frames: of(&self.counts.frames), bytes: of(&self.counts.bytes) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Where it has ended by itself nobody listens, and nodes have not reached each other since.
        let _ = self.end.take().map(|end| end.send(()));
        let _ = self.works.take().map(JoinHandle::join);
    }
}

/// Frames, and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Carried {
    /// How many.
    pub frames: u64,
    /// Their bytes, heads included.
    pub bytes: u64,
}

impl Carried {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Carried) -> Carried {
        Carried { frames: self.frames + other.frames, bytes: self.bytes + other.bytes }
    }

    /// What came since.
    #[must_use]
    pub fn minus(self, before: Carried) -> Carried {
        Carried { frames: self.frames - before.frames, bytes: self.bytes - before.bytes }
    }
}

/// Where everything goes, and how.
#[derive(Clone)]
struct Way {
    place: Place,
    links: Links,
    delays: Delays,
    counts: Arc<Counts>,
}

/// Packets, until the socket fails.
async fn carry_gossip(from: &UdpSocket, way: &Way) -> Result<()> {
    let out = UdpSocket::bind(way.place.any()).await?;
    let mut packet = [0; 65_536];
    loop {
        let (bytes, sender) = from.recv_from(&mut packet).await?;
        if way.links.lets_in(sender) {
            // A node that is away tells so by an error that belongs to an earlier packet.
            let _ = out.send_to(&packet[..bytes], way.place.node()).await;
        }
    }
}

async fn carry_all(listener: &TcpListener, way: &Way, mut random: Random) {
    let mut connections = JoinSet::new();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let (way, random) = (way.clone(), random.split());
            connections.spawn(async move {
                // Whatever ends a connection ends both halves of it; there is nobody to tell.
                let _ = carry(stream, &way, random).await;
            });
        }
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, until one of its ends closes it.
async fn carry(mut near: TcpStream, way: &Way, random: Random) -> Result<()> {
    let mut far = TcpStream::connect(way.place.node()).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let hello = read_message(&mut near).await?;
    far.write_all(&hello).await?;
    match hello.get(MESSAGE_HEAD + KIND_AT).copied() {
        Some(kind @ (PEER | MEMBERS)) => carry_node(near, far, kind, way, random).await,
        _ => copy_bidirectional(&mut near, &mut far).await.map(drop),
    }
}

/// The connection of a node that has said hello.
async fn carry_node(mut near: TcpStream, mut far: TcpStream, kind: u8, way: &Way, random: Random) -> Result<()> {
    let challenge = read_message(&mut far).await?;
    near.write_all(&challenge).await?;
    if challenge.get(MESSAGE_HEAD) != Some(&CHALLENGE) {
        return copy_bidirectional(&mut near, &mut far).await.map(drop);
    }
    let claim = read_message(&mut near).await?;
    let Ok(Some((Claim { node, .. }, _))) = Claim::decode(&claim) else {
        return Err(Error::other("no claim of a node"));
    };
    tokio::select! {
        ended = carry_claimed((near, far), (claim, node), kind, way, random) => ended,
        () = way.links.breaks(node) => Err(Error::other("the way is cut")),
    }
}

/// The connection of a node that has said who it is.
async fn carry_claimed(
    (mut near, mut far): (TcpStream, TcpStream),
    (claim, node): (Vec<u8>, NodeId),
    kind: u8,
    way: &Way,
    mut random: Random,
) -> Result<()> {
    let (there, back) = ((node, way.links.to), (way.links.to, node));
    way.links.open(there.0, there.1).await;
    far.write_all(&claim).await?;
    let accepted = read_message(&mut far).await?;
    way.links.open(back.0, back.1).await;
    near.write_all(&accepted).await?;
    if kind != PEER || accepted.get(MESSAGE_HEAD) != Some(&ACCEPTED) {
        return copy_bidirectional(&mut near, &mut far).await.map(drop);
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.split(), far.split());
    tokio::select! {
        ended = carry_frames((near_in, far_out), there, way, random.split()) => ended,
        ended = carry_frames((far_in, near_out), back, way, random.split()) => ended,
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
    (mut from, mut to): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    ends: (NodeId, NodeId),
    way: &Way,
    mut random: Random,
) -> Result<()> {
    let (sender, mut frames) = mpsc::channel(FRAMES_WAITING);
    let read = async move {
        loop {
            let frame = read_frame(&mut from).await?;
            let (kind, bytes) = (usize::from(frame[FRAME_HEAD - 1]), frame.len() as u64);
            way.counts.frames[kind].fetch_add(1, Ordering::Relaxed);
            way.counts.bytes[kind].fetch_add(bytes, Ordering::Relaxed);
            let is_drawn = random.below(1_000) < way.delays.of_thousand;
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
                way.links.open(ends.0, ends.1).await;
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
