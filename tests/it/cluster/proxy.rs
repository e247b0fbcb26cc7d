//! The proxy between ends that the test plays, and between real nodes.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use sloop::lab::torture::links::{Cut, Network};
use sloop::lab::torture::place::Place;
use sloop::lab::torture::proxy::{Delays, Proxy};
use sloop::lab::workload::Random;
use sloop::protocol::types::NodeId;
use sloop::wire::greet::Claim;

use super::fleet::{Fleet, Kind};
use crate::dice::seed;
use crate::harness::LIMIT;

const FRAMES: u64 = 400;

fn message(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [b"SLOP", &length.to_le_bytes()[..], body].concat()
}

/// The hello of a peer, as far as the proxy reads it.
fn hello(kind: u8) -> Vec<u8> {
    let mut body = [0; 17];
    body[12] = kind;
    message(&body)
}

fn frame(id: u64) -> Vec<u8> {
    let body = vec![b'x'; usize::try_from(id % 50).unwrap()];
    let length = u32::try_from(9 + body.len()).unwrap();
    [&length.to_le_bytes()[..], &id.to_le_bytes(), &[0x20], &body].concat()
}

/// The claim of a node, as far as the proxy reads it.
fn claim(name: &str) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    Claim { node: NodeId::of(name), cluster: None, nonce: [1; 32], proof: [2; 32] }.encode(&mut out);
    out.to_vec()
}

/// A proxy before the node `there`, and both ends of a connection through it.
struct Way {
    network: Network,
    proxy: Proxy,
    near: TcpStream,
    far: TcpStream,
}

impl Way {
    fn new(delays: Delays) -> Way {
        let (place, network) = (Place::find().unwrap(), Network::default());
        let node = TcpListener::bind(place.node()).unwrap();
        let proxy = Proxy::begin(place, "there", &network, delays, Random::new(seed())).unwrap();
        let mut near = TcpStream::connect(proxy.address).unwrap();
        near.write_all(&hello(1)).unwrap();
        let (far, _) = node.accept().unwrap();
        for end in [&near, &far] {
            end.set_read_timeout(Some(LIMIT)).unwrap();
        }
        Way { network, proxy, near, far }
    }

    /// The handshake of the node `here`.
    fn shake(&mut self) {
        let Way { near, far, .. } = self;
        expect(far, &hello(1));
        say(far, near, &message(&[2, 7]));
        say(near, far, &claim("here"));
        say(far, near, &message(&[3, 8]));
    }
}

fn say(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    expect(to, bytes);
}

fn expect(from: &mut TcpStream, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    from.read_exact(&mut heard).unwrap();
    assert_eq!(heard, bytes);
}

#[test]
fn every_frame_arrives_whole_and_those_held_back_are_overtaken() {
    let delays = Delays { of_thousand: 100, time: Duration::from_millis(100) };
    let mut way = Way::new(delays);
    way.shake();
    let Way { proxy, mut near, mut far, network: _network } = way;

    let sent: Vec<u8> = (0..FRAMES).flat_map(frame).collect();
    near.write_all(&sent).unwrap();
    let mut heard = vec![];
    for _ in 0..FRAMES {
        let mut head = [0; 12];
        far.read_exact(&mut head).unwrap();
        let id = u64::from_le_bytes(head[4..].try_into().unwrap());
        expect(&mut far, &frame(id)[12..]);
        heard.push(id);
    }

    assert_eq!(BTreeSet::from_iter(heard.iter().copied()).len() as u64, FRAMES, "each once");
    let late = heard.windows(2).filter(|pair| pair[1] < pair[0]).count();
    assert!(0 < late && 0 < proxy.delayed(), "seed {}: none was overtaken", seed());
    assert!(proxy.delayed() < FRAMES / 4, "seed {}: {} were held back", seed(), proxy.delayed());
    let carried = proxy.carried(&[0x20..=0x20]);
    assert_eq!((carried.frames, carried.bytes), (FRAMES, sent.len() as u64));
    assert_eq!(proxy.carried(&[0x00..=0x1f, 0x21..=0xff]).frames, 0);
}

#[test]
fn an_end_that_closes_closes_the_other() {
    let mut way = Way::new(Delays::NONE);
    way.shake();
    let Way { proxy: _proxy, mut near, mut far, network: _network } = way;
    near.write_all(&frame(1)).unwrap();
    drop(near);

    let mut heard = vec![];
    far.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, frame(1), "what was under way arrives");
}

#[test]
fn a_way_that_stalls_keeps_what_is_sent_until_it_is_mended_and_the_other_direction_goes_on() {
    let mut way = Way::new(Delays::NONE);
    way.shake();
    way.network.cut("here", "there", Cut::Stall);
    let Way { network, proxy: _proxy, mut near, mut far } = way;
    near.write_all(&frame(1)).unwrap();
    say(&mut far, &mut near, &frame(2));
    far.set_nonblocking(true).unwrap();
    let early = far.read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(early, Err(ErrorKind::WouldBlock));
    far.set_nonblocking(false).unwrap();

    network.mend("here", "there", Cut::Stall);
    expect(&mut far, &frame(1));
}

#[test]
fn a_way_that_is_reset_breaks_what_goes_there_and_lets_nobody_else_in() {
    let mut way = Way::new(Delays::NONE);
    way.shake();
    way.network.cut("elsewhere", "there", Cut::Reset);
    say(&mut way.near, &mut way.far, &frame(1));

    way.network.cut("there", "here", Cut::Reset);
    assert_eq!(way.near.read(&mut [0; 1]).unwrap_or(0), 0);
    assert_eq!(way.far.read(&mut [0; 1]).unwrap_or(0), 0);
}

#[test]
fn gossip_on_a_way_that_is_cut_is_lost() {
    let (here, there, network) = (Place::find().unwrap(), Place::find().unwrap(), Network::default());
    let begin = |place, name| Proxy::begin(place, name, &network, Delays::NONE, Random::new(seed())).unwrap();
    let (_here, proxy) = (begin(here, "here"), begin(there, "there"));
    let (from, to) = (UdpSocket::bind(here.node()).unwrap(), UdpSocket::bind(there.node()).unwrap());
    to.set_read_timeout(Some(LIMIT)).unwrap();
    network.cut("here", "there", Cut::Stall);
    from.send_to(b"lost", proxy.address).unwrap();
    // From somebody else, and behind it.
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"heard", proxy.address).unwrap();
    let mut packet = [0; 16];
    assert_eq!(to.recv(&mut packet).unwrap(), 5);

    network.mend("here", "there", Cut::Stall);
    from.send_to(b"mended", proxy.address).unwrap();
    assert_eq!(to.recv(&mut packet).unwrap(), 6);
}

#[test]
fn three_nodes_work_behind_proxies_that_hold_back_every_twentieth_frame() {
    let mut fleet = Fleet::of_three(Kind::Delayed, &[]);
    fleet.hold_back(true);
    let nodes = fleet.nodes();
    for number in 0..60 {
        let (key, value) = (format!("key-{number}"), format!("value-{number}"));
        nodes[number % 3].put(&key, &value);
        for node in &nodes {
            assert_eq!(node.values(&key), std::slice::from_ref(&value), "seed {}: {key}", seed());
        }
    }
    assert!(0 < fleet.delayed(), "seed {}: nothing was held back", seed());
}
