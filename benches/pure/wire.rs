//! The network's bytes: what a core does for each call besides the call.

use bytes::{Bytes, BytesMut};
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use sloop::protocol::message::{
    Answer, Call, Causality, Found, Get, Level, Put, Reply, Request, Sibling, Terms, Written,
};
use sloop::protocol::types::WallTime;
use sloop::wire::frame::CALL_BYTES_MAX;
use sloop::wire::{CallId, Frame, decode_answer, decode_call, encode_answer, encode_call, next_frame};

use crate::samples::{VALUE_BYTES, dot, key, value};

/// Calls in one read of a busy connection.
const FRAMES: usize = 128;

const LEVEL: Level = Level { n: 1, quorum: 1, owners: 1, fallbacks: 0, hedged: false };

fn get() -> Call {
    Call::One(Request::Get(Get { key: key(17), terms: Terms::default() }))
}

fn put(bytes: usize) -> Call {
    let (key, value, terms) = (key(17), value(bytes), Terms::default());
    Call::One(Request::Put(Put { key, value, causality: Causality::Blind, operation: None, terms }))
}

fn found(bytes: usize) -> Answer {
    let sibling = Sibling { dot: dot(0, 7), value: value(bytes), written_at: WallTime(1_728_000_000_000) };
    let context = Bytes::from_static(&[7; 37]);
    Answer::One(Ok(Reply::Found(Found { siblings: vec![sibling], context, level: LEVEL })))
}

fn written() -> Answer {
    let (context, written_at) = (Bytes::from_static(&[7; 37]), WallTime(1_728_000_000_000));
    let superseded = [dot(0, 6)].into();
    let written = Written { dot: dot(0, 7), context, superseded, written_at, remembered: false, level: LEVEL };
    Answer::One(Ok(Reply::Written(written)))
}

fn spelt_call(call: &Call) -> Bytes {
    let mut out = BytesMut::new();
    encode_call(&mut out, CallId(7), call).unwrap();
    out.freeze()
}

fn spelt_answer(answer: &Answer) -> Bytes {
    let mut out = BytesMut::new();
    encode_answer(&mut out, CallId(7), answer);
    out.freeze()
}

/// What does it cost to find the frames of so many calls in what one read brought?
#[divan::bench]
fn split_frames(bencher: Bencher<'_, '_>) {
    let read: Vec<u8> = (0..FRAMES).flat_map(|_| spelt_call(&put(256)).to_vec()).collect();
    let counted = bencher.counter(ItemsCount::new(FRAMES)).with_inputs(|| BytesMut::from(&read[..]));
    counted.bench_local_refs(|read| {
        while let Some(id) = next_frame(read, CALL_BYTES_MAX, |frame| black_box(frame).id).unwrap() {
            black_box(id);
        }
    });
}

/// What does it cost to read a get?
#[divan::bench]
fn decode_get(bencher: Bencher<'_, '_>) {
    let spelt = spelt_call(&get());
    bencher.bench_local(|| decode_call(Frame::owned(black_box(&spelt))).unwrap());
}

/// And a put of so many bytes?
#[divan::bench(args = VALUE_BYTES)]
fn decode_put(bencher: Bencher<'_, '_>, bytes: usize) {
    let spelt = spelt_call(&put(bytes));
    let counted = bencher.counter(BytesCount::new(bytes));
    counted.bench_local(|| decode_call(Frame::owned(black_box(&spelt))).unwrap());
}

/// What does it cost a client to spell a get?
#[divan::bench]
fn encode_get(bencher: Bencher<'_, '_>) {
    let call = get();
    bencher.with_inputs(|| BytesMut::with_capacity(256)).bench_local_refs(|out| encode_call(out, CallId(7), &call));
}

/// And a put of so many bytes?
#[divan::bench(args = VALUE_BYTES)]
fn encode_put(bencher: Bencher<'_, '_>, bytes: usize) {
    let call = put(bytes);
    let out = || BytesMut::with_capacity(bytes + 256);
    let spelling = bencher.counter(BytesCount::new(bytes)).with_inputs(out);
    spelling.bench_local_refs(|out| encode_call(out, CallId(7), &call));
}

/// What does it cost to spell the answer to a get of so many bytes?
#[divan::bench(args = VALUE_BYTES)]
fn encode_found(bencher: Bencher<'_, '_>, bytes: usize) {
    let answer = found(bytes);
    let out = || BytesMut::with_capacity(bytes + 256);
    let spelling = bencher.counter(BytesCount::new(bytes)).with_inputs(out);
    spelling.bench_local_refs(|out| encode_answer(out, CallId(7), &answer));
}

/// And the answer to a put?
#[divan::bench]
fn encode_written(bencher: Bencher<'_, '_>) {
    let answer = written();
    bencher.with_inputs(|| BytesMut::with_capacity(256)).bench_local_refs(|out| encode_answer(out, CallId(7), &answer));
}

/// What does it cost a client to read the answer to a get of so many bytes?
#[divan::bench(args = VALUE_BYTES)]
fn decode_found(bencher: Bencher<'_, '_>, bytes: usize) {
    let spelt = spelt_answer(&found(bytes));
    let counted = bencher.counter(BytesCount::new(bytes));
    counted.bench_local(|| decode_answer(Frame::owned(black_box(&spelt))).unwrap());
}

/// And the answer to a put?
#[divan::bench]
fn decode_written(bencher: Bencher<'_, '_>) {
    let spelt = spelt_answer(&written());
    bencher.bench_local(|| decode_answer(Frame::owned(black_box(&spelt))).unwrap());
}
