//! What nodes ask each other is read back; what is cut, changed or too large is refused.

use std::sync::Arc;

use super::arbitrary::{question, told};
use super::*;
use crate::protocol::causality::{Siblings, Version};
use crate::protocol::io::Standing;
use crate::protocol::peer::{Ask, Merge, Refused, Told};
use crate::wire::peer::{
    AskTooLarge, PEER_BYTES_MAX, ask_bytes, decode_ask, decode_told, encode_misunderstood, encode_told,
};

fn told_frame(told: &Told) -> BytesMut {
    let mut out = BytesMut::new();
    encode_told(&mut out, CallId(7), told);
    out
}

/// As many versions of the largest value.
fn set_of(versions: u64) -> Arc<Siblings> {
    let dot = |counter| Dot { actor: ActorId(1), counter };
    let value = Value::new(vec![0; 10 * 1024 * 1024]).unwrap();
    let version = |counter| Version {
        dot: dot(counter),
        value: Some(value.clone()),
        written_at: WallTime(1),
        expires_at: None,
        operation: None,
    };
    Arc::new(Siblings::new([dot(versions)].into_iter().collect(), (1..=versions).map(version)).unwrap())
}

proptest! {
    #[test]
    fn an_ask_is_read_back_wherever_it_stands(question in question()) {
        let bytes = ask_frame(&question).freeze();
        prop_assert_eq!(decode_ask(Frame::borrowed(&bytes)), Ok(question.clone()));
        prop_assert_eq!(decode_ask(Frame::owned(&bytes)), Ok(question));
    }

    #[test]
    fn what_is_told_is_read_back_wherever_it_stands(told in told()) {
        let bytes = told_frame(&told).freeze();
        prop_assert_eq!(decode_told(Frame::borrowed(&bytes)), Ok(Ok(told.clone())));
        prop_assert_eq!(decode_told(Frame::owned(&bytes)), Ok(Ok(told)));
    }

    #[test]
    fn an_ask_is_measured_before_it_is_spelled(question in question()) {
        let (spelled, measured) = (ask_frame(&question).len(), ask_bytes(&question.ask));
        prop_assert!(spelled <= measured && measured <= spelled + 16, "{spelled} measured as {measured}");
    }

    #[test]
    fn a_changed_byte_between_nodes_is_never_a_panic(
        (question, told) in (question(), told()),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let change = |mut bytes: BytesMut| {
            let at = at.index(bytes.len());
            bytes[at] = to;
            bytes
        };
        let _ = heard(change(ask_frame(&question)), PEER_BYTES_MAX, decode_ask);
        let _ = heard(change(told_frame(&told)), PEER_BYTES_MAX, decode_told);
    }

    #[test]
    fn noise_between_nodes_is_never_a_panic(kind in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = only(frame_of(kind, &noise), decode_ask);
        let _ = only(frame_of(kind, &noise), decode_told);
    }

    #[test]
    fn a_call_is_no_ask_and_an_ask_is_no_call(question in question(), call in arbitrary::call()) {
        prop_assert!(only(ask_frame(&question), decode_call).is_err());
        prop_assert!(only(call_frame(&call), decode_ask).is_err());
    }
}

#[test]
fn a_listing_is_not_forwarded() {
    let question = Question {
        stand: Standing::default(),
        deadline_ms: 1,
        ask: Ask::Forward(Box::new(Request::Keys(crate::protocol::message::Keys {
            prefix: Bytes::new(),
            after: None,
            limit: 1,
        }))),
    };
    assert_eq!(only(ask_frame(&question), decode_ask), Err(WireError::Unknown { what: "kind in a forward", tag: 5 }));
}

#[test]
fn a_set_beyond_a_frame_is_refused_and_one_below_it_travels() {
    let merge = |set| Ask::Merge(Merge { key: key("a"), set, remember: vec![], stands_for: None });
    let fits = Question { stand: Standing::default(), deadline_ms: 1, ask: merge(set_of(6)) };
    assert_eq!(only(ask_frame(&fits), decode_ask), Ok(fits));

    let mut out = BytesMut::from(&b"before"[..]);
    let refused = encode_ask(&mut out, CallId(1), Standing::default(), 1, &merge(set_of(7)));
    assert!(matches!(refused, Err(AskTooLarge { bytes }) if PEER_BYTES_MAX < bytes));
    assert_eq!(&out[..], b"before");

    let heard = only(told_frame(&Told::Set(Some(set_of(7)))), decode_told);
    assert_eq!(heard, Ok(Ok(Told::Refused(Refused::Unreadable))));
}

#[test]
fn an_outcome_beyond_a_frame_becomes_a_failure() {
    let sibling = |counter| Sibling {
        dot: Dot { actor: ActorId(1), counter },
        value: Value::new(vec![0; 10 * 1024 * 1024]).unwrap(),
        written_at: WallTime(1),
    };
    let siblings = (1..=7).map(sibling).collect();
    let outcome: Outcome = Ok(Reply::Found(Found { siblings, context: Bytes::new(), level: Level::default() }));
    let heard = only(told_frame(&Told::Outcome(Box::new(outcome))), decode_told);
    assert!(matches!(heard, Ok(Ok(Told::Outcome(outcome))) if matches!(*outcome, Err(Failure::ReplyTooLarge { .. }))));
}

#[test]
fn who_is_not_understood_hears_why() {
    let failure = Failure::Malformed { reason: "kind of ask: unknown tag 47".to_owned() };
    let mut out = BytesMut::new();
    encode_misunderstood(&mut out, CallId(7), &failure);
    assert_eq!(only(out, decode_told), Ok(Err(failure)));
}
