//! Whatever comes over a connection: a handshake, calls and answers, from a stranger or a peer. Nothing panics, and
//! what is read is spelled again as something that reads the same.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sloop::wire::frame::{ANSWER_BYTES_MAX, CALL_BYTES_MAX, Frame};
use sloop::wire::hello::decode_greeting;
use sloop::wire::peer::{PEER_BYTES_MAX, decode_ask, decode_told, encode_ask, encode_misunderstood, encode_told};
use sloop::wire::{Hello, decode_answer, decode_call, encode_answer, encode_call, frame_bytes, glance, next_frame};

fuzz_target!(|bytes: &[u8]| {
    let Some((&way, bytes)) = bytes.split_first() else { return };
    match way % 6 {
        0 => {
            let _ = decode_greeting(bytes);
        }
        1 => hello(bytes),
        2 => frames(bytes, CALL_BYTES_MAX, call),
        3 => {
            glances(bytes);
            frames(bytes, ANSWER_BYTES_MAX, answer);
        }
        4 => frames(bytes, PEER_BYTES_MAX, ask),
        _ => frames(bytes, PEER_BYTES_MAX, told),
    }
});

/// A glance ends where the frame does.
fn glances(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((_id, _glance, taken))) = glance(rest) {
        rest = &rest[taken..];
    }
}

fn hello(bytes: &[u8]) {
    let Ok(Some((hello, taken))) = Hello::decode(bytes) else { return };
    assert!(taken <= bytes.len());
    let mut again = BytesMut::new();
    hello.encode(&mut again);
    let (read, all) = Hello::decode(&again).expect("we wrote it").expect("all of it is there");
    assert_eq!((read, all), (hello, again.len()));
}

/// In two pieces, as a network may deliver them.
fn frames(bytes: &[u8], max: usize, mut read: impl FnMut(Frame<'_>)) {
    let (early, late) = bytes.split_at(bytes.len() / 2);
    let mut buffer = BytesMut::from(early);
    for late in [late, &[]] {
        while let Ok(Some(())) = next_frame(&mut buffer, max, &mut read) {}
        buffer.extend_from_slice(late);
    }
}

fn call(frame: Frame<'_>) {
    let id = frame.id;
    let Ok(call) = decode_call(frame) else { return };
    let mut again = BytesMut::new();
    if encode_call(&mut again, id, &call).is_ok() {
        let again = again.freeze();
        assert_eq!(frame_bytes(&again, CALL_BYTES_MAX).expect("we wrote it"), Some(again.len()));
        assert_eq!(decode_call(Frame::borrowed(&again)).expect("we wrote it"), call);
        assert_eq!(decode_call(Frame::owned(&again)).expect("we wrote it"), call);
    }
}

fn answer(frame: Frame<'_>) {
    let id = frame.id;
    let Ok(answer) = decode_answer(frame) else { return };
    let mut again = BytesMut::new();
    encode_answer(&mut again, id, &answer);
    let again = again.freeze();
    assert_eq!(frame_bytes(&again, ANSWER_BYTES_MAX).expect("we wrote it"), Some(again.len()));
    assert_eq!(decode_answer(Frame::borrowed(&again)).expect("we wrote it"), answer);
    assert_eq!(decode_answer(Frame::owned(&again)).expect("we wrote it"), answer);
}

fn ask(frame: Frame<'_>) {
    let id = frame.id;
    let Ok(question) = decode_ask(frame) else { return };
    let mut again = BytesMut::new();
    if encode_ask(&mut again, id, question.stand, question.deadline_ms, &question.ask).is_ok() {
        let again = again.freeze();
        assert_eq!(decode_ask(Frame::borrowed(&again)).expect("we wrote it"), question);
        assert_eq!(decode_ask(Frame::owned(&again)).expect("we wrote it"), question);
    }
}

fn told(frame: Frame<'_>) {
    let id = frame.id;
    let Ok(told) = decode_told(frame) else { return };
    let mut again = BytesMut::new();
    match &told {
        Ok(told) => encode_told(&mut again, id, told),
        Err(failure) => encode_misunderstood(&mut again, id, failure),
    }
    let again = again.freeze();
    assert_eq!(decode_told(Frame::borrowed(&again)).expect("we wrote it"), told);
    assert_eq!(decode_told(Frame::owned(&again)).expect("we wrote it"), told);
}
