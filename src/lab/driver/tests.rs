//! The loop against servers of a few lines, over real sockets.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::lab::dialect::{Ask, Heard, Outcome, Refusal, Slot};
use crate::lab::workload::{Kind, Workload};

/// A request is its slot and what it does, a reply its slot and what came of it: three bytes each.
#[derive(Clone, Debug)]
struct Three;

const MESSAGE_BYTES: usize = 3;
const GET: u8 = 0;
const PUT: u8 = 1;
const PUT_WITH_CONTEXT: u8 = 2;
const DONE: u8 = 3;
const FOUND: u8 = 4;
const LATER: u8 = 5;

impl Dialect for Three {
    fn open(&mut self, _out: &mut Vec<u8>) -> Opening {
        Opening::Ready
    }

    fn ask(&mut self, slot: Slot, ask: Ask<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&slot.0.to_le_bytes());
        out.push(match ask {
            Ask::Get { .. } => GET,
            Ask::Put { context: None, .. } => PUT,
            Ask::Put { context: Some(context), .. } => {
                assert_eq!(context, b"seen");
                PUT_WITH_CONTEXT
            }
        });
    }

    fn hear<'a>(&mut self, from: &'a [u8], _out: &mut Vec<u8>) -> Result<Option<Heard<'a>>, Refusal> {
        let Some(&[low, high, said]) = from.first_chunk() else { return Ok(None) };
        let refusal = || Refusal { kind: "busy", message: "come later".to_owned(), passes: true };
        let outcome = match said {
            DONE => Outcome::Written,
            FOUND => Outcome::Found { context: b"seen" },
            _ => Outcome::Refused(refusal()),
        };
        let slot = Slot(u16::from_le_bytes([low, high]));
        Ok(Some(Heard { bytes: MESSAGE_BYTES, said: Said::Answer { slot, outcome } }))
    }
}

/// A server that sends what `serve` makes of all that has come, in pieces of `piece` bytes.
fn server(piece: usize, serve: impl Fn(&mut Vec<[u8; 3]>) -> Vec<u8> + Send + Clone + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accept = move || {
        for socket in listener.incoming() {
            let (mut socket, serve) = (socket.unwrap(), serve.clone());
            socket.set_nodelay(true).unwrap();
            let answer = move || {
                let (mut room, mut unread) = ([0; 4_096], vec![]);
                while let Ok(count @ 1..) = socket.read(&mut room) {
                    unread.extend_from_slice(&room[..count]);
                    let whole = unread.len() / MESSAGE_BYTES * MESSAGE_BYTES;
                    let mut requests = unread.as_chunks().0.to_vec();
                    unread.drain(..whole);
                    for piece in serve(&mut requests).chunks(piece) {
                        if socket.write_all(piece).is_err() {
                            return;
                        }
                    }
                }
            };
            Builder::new().spawn(answer).unwrap();
        }
    };
    Builder::new().spawn(accept).unwrap();
    address
}

fn answer(request: &[u8; 3]) -> [u8; 3] {
    let [low, high, asked] = *request;
    [low, high, if asked == GET { FOUND } else { DONE }]
}

fn run(address: SocketAddr, limit: Limit, sources: Vec<Source>) -> Tally {
    let plan =
        Plan { addresses: vec![address], connections: 5, pipeline: 7, warmup: Duration::ZERO, limit, rate: None };
    start(&plan, sources, &Three).unwrap().join().unwrap()
}

fn workload(name: &str) -> Workload {
    Workload::named(name, 1_000, 10).unwrap()
}

#[test]
fn answers_come_in_any_order_and_in_any_pieces() {
    for piece in [1, 2, 1_000] {
        let address = server(piece, |requests| requests.iter().rev().flat_map(answer).collect());
        let tally = run(address, Limit::Operations(2_001), workload("f").sources(1, 2));
        assert_eq!((tally.operations(), tally.errors.count()), (2_001, 0), "{:?}", tally.errors);
        assert_eq!((tally.hits, tally.misses), (2_001, 0));
        let [gets, changes] = [Kind::Get, Kind::ReadModifyWrite].map(|kind| tally.latencies(kind).len());
        assert!(gets + changes == 2_001 && gets.abs_diff(changes) < 300, "{gets} {changes}");
    }
}

#[test]
fn a_load_comes_later_until_everything_is_written() {
    let asked = Arc::new(AtomicUsize::new(0));
    let address = server(1_000, move |requests| {
        let busy_or_done = |request: &[u8; 3]| match asked.fetch_add(1, Ordering::Relaxed) {
            // In between, and the last keys of all.
            100..200 | 1_080..1_140 => [request[0], request[1], LATER],
            _ => answer(request),
        };
        requests.iter().flat_map(busy_or_done).collect()
    });
    let tally = run(address, Limit::Exhaustion, workload("put").load(1, 1));
    assert_eq!((tally.operations(), tally.errors.count()), (1_000, 0));

    let address = server(1_000, |requests| requests.iter().flat_map(|&[low, high, _]| [low, high, LATER]).collect());
    let tally = run(address, Limit::Operations(100), workload("put").sources(1, 1));
    let kinds: Vec<_> = tally.errors.kinds().map(|(kind, failures)| (kind, failures.count)).collect();
    assert_eq!((tally.operations(), kinds), (0, vec![("busy", 100)]), "what only measures does not come later");
}

#[test]
fn answers_that_nobody_asked_for_end_their_connection() {
    let address = server(1_000, |_| vec![200, 200, DONE]);
    let tally = run(address, Limit::Operations(50), workload("put").sources(1, 1));
    let kinds: Vec<_> = tally.errors.kinds().map(|(kind, failures)| (kind, failures.count)).collect();
    let [("connection lost", lost), ("no answer", unanswered)] = kinds[..] else { panic!("{kinds:?}") };
    assert_eq!((tally.operations(), unanswered), (0, 50));
    assert!((8..=50).contains(&lost), "seven at once on each: {lost}");
    let first = &tally.errors.kinds().next().unwrap().1.first;
    assert_eq!(first, "an answer to no request, number 51400");
}

#[test]
fn a_rate_is_kept_by_the_clock() {
    let address = server(1_000, |requests| requests.iter().flat_map(answer).collect());
    let limit = Limit::Time(Duration::from_millis(500));
    let addresses = vec![address];
    let plan = Plan { addresses, connections: 4, pipeline: 1, warmup: Duration::ZERO, limit, rate: Some(1_000.0) };
    let tally = start(&plan, workload("put").sources(1, 2), &Three).unwrap().join().unwrap();
    assert_eq!((tally.operations(), tally.unstarted, tally.errors.count()), (500, 0, 0));
    assert!(Duration::from_millis(500) <= tally.elapsed, "{:?}", tally.elapsed);
}

#[test]
fn a_stop_ends_it_soon_though_the_server_is_silent() {
    let address = server(1_000, |_| vec![]);
    let limit = Limit::Time(Duration::from_secs(600));
    let addresses = vec![address];
    let plan = Plan { addresses, connections: 2, pipeline: 3, warmup: Duration::ZERO, limit, rate: None };
    let running = start(&plan, workload("put").sources(1, 1), &Three).unwrap();
    assert_eq!((running.progress(), running.is_finished()), (Progress::default(), false));
    running.stop().now();
    let tally = running.join().unwrap();
    assert_eq!(tally.operations(), 0);
    assert!(tally.errors.count() <= 6 && tally.elapsed < Duration::from_secs(30), "{:?}", tally.elapsed);
}
