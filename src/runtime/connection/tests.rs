//! One connection and its client's socket, over the loopback.

use std::io::{Read, Write};
use std::net::Shutdown;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::*;
use crate::protocol::message::{Found, Level, Reply, Sibling};
use crate::protocol::types::{ActorId, Dot, Value, WallTime};
use crate::runtime::poller::Poller;
use crate::runtime::samples::arrival;
use crate::wire::frame::ANSWER_BYTES_MAX;
use crate::wire::{decode_answer, encode_call, next_frame};

const BEGIN: Instant = Instant(0);
const IDLE_MAX: Duration = Duration::from_secs(600);

fn pair() -> (TcpStream, Rc<Connection>, Rc<Wanting>) {
    let (client, arrival) = arrival();
    let turns = Rc::<Wanting>::default();
    (client, Connection::new(1, BEGIN, arrival, Rc::clone(&turns)).unwrap(), turns)
}

fn pings(ids: std::ops::RangeInclusive<u64>) -> BytesMut {
    let mut out = BytesMut::new();
    ids.for_each(|id| encode_call(&mut out, CallId(id), &Call::Ping).unwrap());
    out
}

fn wait_for(sockets: &[(&TcpStream, PollFlags)]) {
    let mut sockets: Vec<_> = sockets.iter().map(|(socket, flags)| PollFd::new(*socket, *flags)).collect();
    let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_ne!(poll(&mut sockets, Some(&limit)).unwrap(), 0, "nothing comes");
}

/// What has come in: the ids of the calls, up to what ends them.
fn hear(connection: &Connection, now: Instant) -> (Vec<u64>, Option<End>) {
    let (mut ids, mut scratch) = (vec![], [0; 4_096]);
    let end = loop {
        match connection.next_call(now) {
            Ok(Some((id, call))) => {
                assert_eq!(call, Ok(Said::Call(Call::Ping)));
                ids.push(id.0);
            }
            Ok(None) => match connection.receive(now, &mut scratch) {
                Ok(0) => break None,
                Ok(_) => {}
                Err(end) => break Some(end),
            },
            Err(end) => break Some(end),
        }
    };
    (ids, end)
}

/// The client's: all answers until the node closes.
fn answers(client: &mut TcpStream) -> Vec<u64> {
    let (mut bytes, mut ids) = (vec![], vec![]);
    client.read_to_end(&mut bytes).unwrap();
    let mut bytes = BytesMut::from(&bytes[..]);
    while let Some((id, answer)) =
        next_frame(&mut bytes, ANSWER_BYTES_MAX, |frame| (frame.id.0, decode_answer(frame))).unwrap()
    {
        assert_eq!(answer, Ok(Answer::Pong));
        ids.push(id);
    }
    ids
}

#[test]
fn calls_and_the_end_that_came_with_them_are_both_heard() {
    let (mut client, connection, _turns) = pair();
    client.write_all(&pings(1..=3)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    wait_for(&[(connection.socket(), PollFlags::RDHUP)]);

    // One event tells of both, and none comes behind it.
    connection.on_readable(true);
    assert!(matches!(hear(&connection, BEGIN), (ids, Some(End::Closed)) if ids == [1, 2, 3]));
}

#[test]
fn an_end_that_comes_behind_the_calls_is_heard_when_it_is_told() {
    let (mut client, connection, _turns) = pair();
    client.write_all(&pings(1..=1)).unwrap();
    wait_for(&[(connection.socket(), PollFlags::IN)]);
    assert!(matches!(hear(&connection, BEGIN), (ids, None) if ids == [1]));
    assert!(matches!(hear(&connection, BEGIN), (ids, None) if ids.is_empty()));

    client.shutdown(Shutdown::Write).unwrap();
    wait_for(&[(connection.socket(), PollFlags::RDHUP)]);
    connection.on_readable(true);
    assert!(matches!(hear(&connection, BEGIN), (ids, Some(End::Closed)) if ids.is_empty()));
}

#[test]
fn who_sends_nothing_more_is_answered_first_and_calls_that_were_put_off_too() {
    let (mut client, connection, turns) = pair();
    client.write_all(&pings(1..=3)).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    wait_for(&[(connection.socket(), PollFlags::RDHUP)]);
    connection.on_readable(true);
    let (ids, _end) = hear(&connection, BEGIN);

    ids[1..].iter().for_each(|&id| connection.put_off(CallId(id), Said::Call(Call::Ping)));
    connection.finish();
    connection.answer(CallId(1), &Answer::Pong);
    connection.send(BEGIN);
    assert!(!connection.is_closed() && connection.has_put_off());
    assert_eq!(turns.len(), 1, "it looks for room");

    for (id, call) in connection.take_put_off() {
        assert_eq!(call, Said::Call(Call::Ping));
        connection.answer(id, &Answer::Pong);
    }
    connection.send(BEGIN);
    assert!(connection.is_closed() && connection.is_answered());
    assert_eq!(answers(&mut client), [1, 2, 3]);
}

#[test]
fn an_answer_that_the_socket_does_not_take_at_once_goes_on_whenever_room_is_told() {
    let (mut client, connection, _turns) = pair();
    let mut poller = Poller::new().unwrap();
    poller.add(connection.socket(), 1).unwrap();
    client.write_all(&pings(1..=1)).unwrap();
    wait_for(&[(connection.socket(), PollFlags::IN)]);
    hear(&connection, BEGIN);

    let dot = Dot { actor: ActorId(1), counter: 1 };
    let value = Value::new(vec![b'v'; 10 * 1024 * 1024]).unwrap();
    let siblings = vec![Sibling { dot, value, written_at: WallTime(1) }; 4];
    let found = Found { siblings, context: bytes::Bytes::new(), level: Level::default() };
    let all = connection.answer(CallId(1), &Answer::One(Ok(Reply::Found(found))));
    let (mut sent, mut taken, mut told) = (connection.send(BEGIN), 0, 0);
    assert!(0 < sent && sent < all && connection.is_behind());

    let mut scratch = vec![0; 1024 * 1024];
    client.set_nonblocking(true).unwrap();
    while taken < all {
        let room = if sent < all { PollFlags::OUT } else { PollFlags::empty() };
        wait_for(&[(&client, PollFlags::IN), (connection.socket(), room)]);
        if poller.look().any(|ready| ready.writable) {
            sent += connection.send(BEGIN);
            told += 1;
        }
        taken += client.read(&mut scratch).unwrap_or(0);
        assert!(taken <= sent);
    }
    assert!(connection.is_answered() && 1 < told);
}

#[test]
fn nothing_is_read_of_a_stalled_connection_until_it_looks_for_room() {
    let (_client, connection, turns) = pair();
    connection.stall();
    connection.on_readable(false);
    assert!(turns.is_empty());

    connection.look_for_room();
    connection.look_for_room();
    assert_eq!(turns.len(), 1, "one turn is enough");

    turns.pop().unwrap();
    connection.on_readable(false);
    assert_eq!(turns.len(), 1, "it stalls no more");
}

#[test]
fn a_frame_is_late_when_its_rest_stays_away_but_not_while_nothing_is_read() {
    let (mut client, connection, _turns) = pair();
    let frame = pings(1..=1);
    client.write_all(&frame[..5]).unwrap();
    wait_for(&[(connection.socket(), PollFlags::IN)]);
    hear(&connection, BEGIN);
    let late = BEGIN + STALL_MAX + Duration::from_millis(1);
    assert!(!connection.is_overdue(BEGIN + STALL_MAX, IDLE_MAX, false));
    assert!(connection.is_overdue(late, IDLE_MAX, false));

    connection.stall();
    assert!(!connection.is_overdue(late, IDLE_MAX, false));

    hear(&connection, late);
    assert!(!connection.is_overdue(late + STALL_MAX, IDLE_MAX, false), "it has its time again");
    assert!(connection.is_overdue(late + STALL_MAX + STALL_MAX, IDLE_MAX, false));
}

#[test]
fn a_client_that_is_gone_is_told_by_the_next_send_and_nothing_waits_for_it() {
    let (mut client, connection, turns) = pair();
    client.write_all(&pings(1..=2)).unwrap();
    wait_for(&[(connection.socket(), PollFlags::IN)]);
    hear(&connection, BEGIN);
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_for(&[(connection.socket(), PollFlags::HUP)]);

    let bytes = connection.answer(CallId(1), &Answer::Pong);
    assert_eq!(connection.send(BEGIN), bytes, "what was dropped waits no more");
    assert!(connection.is_closed());
    assert_eq!(turns.len(), 1, "its last turn");
    assert_eq!(connection.answer(CallId(2), &Answer::Pong), 0);
    assert!(connection.is_answered());
}
