//! What is spelled is read back; what is cut, changed or too long is refused; and the bytes never change.

mod arbitrary;
mod golden;
mod peers;

use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use self::arbitrary::{answer, call, failure, greeting, hello, remembered, set, update};
use super::answer::{decode_answer, encode_answer};
use super::call::{decode_call, encode_call};
use super::frame::{ANSWER_BYTES_MAX, CALL_BYTES_MAX, CallId, Frame, frame_bytes, next_frame, put_frame, reserve_rest};
use super::glance::{Glance, glance};
use super::hello::{GREETING_BYTES_MAX, HELLO_BYTES_MAX, Hello, decode_greeting, encode_greeting};
use super::peer::{Question, encode_ask};
use super::reader::{Reader, Result, WireError};
use super::sets::{decode_set, encode_set, get_remembered, get_set, get_update, put_remembered, put_set, put_update};
use crate::protocol::message::{
    Answer, Call, Causality, Failure, Found, Get, Level, Outcome, Put, Reply, Request, Sibling, Terms,
};
use crate::protocol::types::{ActorId, Dot, Key, Value, WallTime};

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// What all whole frames at the front of `bytes` say.
fn heard<T>(mut bytes: BytesMut, max: usize, decode: impl Fn(Frame<'_>) -> Result<T>) -> Result<Vec<Result<T>>> {
    let mut heard = Vec::new();
    while let Some(one) = next_frame(&mut bytes, max, &decode)? {
        heard.push(one);
    }
    Ok(heard)
}

/// What the only frame in `bytes` says.
fn only<T>(bytes: BytesMut, decode: impl Fn(Frame<'_>) -> Result<T>) -> Result<T> {
    let mut all = heard(bytes, ANSWER_BYTES_MAX, decode).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// A frame of any kind around any body.
fn frame_of(kind: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    put_frame(&mut out, CallId(1), kind, |out| out.put_slice(body));
    out
}

fn call_frame(call: &Call) -> BytesMut {
    let mut out = BytesMut::new();
    encode_call(&mut out, CallId(7), call).unwrap();
    out
}

fn answer_frame(answer: &Answer) -> BytesMut {
    let mut out = BytesMut::new();
    encode_answer(&mut out, CallId(7), answer);
    out
}

fn ask_frame(question: &Question) -> BytesMut {
    let mut out = BytesMut::new();
    encode_ask(&mut out, CallId(7), question.stand, question.deadline_ms, &question.ask).unwrap();
    out
}

fn get(name: &str) -> Request {
    Request::Get(Get { key: key(name), terms: Terms::default() })
}

fn put(name: &str, value: Vec<u8>) -> Request {
    Request::Put(Put {
        key: key(name),
        value: Value::new(value).unwrap(),
        causality: Causality::Blind,
        operation: None,
        terms: Terms::default(),
    })
}

fn found(bytes: usize) -> Outcome {
    let sibling = |counter| Sibling {
        dot: Dot { actor: ActorId(1), counter },
        value: Value::new(vec![0; bytes]).unwrap(),
        written_at: WallTime(1),
    };
    Ok(Reply::Found(Found { siblings: vec![sibling(1)], context: Bytes::new(), level: Level::default() }))
}

proptest! {
    #[test]
    fn a_hello_is_read_back(hello in hello(), behind in any::<[u8; 3]>()) {
        let mut out = BytesMut::new();
        hello.encode(&mut out);
        prop_assert!(out.len() <= HELLO_BYTES_MAX);
        let taken = out.len();
        out.put_slice(&behind);
        prop_assert_eq!(Hello::decode(&out), Ok(Some((hello, taken))));
    }

    #[test]
    fn a_greeting_is_read_back(greeting in greeting()) {
        let mut out = BytesMut::new();
        encode_greeting(&mut out, &greeting);
        prop_assert!(out.len() <= GREETING_BYTES_MAX);
        prop_assert_eq!(decode_greeting(&out), Ok(Some((greeting, out.len()))));
    }

    #[test]
    fn a_call_is_read_back(call in call()) {
        prop_assert_eq!(only(call_frame(&call), decode_call), Ok(call));
    }

    #[test]
    fn a_frame_says_the_same_wherever_it_stands(call in call(), answer in answer()) {
        let (asked, said) = (call_frame(&call).freeze(), answer_frame(&answer).freeze());
        prop_assert_eq!(decode_call(Frame::borrowed(&asked)), decode_call(Frame::owned(&asked)));
        prop_assert_eq!(decode_answer(Frame::borrowed(&said)), decode_answer(Frame::owned(&said)));
    }

    #[test]
    fn an_answer_is_read_back(answer in answer()) {
        prop_assert_eq!(only(answer_frame(&answer), decode_answer), Ok(answer));
    }

    #[test]
    fn a_glance_sees_what_an_answer_says(answer in answer(), behind in any::<[u8; 3]>()) {
        let mut bytes = answer_frame(&answer);
        let total = bytes.len();
        bytes.put_slice(&behind);
        let (id, seen, taken) = glance(&bytes).unwrap().unwrap();
        prop_assert_eq!((id, taken), (CallId(7), total));
        match &answer {
            Answer::One(Ok(Reply::Found(found))) => {
                let siblings = found.siblings.len() as u32;
                prop_assert_eq!(seen, Glance::Found { siblings, context: &found.context[..] });
            }
            Answer::One(Ok(Reply::Written(_))) => prop_assert_eq!(seen, Glance::Written),
            Answer::One(Err(failure)) => prop_assert_eq!(seen, Glance::Failed(failure.clone())),
            _ => prop_assert!(matches!(seen, Glance::Other { .. }), "another answer"),
        }
        prop_assert_eq!(glance(&bytes[..total - 1]), Ok(None));
    }

    #[test]
    fn a_set_is_read_back(set in set()) {
        let bytes = encode_set(&set);
        prop_assert_eq!(decode_set(&bytes), Ok(set));
    }

    #[test]
    fn an_update_is_read_back(update in update()) {
        let mut out = BytesMut::new();
        put_update(&mut out, update.borrowed());
        let mut reader = Reader::new(&out);
        prop_assert_eq!(get_update(&mut reader), Ok(update));
        prop_assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_read_back(remembered in remembered()) {
        let mut out = BytesMut::new();
        put_remembered(&mut out, &remembered);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(get_remembered(&mut reader), Ok(remembered));
        prop_assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn frames_are_the_same_however_the_bytes_arrive(
        calls in prop::collection::vec(call(), 1..5),
        pieces in prop::collection::vec(1..40_000_usize, 1..9),
    ) {
        let mut whole = BytesMut::new();
        for (n, call) in calls.iter().enumerate() {
            encode_call(&mut whole, CallId(n as u64), call).unwrap();
        }

        let mut buffer = BytesMut::new();
        let mut heard = Vec::new();
        let mut pieces = pieces.into_iter().cycle();
        while !whole.is_empty() {
            let piece = whole.split_to(pieces.next().unwrap().min(whole.len()));
            buffer.put_slice(&piece);
            let read = |frame: Frame<'_>| (frame.id, decode_call(frame).unwrap());
            while let Some((id, call)) = next_frame(&mut buffer, CALL_BYTES_MAX, read).unwrap() {
                prop_assert_eq!(id, CallId(heard.len() as u64));
                heard.push(call);
            }
        }
        prop_assert!(buffer.is_empty());
        prop_assert_eq!(heard, calls);
    }

    #[test]
    fn a_changed_byte_is_never_a_panic(
        (call, answer, set) in (call(), answer(), set()),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let change = |mut bytes: BytesMut| {
            let at = at.index(bytes.len());
            bytes[at] = to;
            bytes
        };
        let _ = heard(change(call_frame(&call)), CALL_BYTES_MAX, decode_call);
        let _ = heard(change(answer_frame(&answer)), ANSWER_BYTES_MAX, decode_answer);
        let mut out = BytesMut::new();
        put_set(&mut out, &set);
        let _ = get_set(&mut Reader::new(&change(out)));
    }

    #[test]
    fn noise_is_never_a_panic(kind in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = only(frame_of(kind, &noise), decode_call);
        let _ = only(frame_of(kind, &noise), decode_answer);
        let _ = Hello::decode(&noise);
        let _ = decode_greeting(&noise);
        let _ = get_set(&mut Reader::new(&noise));
        let _ = get_update(&mut Reader::new(&noise));
        let _ = get_remembered(&mut Reader::new(&noise));
    }

    #[test]
    fn a_failure_says_the_same_sentence_on_the_other_side(failure in failure()) {
        let sentence = failure.to_string();
        match only(answer_frame(&Answer::One(Err(failure))), decode_answer) {
            Ok(Answer::One(Err(heard))) => prop_assert_eq!(heard.to_string(), sentence),
            other => prop_assert!(false, "{other:?}"),
        }
    }
}

#[test]
fn a_stranger_is_told_by_its_first_byte() {
    assert_eq!(Hello::decode(b""), Ok(None));
    assert_eq!(Hello::decode(b"SL"), Ok(None));
    let refused = Hello::decode(b"GET / HTTP/1.1\r\n").unwrap_err();
    assert_eq!(refused, WireError::Foreign { found: *b"GET " });
    assert_eq!(Hello::decode(b"G"), Err(WireError::Foreign { found: [b'G', 0, 0, 0] }));
}

#[test]
fn a_hello_beyond_its_bound_is_refused_by_its_length_alone() {
    let refused = Hello::decode(b"SLOP\xff\xff").unwrap_err();
    let expected = WireError::TooLong { what: "hello", found: 65_541, max: HELLO_BYTES_MAX };
    assert_eq!(refused, expected);
}

#[test]
fn a_later_version_may_say_more_in_its_hello() {
    let mut out = BytesMut::new();
    golden::plain_hello().encode(&mut out);
    out.put_slice(b"more to come");
    let length = u16::try_from(out.len() - 6).unwrap();
    out[4..6].copy_from_slice(&length.to_le_bytes());

    assert_eq!(Hello::decode(&out), Ok(Some((golden::plain_hello(), out.len()))));
}

#[test]
fn the_highest_common_version_is_spoken() {
    use super::hello::Versions;
    let ours = Versions { min: 2, max: 5 };
    assert_eq!(ours.common(Versions { min: 1, max: 3 }), Some(3));
    assert_eq!(ours.common(Versions { min: 5, max: 9 }), Some(5));
    assert_eq!(ours.common(Versions { min: 6, max: 9 }), None);
    assert_eq!(ours.common(Versions { min: 0, max: 1 }), None);
}

#[test]
fn a_token_is_not_shown_by_debug() {
    let hello = Hello { token: super::hello::Token::new("secret").unwrap(), ..golden::plain_hello() };
    assert!(!format!("{hello:?}").contains("secret"));
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_anything_is_allocated() {
    let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 1, 2, 3][..]);
    let before = buffer.capacity();
    let refused = next_frame(&mut buffer, CALL_BYTES_MAX, |_| ()).unwrap_err();
    let expected = WireError::TooLong { what: "frame", found: u32::MAX as usize, max: CALL_BYTES_MAX };
    assert_eq!(refused, expected);
    assert_eq!(buffer.capacity(), before);
}

#[test]
fn a_frame_without_room_for_its_head_is_refused() {
    let mut buffer = BytesMut::from(&8_u32.to_le_bytes()[..]);
    assert!(matches!(next_frame(&mut buffer, 100, |_| ()), Err(WireError::Truncated { .. })));
}

/// A count promises things that take at least some bytes each: it is held against the bytes that are there.
#[test]
fn a_count_is_checked_against_what_is_there() {
    for (kind, body) in [
        (0x06, 1_024_u32.to_le_bytes().to_vec()),
        (0x81, [&[0; 5][..], &[0; 4], &6_400_u32.to_le_bytes()].concat()),
        (0x84, [&[0; 4][..], &6_400_u32.to_le_bytes()].concat()),
        (0x85, [&[0][..], &1_000_u32.to_le_bytes()].concat()),
    ] {
        let frame = frame_of(kind, &body);
        let refused =
            if kind < 0x80 { only(frame, decode_call).map(drop) } else { only(frame, decode_answer).map(drop) };
        assert!(matches!(refused, Err(WireError::Truncated { .. })), "{kind:#x}: {refused:?}");
    }
}

#[test]
fn a_key_value_or_id_out_of_bounds_is_named_in_the_refusal() {
    let empty_key = [&[0, 0][..], &[0; 6]].concat();
    let long_key = [&1_025_u16.to_le_bytes()[..], &[b'k'; 1_025], &[0; 6]].concat();
    let long_value =
        [&[1, 0, b'k'][..], &[0; 6], &[0], &[0, 0], &10_485_761_u32.to_le_bytes(), &vec![0; 10_485_761]].concat();
    for (kind, body, sentence) in [
        (0x01, empty_key, "key has 0 bytes, allowed are 1 to 1024"),
        (0x01, long_key, "key has 1025 bytes, allowed are 1 to 1024"),
        (0x02, long_value, "value has 10485761 bytes, allowed are 0 to 10485760"),
    ] {
        let failure = Failure::from(only(frame_of(kind, &body), decode_call).unwrap_err());
        assert!(matches!(failure, Failure::Length(_)));
        assert_eq!(failure.to_string(), sentence);
    }
}

#[test]
fn only_get_and_put_may_stand_in_a_batch() {
    let refused = only(call_frame(&Call::Many(vec![Request::Siblings(key("a long key")); 2])), decode_call);
    let expected = WireError::Unknown { what: "kind in a batch", tag: 4 };
    assert_eq!(refused, Err(expected));
}

#[test]
fn a_call_beyond_a_frame_is_refused_and_leaves_nothing_behind() {
    let mut out = BytesMut::from(&b"before"[..]);
    let call = Call::Many(vec![put("a", vec![0; 9_000_000]); 2]);
    let refused = encode_call(&mut out, CallId(1), &call).unwrap_err();
    assert_eq!(refused.bytes, 13 + 4 + 2 * (1 + 3 + 6 + 1 + 2 + 4 + 9_000_000));
    assert_eq!(&out[..], b"before");
}

#[test]
fn a_largest_value_fits_in_a_call_and_in_an_answer() {
    let call = Call::One(put(&"k".repeat(1_024), vec![7; 10 * 1024 * 1024]));
    assert_eq!(only(call_frame(&call), decode_call), Ok(call));
    let answer = Answer::One(found(10 * 1024 * 1024));
    assert_eq!(only(answer_frame(&answer), decode_answer), Ok(answer));
}

#[test]
fn a_reply_beyond_a_frame_becomes_a_failure_in_its_place_and_its_neighbours_are_heard() {
    let outcomes = [vec![found(10 * 1024 * 1024); 8], vec![found(10)]].concat();
    let Ok(Answer::Many(heard)) = only(answer_frame(&Answer::Many(outcomes)), decode_answer) else {
        panic!("a batch is answered by a batch");
    };
    let fits: Vec<bool> = heard.iter().map(|outcome| outcome.is_ok()).collect();
    assert_eq!(fits, [true, true, true, true, true, true, false, false, true]);
    let refused =
        Err(Failure::ReplyTooLarge { bytes: 5 + 4 + 4 + 28 + 10 * 1024 * 1024, max: ANSWER_BYTES_MAX as u64 });
    assert_eq!(heard[6], refused);
}

fn value_of(call: Result<Call>) -> Value {
    match call {
        Ok(Call::One(Request::Put(put))) => put.value,
        other => panic!("a put is a put: {other:?}"),
    }
}

#[test]
fn a_small_frame_does_not_keep_the_receive_buffer_alive() {
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    buffer.put_slice(&call_frame(&Call::One(put("a", vec![0; 100]))));
    let start = buffer.as_ptr();

    let value = value_of(next_frame(&mut buffer, CALL_BYTES_MAX, decode_call).unwrap().unwrap());
    buffer.reserve(64 * 1024);
    assert_eq!(buffer.as_ptr(), start, "the buffer is free to be used again while the value lives");
    assert_eq!(value.len(), 100);
}

#[test]
fn a_large_frame_is_taken_where_it_stands() {
    let call = Call::One(put("a", vec![0; 1_000_000]));
    let mut whole = call_frame(&call);
    let next = call_frame(&Call::Ping);
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    buffer.put_slice(&whole.split_to(60_000));
    assert_eq!(next_frame(&mut buffer, CALL_BYTES_MAX, |_| ()), Ok(None));
    reserve_rest(&mut buffer, CALL_BYTES_MAX).unwrap();
    assert!(1_000_000 < buffer.capacity(), "there is room for the rest at once");
    let start = buffer.as_ptr();
    buffer.put_slice(&whole);
    assert_eq!(buffer.as_ptr(), start, "it is not moved while it comes");
    buffer.put_slice(&next);
    let frame = buffer.as_ptr_range();

    let value = value_of(next_frame(&mut buffer, CALL_BYTES_MAX, decode_call).unwrap().unwrap());
    assert!(frame.contains(&value.as_bytes().as_ptr()), "the value is not copied");
    assert!(buffer.capacity() < 1_000, "what stands behind it does not keep its memory");
    assert_eq!(next_frame(&mut buffer, CALL_BYTES_MAX, decode_call), Ok(Some(Ok(Call::Ping))));
}

/// What is kept is a copy of its own unless it is large, makes up half of its frame, and the frame may be shared.
#[test]
fn nothing_that_is_kept_holds_more_than_twice_its_size() {
    let is_copied = |values: &[usize]| {
        let puts: Vec<Request> = values.iter().map(|&bytes| put("a", vec![0; bytes])).collect();
        let frame = call_frame(&Call::Many(puts)).freeze();
        let Ok(Call::Many(requests)) = decode_call(Frame::owned(&frame)) else { panic!("a batch is a batch") };
        let is_copied = |request: Request| {
            let value = value_of(Ok(Call::One(request)));
            !frame.as_ptr_range().contains(&value.as_bytes().as_ptr())
        };
        requests.into_iter().map(is_copied).collect::<Vec<_>>()
    };
    assert_eq!(is_copied(&[16_384]), [true]);
    assert_eq!(is_copied(&[17_000]), [false]);
    assert_eq!(is_copied(&[100_000, 17_000]), [false, true]);
    assert_eq!(is_copied(&[30_000, 30_000, 30_000]), [true; 3]);
}

#[test]
fn a_frame_is_measured_by_its_length_alone() {
    let frame = call_frame(&Call::One(get("key")));
    assert_eq!(frame_bytes(&frame[..3], CALL_BYTES_MAX), Ok(None));
    assert_eq!(frame_bytes(&frame[..4], CALL_BYTES_MAX), Ok(Some(frame.len())));
    assert!(frame_bytes(&frame, frame.len() - 5).is_err(), "the bound is on the length, without its own four bytes");
}

#[test]
fn a_reply_is_written_into_the_room_that_was_made_for_it() {
    let answer = Answer::One(found(1_000));
    let mut out = BytesMut::with_capacity(2_000);
    let start = out.as_ptr();
    encode_answer(&mut out, CallId(1), &answer);
    assert_eq!(out.as_ptr(), start);
    assert_eq!(out.len(), 13 + 5 + 4 + 4 + 28 + 1_000);
}

#[test]
fn a_code_of_a_newer_node_keeps_its_hundreds_and_its_sentence() {
    let newer = Failure::Other { code: 250, first: 1, second: 2, text: "the moon is full".to_owned() };
    let answer = Answer::One(Err(newer));
    assert_eq!(only(answer_frame(&answer), decode_answer), Ok(answer));
}

#[test]
fn a_long_sentence_is_cut_between_two_characters() {
    let failure = Failure::Malformed { reason: "ü".repeat(400) };
    let answer = Answer::One(Err(failure));
    let expected = Failure::Malformed { reason: "ü".repeat(256) };
    assert_eq!(only(answer_frame(&answer), decode_answer), Ok(Answer::One(Err(expected))));
}

#[test]
fn a_glance_refuses_what_is_cut_or_too_long() {
    let whole = answer_frame(&Answer::One(found(10)));
    let body_of = |bytes: &[u8]| {
        let mut frame = BytesMut::new();
        put_frame(&mut frame, CallId(1), 0x81, |out| out.put_slice(bytes));
        frame
    };
    for cut in 0..13 {
        assert!(matches!(glance(&body_of(&whole[13..13 + cut])), Err(WireError::Truncated { .. })), "{cut}");
    }
    let long = glance(&body_of(&[0, 0, 0, 0, 0, 255, 255, 255, 255])).map(|_| ());
    assert!(matches!(long, Err(WireError::TooLong { what: "context", .. })), "{long:?}");
    assert!(matches!(glance(&[255; 4]), Err(WireError::TooLong { what: "frame", .. })));
}

#[test]
fn a_get_is_21_bytes_around_its_key() {
    assert_eq!(call_frame(&Call::One(get("key"))).len(), 13 + 2 + 3 + 6);
}
