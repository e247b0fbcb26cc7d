//! The proxy between ends that the test plays, and between real nodes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::cluster::fleet::{Fleet, Kind};
use crate::cluster::proxy::{Delays, Place, Proxy};
use crate::dice::{Dice, seed};
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

fn ends(delays: Delays) -> (Proxy, TcpStream, TcpStream) {
    let place = Place::new();
    let node = TcpListener::bind(place.node()).unwrap();
    let proxy = Proxy::begin(place, delays, Dice(seed()));
    let mut near = TcpStream::connect(proxy.address).unwrap();
    near.write_all(&hello(1)).unwrap();
    let (far, _) = node.accept().unwrap();
    for end in [&near, &far] {
        end.set_read_timeout(Some(LIMIT)).unwrap();
    }
    (proxy, near, far)
}

fn shake(near: &mut TcpStream, far: &mut TcpStream) {
    expect(far, &hello(1));
    say(far, near, &message(&[2, 7]));
    say(near, far, &message(b"claim"));
    say(far, near, &message(&[3, 8]));
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
    let (proxy, mut near, mut far) = ends(delays);
    shake(&mut near, &mut far);

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
    let (_proxy, mut near, mut far) = ends(Delays::NONE);
    shake(&mut near, &mut far);
    near.write_all(&frame(1)).unwrap();
    drop(near);

    let mut heard = vec![];
    far.read_to_end(&mut heard).unwrap();
    assert_eq!(heard, frame(1), "what was under way arrives");
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
