//! Whatever members say to each other: letters, answers, what a node keeps of its cluster, gossip, proofs. Nothing
//! panics, and what is read is spelled again as something that reads the same.

#![no_main]

use std::collections::BTreeSet;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sloop::protocol::ring::Layout;
use sloop::protocol::types::ClusterId;
use sloop::wire::Reader;
use sloop::wire::gossip::{decode_packet, encode_packet};
use sloop::wire::greet::{Claim, decode_accepted, decode_challenge};
use sloop::wire::members::{
    decode_letter, decode_letter_answer, encode_letter, encode_letter_answer, get_durable, put_durable,
};
use sloop::wire::proof::Secret;
use sloop::wire::ring::{get_map, put_map};

/// Bytes of the length in front of a message.
const LENGTH_BYTES: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let Some((&way, bytes)) = bytes.split_first() else { return };
    match way % 7 {
        0 => letter(bytes),
        1 => answer(bytes),
        2 => durable(bytes),
        3 => packet(bytes),
        4 => map(bytes),
        5 => {
            let _ = Claim::decode(bytes);
        }
        _ => {
            let _ = decode_challenge(bytes);
            let _ = decode_accepted(bytes);
        }
    }
});

fn letter(bytes: &[u8]) {
    let Ok(letter) = decode_letter(bytes) else { return };
    let mut again = BytesMut::new();
    encode_letter(&mut again, &letter);
    assert_eq!(decode_letter(&again[LENGTH_BYTES..]).expect("we wrote it"), letter);
}

fn answer(bytes: &[u8]) {
    let Ok(answer) = decode_letter_answer(bytes) else { return };
    let mut again = BytesMut::new();
    encode_letter_answer(&mut again, &answer);
    assert_eq!(decode_letter_answer(&again[LENGTH_BYTES..]).expect("we wrote it"), answer);
}

fn durable(bytes: &[u8]) {
    let Ok(durable) = get_durable(&mut Reader::new(bytes)) else { return };
    let mut again = BytesMut::new();
    put_durable(&mut again, &durable);
    assert_eq!(get_durable(&mut Reader::new(&again)).expect("we wrote it"), durable);
    durable.layout.iter().for_each(|layout| owners(layout));
}

/// A layout that was read can be asked who owns what.
fn owners(layout: &Layout) {
    let nodes: BTreeSet<_> = layout.rows().iter().map(|row| row.node).collect();
    assert_eq!(layout.loads().len(), nodes.len());
    let _ = layout.check(None);
}

/// From somebody who knows the secret: nobody else gets so far.
fn packet(said: &[u8]) {
    let (cluster, secret) = (ClusterId(7), Secret::new(b"secret"));
    let proven = [said, &secret.prove("gossip", &[said])].concat();
    let Ok(packet) = decode_packet(cluster, &proven, &secret) else { return };
    assert_eq!(encode_packet(cluster, &packet, &secret), proven);
}

fn map(bytes: &[u8]) {
    let Ok(map) = get_map(&mut Reader::new(bytes)) else { return };
    let mut again = BytesMut::new();
    put_map(&mut again, &map);
    assert_eq!(get_map(&mut Reader::new(&again)).expect("we wrote it"), map);
}
