//! Links without an executor: each turn is the test's, and the peer is the test or another core.

mod cores;
mod lines;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::protocol::io::{Effect, Input, Standing};
use crate::protocol::peer::{Ask, Merge};
use crate::protocol::ring::{Cores, LayoutStamp};
use crate::protocol::types::Key;
use crate::runtime::connections::Connections;
use crate::runtime::mail::{self, Knock};
use crate::runtime::poller::Poller;
use crate::runtime::samples::{World, arrival, view};
use crate::wire::peer::{PEER_BYTES_MAX, Question as Asked, decode_ask, encode_told};
use crate::wire::{CallId, Frame, next_frame};

const LIMIT: Duration = Duration::from_secs(20);
const ONE_CORE: Cores = Cores { count: 1, salt: 5 };
const STAMP: LayoutStamp = LayoutStamp { number: 3, hash: 4 };
const STAND: Standing = Standing { layout: STAMP, reads: true, round: 5 };

/// How asks ended, by their ids.
type Ends = Vec<(u64, Result<Told, Unheard>)>;

/// Nobody listens there: what is wished for is answered by the test.
fn nowhere() -> SocketAddr {
    ([127, 0, 0, 1], 9).into()
}

fn node_b() -> NodeId {
    NodeId::of("node-b")
}

fn fetch() -> Ask {
    Ask::Fetch { key: Key::new("a").unwrap(), known: None }
}

/// An ask of so many bytes.
fn large(bytes: usize) -> Ask {
    use crate::protocol::causality::{Siblings, Version};
    use crate::protocol::types::{ActorId, Dot, Value, WallTime};
    let dot = Dot { actor: ActorId(1), counter: 1 };
    let value = Some(Value::new(vec![0; bytes]).unwrap());
    let version = Version { dot, value, written_at: WallTime(1), expires_at: None, operation: None };
    let set = Siblings::new([dot].into_iter().collect(), [version]).unwrap();
    Ask::Merge(Merge { key: Key::new("a").unwrap(), set: Arc::new(set), remember: vec![], stands_for: None })
}

/// A core whose shard is the test.
struct Here {
    world: World,
    connections: Connections,
}

impl Here {
    fn new() -> Here {
        Here::with_room(64 * 1024 * 1024)
    }

    /// With so much room for what comes in.
    fn with_room(bytes: usize) -> Here {
        let mut world = World::new();
        world.core.spy = Some(vec![]);
        Here { world, connections: Connections::new(Poller::new().unwrap(), bytes) }
    }

    /// In a cluster with node-b, to which there is a link.
    fn linked() -> (Here, Peer) {
        let mut here = Here::new();
        here.see(&[("node-b", nowhere(), ONE_CORE)]);
        let wish = here.wish();
        let peer = here.connect(&wish);
        assert!(matches!(here.spied()[..], [Input::View(_), Input::Linked(node)] if node == node_b()));
        (here, peer)
    }

    fn see(&mut self, others: &[(&str, SocketAddr, Cores)]) {
        self.world.core.begin_turn();
        self.world.core.on_knock(Knock::View(view(others)));
    }

    fn turn(&mut self) {
        self.world.core.begin_turn();
        self.connections.turn(&mut self.world.core);
    }

    fn turn_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Here) -> bool) {
        self.world.core.begin_turn();
        let begun = self.world.core.instant();
        while !is_so(self) {
            self.turn();
            self.world.core.on_tick();
            assert!(self.world.core.instant().since(begun) < LIMIT, "{what}");
        }
    }

    /// What a core wishes for next; it may wait for its back-off before.
    fn wish(&mut self) -> Wish {
        self.turn_until("it wishes", |here| !here.world.wishes.is_empty());
        self.world.wishes.recv().unwrap()
    }

    /// Answers a wish.
    fn connect(&mut self, wish: &Wish) -> Peer {
        let (socket, there) = arrival();
        socket.set_nonblocking(true).unwrap();
        let line = mail::Line { socket: there.socket, leftover: Bytes::new(), asks_max: u32::MAX };
        let to = (wish.node, wish.core);
        self.connections.on_dialed(&mut self.world.core, to, wish.attempt, Some(line));
        Peer { socket, read: BytesMut::new() }
    }

    fn ask_of(&mut self, to: NodeId, id: u64, ask: Ask, left: Duration) {
        self.world.core.begin_turn();
        let deadline = self.world.core.instant() + left;
        let (partition, id) = (Partition(1), AskId(id));
        self.world.core.act([Effect::Ask { to, partition, id, stand: STAND, ask, deadline }]);
    }

    fn ask_within(&mut self, id: u64, ask: Ask, left: Duration) {
        self.ask_of(node_b(), id, ask, left);
    }

    fn ask(&mut self, id: u64, ask: Ask) {
        self.ask_of(node_b(), id, ask, Duration::from_secs(5));
    }

    /// Asks until there is no room, and says how many asks that took.
    fn fill(&mut self) -> (u64, Ends) {
        let (mut asked, mut ended) = (0, vec![]);
        self.turn_until("there is no room", |here| {
            asked += 1;
            here.ask(asked, large(100_000));
            ended.extend(here.told());
            !ended.is_empty()
        });
        (asked, ended)
    }

    fn spied(&mut self) -> Vec<Input> {
        std::mem::take(self.world.core.spy.as_mut().unwrap())
    }

    /// How asks have ended since the last look.
    fn told(&mut self) -> Ends {
        let told = |input| match input {
            Input::Told { ask, told } => Some((ask.0, told)),
            _ => None,
        };
        self.spied().into_iter().filter_map(told).collect()
    }

    /// How the next asks end, as many.
    fn hear(&mut self, count: usize) -> Ends {
        let mut heard = vec![];
        self.turn_until("all asks end", |here| {
            heard.extend(here.told());
            count <= heard.len()
        });
        heard
    }
}

/// The other end of a link.
struct Peer {
    socket: TcpStream,
    read: BytesMut,
}

impl Peer {
    fn say(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    fn tell(&mut self, id: CallId, told: &Told) {
        let mut out = BytesMut::new();
        encode_told(&mut out, id, told);
        self.say(&out);
    }

    /// Asks that have come in.
    fn heard(&mut self) -> Vec<(CallId, Asked)> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => break,
                Ok(read) => self.read.extend_from_slice(&bytes[..read]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                    break;
                }
            }
        }
        let mut heard = vec![];
        let read = |frame: Frame<'_>| (frame.id, decode_ask(frame).unwrap());
        while let Some(ask) = next_frame(&mut self.read, PEER_BYTES_MAX, read).unwrap() {
            heard.push(ask);
        }
        heard
    }

    /// The next asks, as many.
    fn hear(&mut self, here: &mut Here, count: usize) -> Vec<(CallId, Asked)> {
        let mut heard = vec![];
        here.turn_until("all asks come", |_| {
            heard.extend(self.heard());
            count <= heard.len()
        });
        heard
    }
}

#[test]
fn an_ask_reaches_the_peer_with_what_is_left_of_its_time_and_what_it_tells_comes_back() {
    let (mut here, mut peer) = Here::linked();
    here.ask_within(1, fetch(), Duration::from_millis(1_500));
    here.ask_within(2, large(300_000), Duration::ZERO);

    let asked = peer.hear(&mut here, 2);
    assert_eq!((asked[0].1.stand, &asked[0].1.ask), (STAND, &fetch()));
    assert!((1_000..=1_500).contains(&asked[0].1.deadline_ms));
    assert_eq!((asked[1].1.deadline_ms, &asked[1].1.ask), (1, &large(300_000)), "there is always some time left");

    peer.tell(asked[1].0, &Told::Stored);
    assert_eq!(here.hear(1), [(2, Ok(Told::Stored))]);
    peer.tell(asked[0].0, &Told::Set(None));
    assert_eq!(here.hear(1), [(1, Ok(Told::Set(None)))]);
}

/// What becomes of a link with two asks under way, and how they end.
type Fate = (&'static str, fn(&mut Here, Peer, [CallId; 2]) -> Option<Peer>, [Result<Told, Unheard>; 2]);

/// A part of an answer.
fn part(id: CallId) -> BytesMut {
    let mut out = BytesMut::new();
    encode_told(&mut out, id, &Told::Set(None));
    out.truncate(out.len() - 1);
    out
}

const FATES: [Fate; 9] = [
    (
        "it is answered",
        |_, mut peer, ids| {
            ids.iter().rev().for_each(|id| peer.tell(*id, &Told::Same));
            Some(peer)
        },
        [Ok(Told::Same), Ok(Told::Same)],
    ),
    (
        "it is not understood",
        |_, mut peer, ids| {
            use crate::protocol::message::Failure;
            let mut out = BytesMut::new();
            let failure = Failure::Malformed { reason: String::new() };
            crate::wire::peer::encode_misunderstood(&mut out, ids[0], &failure);
            peer.say(&out);
            peer.tell(ids[1], &Told::Stored);
            Some(peer)
        },
        [Err(Unheard::NotTaken), Ok(Told::Stored)],
    ),
    (
        "the link is closed",
        |_, peer, _| {
            drop(peer);
            None
        },
        [Err(Unheard::Lost), Err(Unheard::Lost)],
    ),
    (
        "the link is closed behind an answer, in the middle of the next",
        |_, mut peer, ids| {
            peer.tell(ids[0], &Told::Behind);
            peer.say(&part(ids[1]));
            None
        },
        [Ok(Told::Behind), Err(Unheard::Lost)],
    ),
    (
        "garbage comes behind an answer",
        |_, mut peer, ids| {
            peer.tell(ids[0], &Told::Behind);
            peer.say(&[7; 200]);
            Some(peer)
        },
        [Ok(Told::Behind), Err(Unheard::Lost)],
    ),
    (
        "a frame comes that is longer than any",
        |_, mut peer, _| {
            peer.say(&[255; 4]);
            Some(peer)
        },
        [Err(Unheard::Lost), Err(Unheard::Lost)],
    ),
    (
        "an answer comes twice",
        |_, mut peer, ids| {
            peer.tell(ids[0], &Told::Same);
            peer.tell(ids[0], &Told::Same);
            peer.tell(ids[1], &Told::Same);
            Some(peer)
        },
        [Ok(Told::Same), Err(Unheard::Lost)],
    ),
    (
        "the peer refuses the link",
        |_, mut peer, _| {
            use crate::protocol::message::Failure;
            let mut out = BytesMut::new();
            crate::wire::peer::encode_misunderstood(&mut out, CallId::NONE, &Failure::Stopping);
            peer.say(&out);
            Some(peer)
        },
        [Err(Unheard::Lost), Err(Unheard::Lost)],
    ),
    (
        "the member moves",
        |here, peer, _| {
            here.see(&[("node-b", ([127, 0, 0, 1], 10).into(), ONE_CORE)]);
            Some(peer)
        },
        [Err(Unheard::Lost), Err(Unheard::Lost)],
    ),
];

#[test]
fn an_ask_ends_once_whatever_becomes_of_its_link() {
    for (fate, meets, ends) in FATES {
        let (mut here, mut peer) = Here::linked();
        here.ask(1, fetch());
        here.ask(2, fetch());
        let asked = peer.hear(&mut here, 2);
        let _peer = meets(&mut here, peer, [asked[0].0, asked[1].0]);

        let mut told = here.hear(2);
        told.sort_by_key(|(id, _)| *id);
        let [first, second] = ends.clone();
        assert_eq!(told, [(1, first), (2, second)], "{fate}");
        (0..10).for_each(|_| here.turn());
        here.world.core.on_tick();
        assert_eq!(here.told(), [], "{fate}");

        if ends.contains(&Err(Unheard::Lost)) {
            here.ask(3, fetch());
            assert_eq!(here.hear(1), [(3, Err(Unheard::NotSent))], "{fate}: there is no link now");
            let wish = here.wish();
            let mut peer = here.connect(&wish);
            assert!(here.spied().iter().any(|input| matches!(input, Input::Linked(_))), "{fate}: it is up again");
            here.ask(4, fetch());
            let asked = peer.hear(&mut here, 1);
            peer.tell(asked[0].0, &Told::Stored);
            assert_eq!(here.hear(1), [(4, Ok(Told::Stored))], "{fate}");
        }
    }
}

#[test]
fn a_peer_that_never_answers_loses_its_link_some_time_after_the_deadline() {
    let (mut here, mut peer) = Here::linked();
    here.ask_within(1, fetch(), Duration::from_millis(1));
    peer.hear(&mut here, 1);
    let begun = here.world.core.instant();
    assert_eq!(here.hear(1), [(1, Err(Unheard::Lost))]);
    let after = here.world.core.instant().since(begun);
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&after), "{after:?}");
}

#[test]
fn an_answer_that_is_read_in_many_turns_is_heard_whole() {
    let (mut here, mut peer) = Here::linked();
    here.ask(1, fetch());
    let asked = peer.hear(&mut here, 1);
    let Ask::Merge(Merge { set, .. }) = large(3_000_000) else { unreachable!() };
    let mut out = BytesMut::new();
    encode_told(&mut out, asked[0].0, &Told::Set(Some(Arc::clone(&set))));
    let mut sent = 0;
    here.turn_until("all is read", |_| {
        sent += peer.socket.write(&out[sent..]).unwrap_or(0);
        sent == out.len()
    });
    assert_eq!(here.hear(1), [(1, Ok(Told::Set(Some(set))))]);
}

#[test]
fn a_peer_that_does_not_read_costs_bounded_memory_and_every_ask_ends() {
    let (mut here, peer) = Here::linked();
    let (mut asked, mut ended) = here.fill();
    for _ in 0..500 {
        asked += 1;
        here.ask(asked, large(100_000));
    }
    let queued = here.world.core.links().queued_bytes();
    assert!(queued <= 1024 * 1024 + 200_000, "{queued} bytes wait, where there is room for a megabyte");
    ended.extend(here.told());
    assert!(ended.iter().all(|(_, told)| *told == Err(Unheard::NotTaken)) && 400 < ended.len());

    drop(peer);
    here.turn_until("all asks end", |here| {
        ended.extend(here.told());
        asked as usize <= ended.len()
    });
    ended.sort_by_key(|(id, _)| *id);
    assert!(ended.iter().map(|(id, _)| *id).eq(1..=asked), "each ended once");
    assert_eq!(here.world.core.links().queued_bytes(), 0);
}

#[test]
fn a_peer_that_does_not_read_takes_no_room_of_another() {
    let mut here = Here::new();
    here.see(&[("node-b", nowhere(), ONE_CORE), ("node-c", nowhere(), ONE_CORE)]);
    let wishes = [here.wish(), here.wish()];
    let peers = wishes.map(|wish| (wish.node, here.connect(&wish)));
    here.fill();

    let (node, mut other) = peers.into_iter().find(|(node, _)| *node != node_b()).unwrap();
    for id in 10_001..=10_100 {
        here.ask_of(node, id, large(100_000), LIMIT);
        let asked = other.hear(&mut here, 1);
        other.tell(asked[0].0, &Told::Stored);
        here.turn_until("it is told", |here| here.told().contains(&(id, Ok(Told::Stored))));
    }
}

#[test]
fn asks_under_way_on_one_link_are_bounded() {
    let (mut here, mut peer) = Here::linked();
    let max = crate::runtime::connection::ASKS_MAX as u64;
    (1..=max).for_each(|id| here.ask(id, fetch()));
    assert_eq!(here.told(), []);
    here.ask(max + 1, fetch());
    assert_eq!(here.told(), [(max + 1, Err(Unheard::NotTaken))]);

    let asked = peer.hear(&mut here, usize::try_from(max).unwrap());
    peer.tell(asked[0].0, &Told::Stored);
    assert_eq!(here.hear(1), [(1, Ok(Told::Stored))]);
    here.ask(max + 2, fetch());
    assert_eq!(here.told(), [], "there is a place again");
}

#[test]
fn who_is_in_no_view_is_not_asked() {
    let mut here = Here::new();
    here.ask(1, fetch());
    assert_eq!(here.told(), [(1, Err(Unheard::NotSent))]);
    here.see(&[("node-c", nowhere(), ONE_CORE)]);
    here.ask(2, fetch());
    assert_eq!(here.told(), [(2, Err(Unheard::NotSent))]);
}

#[test]
fn a_line_that_comes_late_is_dropped() {
    let mut here = Here::new();
    here.see(&[("node-b", nowhere(), ONE_CORE)]);
    let late = here.wish();
    here.see(&[("node-b", ([127, 0, 0, 1], 10).into(), ONE_CORE)]);
    let mut peer = here.connect(&late);
    assert_eq!(peer.socket.read(&mut [0]).unwrap_or(1), 0, "it is closed");
    here.ask(1, fetch());
    assert_eq!(here.told(), [(1, Err(Unheard::NotSent))]);

    let wish = here.wish();
    assert_eq!(wish.address, ([127, 0, 0, 1], 10).into());
    let mut peer = here.connect(&wish);
    here.ask(2, fetch());
    peer.hear(&mut here, 1);
}

#[test]
fn a_layout_that_is_to_be_compared_is_told_once_in_a_while() {
    use crate::runtime::mail::Notice;
    let mut here = Here::new();
    let other = LayoutStamp { number: 9, hash: 9 };
    here.world.core.begin_turn();
    here.world.core.act([Effect::Compare(STAMP), Effect::Compare(STAMP), Effect::Compare(other)]);
    let notices: Vec<Notice> = here.world.notices.try_iter().collect();
    assert_eq!(notices, [Notice::Compare(STAMP), Notice::Compare(other)]);
    here.turn_until("it is told again", |here| {
        here.world.core.act([Effect::Compare(other)]);
        here.world.notices.try_recv() == Ok(Notice::Compare(other))
    });
}
