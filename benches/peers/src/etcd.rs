//! etcd's own protocol: gRPC over HTTP/2, as far as Put and Range of one key need it, spelled by hand.
//!
//! Each request is a call, and each call a stream of its own, several of which may be under way. Reads are as etcd's
//! clients have them unless they ask for less: linearizable (`serializable` is false), so that each is confirmed by a
//! majority. Keys are written blindly; what a writer has read is not shown.
//!
//! A call that comes to something has exactly one message, which is how its end is judged: a server of gRPC sends none
//! where the status is an error. Why a call failed stands in header fields, which are not read.

use std::collections::VecDeque;

use sloop::lab::dialect::{Ask, Dialect, Heard, Opening, Outcome, Refusal, Said, Slot};
use sloop::lab::workload::KEY_BYTES;

use crate::http2::{
    self, FIELDS_BYTES, Field, Fields, Frame, PAYLOAD_BYTES_MAX, PREFACE, WINDOW_BYTES, flag, kind, setting,
};

/// Longest value that fits in a stream's first window, with what is around it.
pub const VALUE_BYTES_MAX: usize = WINDOW_BYTES as usize - 64;

/// What the server may send before it is given more. It is given more at half of this.
const RECEIVE_BYTES: u32 = 16 << 20;

/// Before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Of an answer, the prefix, the header (four numbers of 11 bytes at most) and whether a key follows are within this.
const FRONT_BYTES: usize = 64;

const METHOD_POST: Field = Field::Static(3);
const SCHEME_HTTP: Field = Field::Static(6);
const PATH_PUT: Field = Field::Named(4, "/etcdserverpb.KV/Put");
const PATH_RANGE: Field = Field::Named(4, "/etcdserverpb.KV/Range");
const AUTHORITY: Field = Field::Named(1, "localhost");
const CONTENT_TYPE: Field = Field::Named(31, "application/grpc");
const TRAILERS: Field = Field::Own("te", "trailers");

/// One connection to a member.
#[derive(Clone, Debug)]
pub struct Etcd {
    is_greeted: bool,
    fields: Fields,
    next_stream: u32,
    /// Calls under way, in the order of their streams.
    calls: VecDeque<Call>,
    /// Bytes that have come since the server was given more.
    received: u32,
    /// Bytes that may be sent over the connection.
    sendable: usize,
    /// Messages that may not be sent yet, each with its stream, in their order.
    unsent: VecDeque<(u32, Vec<u8>)>,
}

/// A request that has no answer yet.
#[derive(Clone, Debug)]
struct Call {
    stream: u32,
    slot: Slot,
    is_put: bool,
    /// The first bytes of its answer, and how many there were of all.
    front: [u8; FRONT_BYTES],
    bytes: usize,
}

impl Etcd {
    /// For a member without TLS and without users.
    pub fn new() -> Etcd {
        Etcd {
            is_greeted: false,
            fields: Fields::default(),
            next_stream: 1,
            calls: VecDeque::new(),
            received: 0,
            sendable: WINDOW_BYTES as usize,
            unsent: VecDeque::new(),
        }
    }
}

impl Dialect for Etcd {
    fn open(&mut self, out: &mut Vec<u8>) -> Opening {
        *self = Etcd::new();
        out.extend_from_slice(PREFACE);
        let settings = http2::begin(out, kind::SETTINGS, 0, 0);
        for (name, value) in [(setting::ENABLE_PUSH, 0), (setting::INITIAL_WINDOW_SIZE, RECEIVE_BYTES)] {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&u32::to_be_bytes(value));
        }
        http2::end(out, settings);
        http2::widen(out, 0, RECEIVE_BYTES - WINDOW_BYTES);
        Opening::Greeting
    }

    fn ask(&mut self, slot: Slot, ask: Ask<'_>, out: &mut Vec<u8>) {
        let (stream, is_put) = (self.next_stream, matches!(ask, Ask::Put { .. }));
        self.next_stream += 2;
        assert!(self.next_stream < 1 << 31, "a connection does not last for a billion calls");
        self.calls.push_back(Call { stream, slot, is_put, front: [0; FRONT_BYTES], bytes: 0 });

        let head = http2::begin(out, kind::HEADERS, flag::END_HEADERS, stream);
        let path = if is_put { PATH_PUT } else { PATH_RANGE };
        for field in [METHOD_POST, SCHEME_HTTP, path, AUTHORITY, CONTENT_TYPE, TRAILERS] {
            self.fields.write(field, out);
        }
        http2::end(out, head);

        let bytes = PREFIX_BYTES + message_bytes(ask);
        if self.unsent.is_empty() && bytes <= self.sendable && bytes <= PAYLOAD_BYTES_MAX {
            let data = http2::begin(out, kind::DATA, flag::END_STREAM, stream);
            write_message(ask, out);
            http2::end(out, data);
            self.sendable -= bytes;
        } else {
            let mut message = vec![];
            write_message(ask, &mut message);
            self.unsent.push_back((stream, message));
            self.send(out);
        }
    }

    fn hear<'a>(&mut self, from: &'a [u8], out: &mut Vec<u8>) -> Result<Option<Heard<'a>>, Refusal> {
        let Some(frame) = Frame::read(from).map_err(malformed)? else { return Ok(None) };
        let said = match frame.kind {
            kind::SETTINGS => self.hear_settings(frame, out)?,
            kind::PING if !frame.has(flag::ACK) => {
                Frame { flags: flag::ACK, ..frame }.write(out);
                Said::Aside
            }
            kind::WINDOW_UPDATE => self.hear_widened(frame, out)?,
            kind::DATA => self.hear_data(frame, out)?,
            kind::HEADERS if frame.has(flag::END_STREAM) => self.hear_end(frame)?,
            kind::RST_STREAM => self.hear_reset(frame)?,
            kind::GOAWAY => return Err(Refusal { passes: true, ..refusal("going away", "it takes no more calls") }),
            _ => Said::Aside,
        };
        Ok(Some(Heard { bytes: frame.bytes(), said }))
    }
}

impl Etcd {
    /// Sends what waits, as far as the server has room for it.
    fn send(&mut self, out: &mut Vec<u8>) {
        while let Some((stream, message)) = self.unsent.front()
            && message.len() <= self.sendable
        {
            self.sendable -= message.len();
            let last = message.chunks(PAYLOAD_BYTES_MAX).len() - 1;
            for (at, payload) in message.chunks(PAYLOAD_BYTES_MAX).enumerate() {
                let flags = if at == last { flag::END_STREAM } else { 0 };
                Frame { kind: kind::DATA, flags, stream: *stream, payload }.write(out);
            }
            self.unsent.pop_front();
        }
    }

    fn hear_settings<'a>(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<Said<'a>, Refusal> {
        if frame.has(flag::ACK) {
            return Ok(Said::Aside);
        }
        let is_less = |(name, value)| match name {
            setting::INITIAL_WINDOW_SIZE => value < WINDOW_BYTES,
            setting::HEADER_TABLE_SIZE => value < FIELDS_BYTES,
            _ => false,
        };
        if frame.settings().any(is_less) {
            return Err(malformed("settings below those that are the rule".to_owned()));
        }
        Frame { kind: kind::SETTINGS, flags: flag::ACK, stream: 0, payload: &[] }.write(out);
        let is_first = !self.is_greeted;
        self.is_greeted = true;
        Ok(if is_first { Said::Ready } else { Said::Aside })
    }

    /// Streams need no more than they have from the beginning.
    fn hear_widened<'a>(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<Said<'a>, Refusal> {
        let by = frame.number().ok_or_else(|| malformed("a window without a number".to_owned()))?;
        if frame.stream == 0 {
            self.sendable = self.sendable.saturating_add(by as usize);
            self.send(out);
        }
        Ok(Said::Aside)
    }

    fn hear_data<'a>(&mut self, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<Said<'a>, Refusal> {
        self.received += frame.payload.len() as u32;
        if RECEIVE_BYTES / 2 <= self.received {
            http2::widen(out, 0, self.received);
            self.received = 0;
        }
        let at = self.call(frame.stream).ok_or_else(|| no_call(frame))?;
        let data = frame.data().ok_or_else(|| malformed("padding without an end".to_owned()))?;
        self.calls[at].take(data);
        if frame.has(flag::END_STREAM) {
            return Err(malformed(format!("stream {} ends without a status", frame.stream)));
        }
        Ok(Said::Aside)
    }

    fn hear_end<'a>(&mut self, frame: Frame<'_>) -> Result<Said<'a>, Refusal> {
        let at = self.call(frame.stream).ok_or_else(|| no_call(frame))?;
        let call = self.calls.remove(at).expect("it was found");
        Ok(Said::Answer { slot: call.slot, outcome: call.outcome().unwrap_or_else(Outcome::Refused) })
    }

    /// A stream may also be reset after its end, which means nothing.
    fn hear_reset<'a>(&mut self, frame: Frame<'_>) -> Result<Said<'a>, Refusal> {
        let Some(at) = self.call(frame.stream) else { return Ok(Said::Aside) };
        let call = self.calls.remove(at).expect("it was found");
        // Whether its message is still here: the server does not want it.
        self.unsent.retain(|(stream, _)| *stream != frame.stream);
        let code = frame.number().ok_or_else(|| malformed("a reset without a code".to_owned()))?;
        let refusal = refusal("reset", &format!("the server reset the call, code {code}"));
        Ok(Said::Answer { slot: call.slot, outcome: Outcome::Refused(Refusal { passes: true, ..refusal }) })
    }

    fn call(&self, stream: u32) -> Option<usize> {
        self.calls.binary_search_by_key(&stream, |call| call.stream).ok()
    }
}

impl Call {
    /// More of its answer.
    fn take(&mut self, data: &[u8]) {
        if let Some(room) = self.front.get_mut(self.bytes..) {
            let count = room.len().min(data.len());
            room[..count].copy_from_slice(&data[..count]);
        }
        self.bytes += data.len();
    }

    /// What its answer says, all of which has come.
    fn outcome(&self) -> Result<Outcome<'static>, Refusal> {
        if self.bytes == 0 {
            let refusal = refusal("failed call", "the server ended a call without a message: its status is an error");
            return Err(Refusal { passes: true, ..refusal });
        }
        let odd = |what: &str| malformed(format!("{what}: \"{}\"", self.front.escape_ascii()));
        let [compressed, length @ ..] = self.front.first_chunk::<PREFIX_BYTES>().expect("it is longer");
        let length = u32::from_be_bytes(*length) as usize;
        if *compressed != 0 || PREFIX_BYTES + length != self.bytes {
            return Err(odd("not one plain message"));
        }
        let message = &self.front[PREFIX_BYTES..self.bytes.min(FRONT_BYTES)];
        match (self.is_put, has_pairs(message, length).ok_or_else(|| odd("not the message of a range"))?) {
            (true, _) => Ok(Outcome::Written),
            (false, true) => Ok(Outcome::Found { context: &[] }),
            (false, false) => Ok(Outcome::Absent),
        }
    }
}

/// Whether field 2 is in the message, of which this is the front: in an answer to a range the pairs that it found, in
/// an answer to a put the pair before it, which we do not ask for. None when it is no message with a header.
fn has_pairs(front: &[u8], length: usize) -> Option<bool> {
    const HEADER: u8 = 0x0a;
    const PAIR: u8 = 0x12;
    let [HEADER, header_bytes @ ..0x80, behind @ ..] = front else { return None };
    match behind.get(usize::from(*header_bytes)..)?.first() {
        Some(&tag) => Some(tag == PAIR),
        None => (front.len() == length).then_some(false),
    }
}

const _: () = assert!(KEY_BYTES == 16, "the length of a message depends on it");

/// The key with its tag and length.
const KEY_FIELD_BYTES: usize = 2 + KEY_BYTES;

fn message_bytes(ask: Ask<'_>) -> usize {
    match ask {
        Ask::Get { .. } => KEY_FIELD_BYTES,
        Ask::Put { value, .. } => KEY_FIELD_BYTES + 1 + number_bytes(value.len()) + value.len(),
    }
}

/// A RangeRequest or a PutRequest behind its prefix.
fn write_message(ask: Ask<'_>, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&(message_bytes(ask) as u32).to_be_bytes());
    let (Ask::Get { key } | Ask::Put { key, .. }) = ask;
    out.extend_from_slice(&[0x0a, KEY_BYTES as u8]);
    out.extend_from_slice(key);
    if let Ask::Put { value, .. } = ask {
        assert!(value.len() <= VALUE_BYTES_MAX, "whoever asks has checked the length");
        out.push(0x12);
        write_number(value.len(), out);
        out.extend_from_slice(value);
    }
}

/// Seven bits a byte, the lowest first.
fn write_number(number: usize, out: &mut Vec<u8>) {
    let mut left = number;
    while 0x80 <= left {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn number_bytes(number: usize) -> usize {
    (number.max(1).ilog2() / 7 + 1) as usize
}

fn refusal(kind: &'static str, message: &str) -> Refusal {
    Refusal { kind, message: message.to_owned(), passes: false }
}

fn malformed(what: String) -> Refusal {
    Refusal { kind: "malformed answer", message: what, passes: false }
}

fn no_call(frame: Frame<'_>) -> Refusal {
    malformed(format!("a frame of kind {} for stream {}, which nobody asked for", frame.kind, frame.stream))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use super::*;

    const KEY: &[u8; 16] = b"user000000000007";

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![];
        Frame { kind, flags, stream, payload }.write(&mut bytes);
        bytes
    }

    fn settings() -> Vec<u8> {
        frame(kind::SETTINGS, 0, 0, b"\x00\x05\x00\x00\x40\x00")
    }

    fn greeted() -> Etcd {
        let mut etcd = Etcd::new();
        assert_eq!(etcd.open(&mut vec![]), Opening::Greeting);
        assert_eq!(hear_all(&mut etcd, &settings()), Ok((vec![Said::Ready], frame(kind::SETTINGS, flag::ACK, 0, &[]))));
        etcd
    }

    /// All that is said but asides, and what is replied.
    fn hear_all(etcd: &mut Etcd, mut from: &[u8]) -> Result<(Vec<Said<'static>>, Vec<u8>), Refusal> {
        let (mut said, mut out) = (vec![], vec![]);
        while let Some(heard) = etcd.hear(from, &mut out)? {
            from = &from[heard.bytes..];
            match heard.said {
                Said::Aside => {}
                Said::Ready => said.push(Said::Ready),
                Said::Answer { slot, outcome } => {
                    let outcome = match outcome {
                        Outcome::Found { .. } => Outcome::Found { context: &[] },
                        Outcome::Written => Outcome::Written,
                        Outcome::Absent => Outcome::Absent,
                        Outcome::Refused(refusal) => Outcome::Refused(refusal),
                    };
                    said.push(Said::Answer { slot, outcome });
                }
            }
        }
        assert!(from.is_empty());
        Ok((said, out))
    }

    fn message(body: &[u8]) -> Vec<u8> {
        [&[0][..], &(body.len() as u32).to_be_bytes(), body].concat()
    }

    /// What a member answers to a call that comes to something; the header fields are its, and not ours to read.
    fn answer(stream: u32, body: &[u8]) -> Vec<u8> {
        let head = frame(kind::HEADERS, flag::END_HEADERS, stream, b"\x88\x5f\x8b");
        let data = frame(kind::DATA, 0, stream, &message(body));
        let trailers = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, b"\x40\x88");
        [head, data, trailers].concat()
    }

    fn put(etcd: &mut Etcd, slot: u16, value: &[u8]) -> Vec<u8> {
        let mut out = vec![];
        etcd.ask(Slot(slot), Ask::Put { key: KEY, value, context: None }, &mut out);
        out
    }

    fn get(etcd: &mut Etcd, slot: u16) -> Vec<u8> {
        let mut out = vec![];
        etcd.ask(Slot(slot), Ask::Get { key: KEY }, &mut out);
        out
    }

    fn said(slot: u16, outcome: Outcome<'static>) -> Said<'static> {
        Said::Answer { slot: Slot(slot), outcome }
    }

    const FOUND: Outcome<'static> = Outcome::Found { context: &[] };

    #[test]
    fn a_connection_opens_with_wide_windows() {
        let mut out = vec![];
        Etcd::new().open(&mut out);
        let settings = b"\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00";
        let widened = b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\xff\x00\x01";
        assert_eq!(out, [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &widened[..]].concat());
    }

    #[test]
    fn requests_keep_their_bytes() {
        let mut etcd = greeted();
        let fields =
            b"\x83\x86\x44\x14/etcdserverpb.KV/Put\x41\x09localhost\x5f\x10application/grpc\x40\x02te\x08trailers";
        let body = b"\x00\x00\x00\x00\x20\x0a\x10user000000000007\x12\x0ctwelve bytes";
        let first =
            [&b"\x00\x00\x42\x01\x04\x00\x00\x00\x01"[..], fields, b"\x00\x00\x25\x00\x01\x00\x00\x00\x01", body];
        assert_eq!(put(&mut etcd, 0, b"twelve bytes"), first.concat());

        let second = [
            &b"\x00\x00\x06\x01\x04\x00\x00\x00\x03\x83\x86\xc1\xc0\xbf\xbe"[..],
            b"\x00\x00\x25\x00\x01\x00\x00\x00\x03",
            body,
        ];
        assert_eq!(put(&mut etcd, 1, b"twelve bytes"), second.concat(), "what was spelled once is a number");

        let third = [
            &b"\x00\x00\x1d\x01\x04\x00\x00\x00\x05\x83\x86\x44\x16/etcdserverpb.KV/Range\xc1\xc0\xbf"[..],
            b"\x00\x00\x17\x00\x01\x00\x00\x00\x05",
            b"\x00\x00\x00\x00\x12\x0a\x10user000000000007",
        ];
        assert_eq!(get(&mut etcd, 2), third.concat());
    }

    #[test]
    fn answers_belong_to_the_calls_of_their_streams() {
        let mut etcd = greeted();
        put(&mut etcd, 3, b"value");
        for slot in [1, 2, 0] {
            get(&mut etcd, slot);
        }
        let found = [&b"\x0a\x02\x18\x07\x12\x70"[..], &[b'v'; 0x70], b"\x20\x01"].concat();
        let failed = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 7, b"\x88");
        let reset = frame(kind::RST_STREAM, 0, 7, &[0, 0, 0, 8]);
        let heard = [answer(5, b"\x0a\x02\x18\x07"), answer(3, &found), failed, reset, answer(1, b"\x0a\x02\x18\x07")];
        let (all, out) = hear_all(&mut etcd, &heard.concat()).unwrap();
        let [absent, present, Said::Answer { slot: Slot(0), outcome: Outcome::Refused(refusal) }, written] = &all[..]
        else {
            panic!("{all:?}");
        };
        assert_eq!(
            [absent, present, written],
            [&said(2, Outcome::Absent), &said(1, FOUND), &said(3, Outcome::Written)]
        );
        assert_eq!((refusal.kind, refusal.passes), ("failed call", true));
        assert!(out.is_empty() && etcd.calls.is_empty());
    }

    #[test]
    fn an_answer_may_come_in_many_frames_and_any_pieces() {
        let mut etcd = greeted();
        let whole = message(&[&b"\x0a\x02\x18\x07\x12\x70"[..], &[b'v'; 0x70]].concat());
        let pieces = whole.chunks(3).map(|piece| frame(kind::DATA, 0, 1, piece));
        let end = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"");
        let bytes = [pieces.collect::<Vec<_>>().concat(), end].concat();
        get(&mut etcd, 0);
        assert_eq!(hear_all(&mut etcd, &bytes), Ok((vec![said(0, FOUND)], vec![])));

        let bytes = answer(3, b"\x0a\x02\x18\x07\x12\x01v");
        get(&mut etcd, 0);
        let (mut from, mut heard) = (0, vec![]);
        for until in 0..=bytes.len() {
            while let Some(one) = etcd.hear(&bytes[from..until], &mut vec![]).unwrap() {
                from += one.bytes;
                heard.extend(Some(one.said).filter(|said| *said != Said::Aside));
            }
        }
        assert_eq!(heard, [said(0, FOUND)]);
    }

    #[test]
    fn messages_that_are_none_are_refused() {
        let wrong: [&[u8]; 8] = [
            b"\x00",
            b"\x01\x00\x00\x00\x04\x0a\x02\x18\x07",
            b"\x00\x00\x00\x00\x05\x0a\x02\x18\x07",
            b"\x00\x00\x00\x00\x03\x0a\x02\x18\x07",
            b"\x00\x00\x00\x00\x00",
            b"\x00\x00\x00\x00\x04\x12\x02\x18\x07",
            b"\x00\x00\x00\x00\x04\x0a\x03\x18\x07",
            b"\x00\x00\x00\x00\x04\x0a\x80\x18\x07",
        ];
        for data in wrong {
            let mut etcd = greeted();
            get(&mut etcd, 0);
            let end = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, b"");
            let (all, _) = hear_all(&mut etcd, &[frame(kind::DATA, 0, 1, data), end].concat()).unwrap();
            let [Said::Answer { outcome: Outcome::Refused(refusal), .. }] = &all[..] else { panic!("{all:?}") };
            assert_eq!(refusal.kind, "malformed answer");
        }
    }

    #[test]
    fn pings_and_settings_are_confirmed_and_the_servers_confirmations_are_not() {
        let mut etcd = greeted();
        let ping = frame(kind::PING, 0, 0, b"12345678");
        let both = [ping, settings()].concat();
        let confirmed = [frame(kind::PING, flag::ACK, 0, b"12345678"), frame(kind::SETTINGS, flag::ACK, 0, b"")];
        assert_eq!(hear_all(&mut etcd, &both), Ok((vec![], confirmed.concat())));
        assert_eq!(hear_all(&mut etcd, &confirmed.concat()), Ok((vec![], vec![])));
    }

    #[test]
    fn the_server_is_given_more_before_it_has_to_stop() {
        let (mut etcd, mut given, mut sent) = (greeted(), 0, 0_usize);
        get(&mut etcd, 0);
        let data = frame(kind::DATA, 0, 1, &[0; PAYLOAD_BYTES_MAX]);
        while sent < 4 * RECEIVE_BYTES as usize {
            let (_, out) = hear_all(&mut etcd, &data).unwrap();
            sent += PAYLOAD_BYTES_MAX;
            if let Some(frame) = Frame::read(&out).unwrap() {
                assert_eq!((frame.kind, frame.stream), (kind::WINDOW_UPDATE, 0));
                given += frame.number().unwrap() as usize;
            }
            assert!(sent - given < RECEIVE_BYTES as usize);
        }
    }

    #[test]
    fn what_the_server_has_no_room_for_waits_until_it_has() {
        let mut etcd = greeted();
        let value = vec![b'v'; 40_000];
        let sent = data_sent(&put(&mut etcd, 0, &value));
        let body = PREFIX_BYTES + KEY_FIELD_BYTES + 1 + 3 + value.len();
        assert_eq!(sent, [(1, 16_384, false), (1, 16_384, false), (1, body - 2 * 16_384, true)]);
        assert_eq!(data_sent(&put(&mut etcd, 1, &value)), [], "65,535 bytes are not enough for two");
        assert_eq!(data_sent(&get(&mut etcd, 2)), [], "nor does a small one overtake it");

        let mut wide = vec![];
        http2::widen(&mut wide, 3, 65_535);
        assert_eq!(hear_all(&mut etcd, &wide), Ok((vec![], vec![])), "a stream is not the connection");
        wide.clear();
        http2::widen(&mut wide, 0, 65_535);
        let (_, out) = hear_all(&mut etcd, &wide).unwrap();
        let sent = data_sent(&out);
        assert_eq!(sent[2..], [(3, body - 2 * 16_384, true), (5, PREFIX_BYTES + KEY_FIELD_BYTES, true)]);
        assert_eq!(etcd.sendable, 2 * 65_535 - 2 * body - PREFIX_BYTES - KEY_FIELD_BYTES);
    }

    fn data_sent(mut out: &[u8]) -> Vec<(u32, usize, bool)> {
        let mut sent = vec![];
        while let Some(frame) = Frame::read(out).unwrap() {
            out = &out[frame.bytes()..];
            if frame.kind == kind::DATA {
                sent.push((frame.stream, frame.payload.len(), frame.has(flag::END_STREAM)));
            }
        }
        sent
    }

    #[test]
    fn a_server_that_goes_its_own_way_ends_the_connection() {
        let wrong = [
            frame(kind::GOAWAY, 0, 0, &[0; 8]),
            frame(kind::DATA, 0, 3, b""),
            frame(kind::HEADERS, flag::END_STREAM, 3, b""),
            frame(kind::DATA, flag::END_STREAM, 1, &message(b"\x0a\x00")),
            frame(kind::WINDOW_UPDATE, 0, 0, b"\x00"),
            frame(kind::SETTINGS, 0, 0, b"\x00\x04\x00\x00\x00\x00"),
            frame(kind::SETTINGS, 0, 0, b"\x00\x01\x00\x00\x00\x00"),
            b"\x7f\xff\xff\x00\x00\x00\x00\x00\x00".to_vec(),
        ];
        for bytes in wrong {
            let mut etcd = greeted();
            get(&mut etcd, 0);
            assert!(hear_all(&mut etcd, &bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn no_byte_of_a_conversation_matters_so_much_that_reading_it_panics() {
        let bytes =
            [settings(), answer(1, b"\x0a\x02\x18\x07\x12\x01v"), frame(kind::PING, 0, 0, b"12345678")].concat();
        for at in 0..bytes.len() {
            for byte in 0..=255 {
                let mut bytes = bytes.clone();
                bytes[at] = byte;
                let (mut etcd, mut from) = (Etcd::new(), 0);
                etcd.open(&mut vec![]);
                get(&mut etcd, 0);
                while let Ok(Some(heard)) = etcd.hear(&bytes[from..], &mut vec![]) {
                    from += heard.bytes;
                }
            }
        }
    }

    #[test]
    fn the_length_of_a_number_is_known_before_it_is_written() {
        for number in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
            let mut out = vec![];
            write_number(number, &mut out);
            assert_eq!(out.len(), number_bytes(number), "{number}");
        }
    }
}
