//! Two cores and the link between them, and what a core thinks of what its peers and clients say.

use super::*;
use crate::protocol::io::Held;
use crate::protocol::message::{Answer, Call, Failure, Get, Request, Terms};
use crate::protocol::peer::Refused;
use crate::protocol::types::TicketId;
use crate::runtime::mail::{Arrival, Caller, Errand};
use crate::runtime::samples::{CORES, key_of, ring};
use crate::wire::peer::{decode_told, encode_ask};
use crate::wire::{decode_answer, encode_call};

/// A core that asks and one that is asked.
struct Two {
    asker: Here,
    asked: Here,
}

fn fetch_of(core: CoreId) -> Ask {
    Ask::Fetch { key: key_of(core), known: Some(9) }
}

fn merge() -> Ask {
    let Ask::Merge(merge) = large(10) else { unreachable!() };
    Ask::Merge(Merge { key: key_of(CoreId(0)), ..merge })
}

fn forward(request: Request) -> Ask {
    Ask::Forward(Box::new(request))
}

impl Here {
    fn welcome(&mut self, caller: Caller) -> TcpStream {
        let (socket, arrival) = arrival();
        self.connections.welcome(self.world.core.instant(), Arrival { caller, ..arrival }).unwrap();
        socket
    }

    /// A connection of a peer that is the test.
    fn peer(&mut self) -> Peer {
        let socket = self.welcome(Caller::Peer(node_b()));
        socket.set_nonblocking(true).unwrap();
        Peer { socket, read: BytesMut::new() }
    }

    /// Asks that have come in since the last look.
    fn asked(&mut self) -> Vec<(TicketId, Standing, Ask, Instant)> {
        let asked = |input| match input {
            Input::Asked { ticket, stand, ask, held, deadline } => {
                assert!(matches!(held, Held::Unknown | Held::Known(None)));
                Some((ticket, stand, ask, deadline))
            }
            _ => None,
        };
        self.spied().into_iter().filter_map(asked).collect()
    }

    fn tell(&mut self, ticket: TicketId, told: Told) {
        self.world.core.begin_turn();
        self.world.core.act([Effect::Tell { ticket, told }]);
    }
}

impl Peer {
    fn ask(&mut self, id: u64, ask: &Ask) {
        let mut out = BytesMut::new();
        encode_ask(&mut out, CallId(id), STAND, 1_500, ask).unwrap();
        self.say(&out);
    }

    /// What is told next.
    fn told(&mut self, here: &mut Here) -> (u64, Result<Told, Failure>) {
        let mut told = None;
        here.turn_until("something is told", |_| {
            let mut bytes = vec![0; 64 * 1024];
            if let Ok(read) = self.socket.read(&mut bytes) {
                self.read.extend_from_slice(&bytes[..read]);
            }
            let read = |frame: Frame<'_>| (frame.id.0, decode_told(frame).unwrap());
            told = next_frame(&mut self.read, PEER_BYTES_MAX, read).unwrap();
            told.is_some()
        });
        told.unwrap()
    }
}

impl Two {
    fn new() -> Two {
        let (mut asker, mut asked) = (Here::new(), Here::new());
        asker.see(&[("node-b", nowhere(), CORES)]);
        for _ in 0..CORES.count {
            let wish = asker.wish();
            if wish.core != CoreId(0) {
                continue;
            }
            let socket = asked.welcome(Caller::Peer(NodeId::of("node-a")));
            let line = mail::Line { socket, leftover: Bytes::new(), asks_max: 4_096 };
            asker.connections.on_dialed(&mut asker.world.core, (wish.node, wish.core), wish.attempt, Some(line));
        }
        asker.spied();
        Two { asker, asked }
    }

    fn turn_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Two) -> bool) {
        let begun = self.asker.world.core.instant();
        while !is_so(self) {
            self.asker.turn();
            self.asked.turn();
            assert!(self.asker.world.core.instant().since(begun) < LIMIT, "{what}");
        }
    }
}

#[test]
fn a_core_asks_another_and_hears_what_it_tells() {
    let mut two = Two::new();
    let partition = ring().partition(&key_of(CoreId(0)));
    two.asker.world.core.begin_turn();
    let deadline = two.asker.world.core.instant() + Duration::from_secs(2);
    let asks: Vec<Ask> = (0..1_000).map(|n| if n % 2 == 0 { merge() } else { fetch_of(CoreId(0)) }).collect();
    let effects = asks.iter().cloned().zip(1..).map(|(ask, id)| Effect::Ask {
        to: node_b(),
        partition,
        id: AskId(id),
        stand: STAND,
        ask,
        deadline,
    });
    two.asker.world.core.act(effects);

    let mut asked = vec![];
    two.turn_until("all are asked", |two| {
        asked.extend(two.asked.asked());
        asks.len() <= asked.len()
    });
    assert!(asked.iter().map(|(_, stand, ask, _)| (stand, ask)).eq(asks.iter().map(|ask| (&STAND, ask))));
    let latest = two.asked.world.core.instant() + Duration::from_secs(2);
    assert!(asked.iter().all(|(.., deadline)| *deadline <= latest));

    for (at, (ticket, ..)) in asked.iter().enumerate().rev() {
        two.asked.tell(*ticket, if at % 2 == 0 { Told::Stored } else { Told::Same });
    }
    let mut told = vec![];
    two.turn_until("all are told", |two| {
        told.extend(two.asker.told());
        asks.len() <= told.len()
    });
    told.sort_by_key(|(id, _)| *id);
    let expected = |id: u64| (id, Ok(if id % 2 == 1 { Told::Stored } else { Told::Same }));
    assert_eq!(told, (1..=1_000).map(expected).collect::<Vec<_>>());
    assert!(!two.asked.world.core.is_busy());
}

#[test]
fn a_peer_that_is_gone_is_told_nothing_and_leaves_nothing() {
    let mut here = Here::new();
    let mut peer = here.peer();
    peer.ask(1, &fetch_of(CoreId(0)));
    let mut asked = vec![];
    here.turn_until("it is asked", |here| {
        asked = here.asked();
        !asked.is_empty()
    });
    assert!(here.world.core.is_busy());
    rustix::net::sockopt::set_socket_linger(&peer.socket, Some(Duration::ZERO)).unwrap();
    drop(peer);
    here.turn_until("it is gone", |here| here.connections.iter().count() == 0);
    here.tell(asked[0].0, Told::Same);
    assert!(!here.world.core.is_busy() && !here.world.core.replies_are_full());
}

#[test]
fn a_client_may_not_ask_and_a_peer_may_not_call() {
    let mut here = Here::new();
    let mut client = Peer { socket: here.welcome(Caller::Client), read: BytesMut::new() };
    client.socket.set_nonblocking(true).unwrap();
    client.ask(1, &fetch_of(CoreId(0)));
    let mut bytes = vec![0; 1_024];
    let mut read = 0;
    here.turn_until("it is answered", |_| {
        read = client.socket.read(&mut bytes).unwrap_or(0);
        0 < read
    });
    let answer = decode_answer(Frame::borrowed(&bytes[..read]));
    assert!(matches!(answer, Ok(Answer::One(Err(Failure::Malformed { .. })))), "{answer:?}");

    let mut peer = here.peer();
    let mut out = BytesMut::new();
    encode_call(&mut out, CallId(1), &Call::Ping).unwrap();
    peer.say(&out);
    assert!(matches!(peer.told(&mut here), (1, Err(Failure::Malformed { .. }))));
    peer.ask(2, &fetch_of(CoreId(0)));
    here.turn_until("its stream is sound", |here| !here.asked().is_empty());
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_why_and_dropped() {
    let mut here = Here::new();
    let mut peer = here.peer();
    peer.say(&[255; 64]);
    assert!(matches!(peer.told(&mut here), (0, Err(Failure::Malformed { .. }))));
    here.turn_until("it is closed", |here| here.connections.iter().count() == 0);
}

#[test]
fn what_belongs_to_another_core_is_not_taken() {
    let mut here = Here::new();
    let mut peer = here.peer();
    peer.ask(1, &fetch_of(CoreId(1)));
    let (1, Err(Failure::Malformed { reason })) = peer.told(&mut here) else { panic!("it was taken") };
    assert!(reason.contains("belongs to core 1"), "{reason}");
    assert!(here.asked().is_empty() && !here.world.core.is_busy());
}

#[test]
fn a_core_that_stops_or_writes_no_more_refuses_before_its_shard_is_asked() {
    use crate::protocol::types::ActorId;
    let get = || Request::Get(Get { key: key_of(CoreId(0)), terms: Terms::default() });
    let mut here = Here::new();
    let mut peer = here.peer();
    here.world.core.on_write_failed(ActorId(5));
    peer.ask(1, &merge());
    assert_eq!(peer.told(&mut here), (1, Ok(Told::Refused(Refused::WritesStopped))));
    peer.ask(2, &fetch_of(CoreId(0)));
    peer.ask(3, &forward(get()));
    let mut asked = vec![];
    here.turn_until("reads go on", |here| {
        asked.extend(here.asked());
        2 <= asked.len()
    });

    here.world.core.on_errand(Errand::Stop);
    for (id, ask) in [(4, fetch_of(CoreId(0))), (5, merge()), (6, forward(get()))] {
        peer.ask(id, &ask);
        assert_eq!(peer.told(&mut here), (id, Ok(Told::Refused(Refused::Stopping))));
    }
    assert!(here.asked().is_empty());
    here.tell(asked[0].0, Told::Same);
    assert_eq!(peer.told(&mut here), (2, Ok(Told::Same)), "what was under way is still told");
}

#[test]
fn large_values_are_refused_to_peers_where_unread_answers_fill_the_memory() {
    let mut here = Here::new();
    let set = |bytes| match large(bytes) {
        Ask::Merge(merge) => Told::Set(Some(merge.set)),
        _ => unreachable!(),
    };
    let mut deaf = here.peer();
    let mut peer = here.peer();
    let mut tickets = vec![];
    for id in 1..=60 {
        deaf.ask(id, &fetch_of(CoreId(0)));
    }
    here.turn_until("all are asked", |here| {
        tickets.extend(here.asked().into_iter().map(|(ticket, ..)| ticket));
        60 <= tickets.len()
    });
    for ticket in tickets {
        here.tell(ticket, set(1_000_000));
    }
    assert!(here.world.core.replies_are_full());

    peer.ask(1, &fetch_of(CoreId(0)));
    peer.ask(2, &fetch_of(CoreId(0)));
    let mut asked = vec![];
    here.turn_until("another peer is heard all the same", |here| {
        asked.extend(here.asked());
        2 <= asked.len()
    });
    here.tell(asked[0].0, set(1_000_000));
    here.tell(asked[1].0, set(100));
    assert_eq!(peer.told(&mut here), (1, Ok(Told::Refused(Refused::Overloaded))));
    assert_eq!(peer.told(&mut here), (2, Ok(set(100))));
}

#[test]
fn clients_that_send_slowly_keep_no_peer_waiting_for_room() {
    use crate::protocol::message::{Causality, Put};
    use crate::protocol::types::Value;
    let mut here = Here::with_room(100_000);
    let mut client = here.welcome(Caller::Client);
    let value = Value::new(vec![0; 90_000]).unwrap();
    let (causality, terms) = (Causality::Blind, Terms::default());
    let put = Request::Put(Put { key: key_of(CoreId(0)), value, causality, operation: None, terms });
    let mut out = BytesMut::new();
    encode_call(&mut out, CallId(1), &Call::One(put)).unwrap();
    client.write_all(&out[..1_000]).unwrap();
    here.turn_until("it has all room of clients", |here| here.connections.iter().any(|client| client.has_room()));

    let mut peer = here.peer();
    let Ask::Merge(merge) = large(90_000) else { unreachable!() };
    peer.ask(1, &Ask::Merge(Merge { key: key_of(CoreId(0)), ..merge }));
    here.turn_until("it is asked", |here| !here.asked().is_empty());
}

#[test]
fn a_peer_is_not_dropped_for_being_silent_but_for_stopping_within_a_frame() {
    let mut here = Here::new();
    let mut peer = here.peer();
    let mut out = BytesMut::new();
    encode_ask(&mut out, CallId(1), STAND, 1_500, &merge()).unwrap();
    here.turn();
    let late = |here: &Here, after| {
        let now = here.world.core.instant() + Duration::from_secs(after);
        here.connections.iter().any(|peer| peer.is_overdue(now, Duration::from_secs(1), false))
    };
    assert!(!late(&here, 100_000), "asks may be far between");

    peer.say(&out[..20]);
    here.turn_until("it has begun", |here| late(here, 6));
    assert!(!late(&here, 4));
    peer.say(&out[20..]);
    here.turn_until("it is asked", |here| !here.asked().is_empty());
    assert!(!late(&here, 100_000));
}
