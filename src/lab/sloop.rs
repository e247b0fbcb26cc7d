//! Our own binary protocol (docs/PROTOCOL.md), as `wire` spells it.
//!
//! A request differs from the one before it in its id, key, value and context, and as a rule in no length. So each kind
//! is spelled once, and from then on copied and overwritten in these places.

use bytes::{Bytes, BytesMut};

use super::dialect::{Ask, Dialect, Heard, Opening, Outcome, Refusal, Said, Slot};
use super::workload::KEY_BYTES;
use crate::protocol::message::{Answer, Call, Causality, Failure, Get, Put, Reply, Request, Sibling, Terms};
use crate::protocol::types::{Key, Value};
use crate::verify::{self, Shown};
use crate::wire::hello::{Features, Hello, Kind, Token, VERSIONS, decode_greeting};
use crate::wire::{CallId, Frame, Glance, WireError, decode_answer, encode_call, glance};

/// One connection to a node.
#[derive(Clone, Debug)]
pub struct Sloop {
    token: Token,
    welcomed: bool,
    get: Template,
    put: Template,
    put_with_context: Template,
}

impl Sloop {
    /// For a node that `token` guards; an empty one is none.
    pub fn new(token: Token) -> Sloop {
        Sloop {
            token,
            welcomed: false,
            get: Template::get(),
            put: Template::put(None, 0),
            put_with_context: Template::put(Some(0), 0),
        }
    }
}

impl Dialect for Sloop {
    const NAMES_VERSIONS: bool = true;

    fn open(&mut self, out: &mut Vec<u8>) -> Opening {
        self.welcomed = false;
        let hello = Hello {
            versions: VERSIONS,
            features: Features::default(),
            kind: Kind::Client,
            core: None,
            token: self.token.clone(),
        };
        let mut spelled = BytesMut::new();
        hello.encode(&mut spelled);
        out.extend_from_slice(&spelled);
        Opening::Greeting
    }

    fn ask(&mut self, slot: Slot, ask: Ask<'_>, out: &mut Vec<u8>) {
        match ask {
            Ask::Get { key } => self.get.write(slot, key, &[], &[], out),
            Ask::Put { key, value, context: None } => {
                self.put.written(None, value.len()).write(slot, key, &[], value, out)
            }
            Ask::Put { key, value, context: Some(context) } => {
                let template = self.put_with_context.written(Some(context.len()), value.len());
                template.write(slot, key, context, value, out);
            }
        }
    }

    fn hear<'a>(&mut self, from: &'a [u8], _out: &mut Vec<u8>) -> Result<Option<Heard<'a>>, Refusal> {
        if !self.welcomed {
            return self.hear_greeting(from);
        }
        let Some((id, glance, bytes)) = glance(from).map_err(malformed)? else {
            return Ok(None);
        };
        let outcome = match glance {
            Glance::Found { siblings: 0, .. } => Outcome::Absent,
            Glance::Found { context, .. } => Outcome::Found { context },
            Glance::Written => Outcome::Written,
            Glance::Failed(failure) if id == CallId::NONE => return Err(refusal(&failure)),
            Glance::Failed(failure) => Outcome::Refused(refusal(&failure)),
            Glance::Other { kind } => return Err(unexpected(format!("an answer of kind {kind:#04x}"))),
        };
        let slot =
            u16::try_from(id.0.wrapping_sub(1)).map_err(|_| unexpected(format!("an answer to call {}", id.0)))?;
        Ok(Some(Heard { bytes, said: Said::Answer { slot: Slot(slot), outcome } }))
    }

    fn told(&self, answer: &[u8]) -> verify::Outcome {
        match decode_answer(Frame::borrowed(answer)) {
            Ok(Answer::One(Ok(Reply::Found(found)))) => {
                let shown = |one: Sibling| Shown { dot: one.dot, value: Some(one.value) };
                let versions = found.siblings.into_iter().map(shown).collect();
                verify::Outcome::Shown { versions, tombstones: false, level: found.level.into() }
            }
            Ok(Answer::One(Ok(Reply::Written(written)))) => verify::Outcome::Written {
                dot: written.dot,
                superseded: written.superseded.to_vec(),
                level: written.level.into(),
                retried: written.remembered,
            },
            Ok(Answer::One(Err(failure))) if !failure.may_have_written() => verify::Outcome::Refused,
            Ok(_) | Err(_) => verify::Outcome::Unknown,
        }
    }
}

impl Sloop {
    fn hear_greeting<'a>(&mut self, from: &'a [u8]) -> Result<Option<Heard<'a>>, Refusal> {
        match decode_greeting(from).map_err(malformed)? {
            None => Ok(None),
            Some((Ok(_welcome), bytes)) => {
                self.welcomed = true;
                Ok(Some(Heard { bytes, said: Said::Ready }))
            }
            Some((Err(failure), _)) => Err(refusal(&failure)),
        }
    }
}

/// A frame with empty places in it.
#[derive(Clone, Debug)]
struct Template {
    frame: Vec<u8>,
    context_bytes: usize,
    value_bytes: usize,
}

/// Behind the length.
const ID_AT: usize = 4;

/// Behind the frame's head and the key's length.
const KEY_AT: usize = ID_AT + 8 + 1 + 2;

/// Of a put with a context: behind the key, the terms, the causality's tag and the context's length.
const CONTEXT_AT: usize = KEY_AT + KEY_BYTES + 6 + 1 + 4;

impl Template {
    fn get() -> Template {
        Template::spell(Request::Get(Get { key: no_key(), terms: Terms::default() }), 0, 0)
    }

    fn put(context_bytes: Option<usize>, value_bytes: usize) -> Template {
        let causality = match context_bytes {
            None => Causality::Blind,
            Some(length) => Causality::Context(Bytes::from(vec![0; length])),
        };
        let value = Value::new(vec![0; value_bytes]).expect("whoever asks has checked the length");
        let put = Put { key: no_key(), value, causality, operation: None, terms: Terms::default() };
        Template::spell(Request::Put(put), context_bytes.unwrap_or(0), value_bytes)
    }

    fn spell(request: Request, context_bytes: usize, value_bytes: usize) -> Template {
        let mut frame = BytesMut::new();
        let spelled = encode_call(&mut frame, CallId::NONE, &Call::One(request));
        spelled.expect("a key, a value and a context that a node gave out fit in a frame");
        Template { frame: frame.to_vec(), context_bytes, value_bytes }
    }

    /// This one, spelled anew where lengths have changed.
    fn written(&mut self, context_bytes: Option<usize>, value_bytes: usize) -> &Template {
        if (self.context_bytes, self.value_bytes) != (context_bytes.unwrap_or(0), value_bytes) {
            *self = Template::put(context_bytes, value_bytes);
        }
        self
    }

    fn write(&self, slot: Slot, key: &[u8; KEY_BYTES], context: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame[..self.frame.len() - value.len()]);
        out.extend_from_slice(value);
        let frame = &mut out[start..];
        frame[ID_AT..ID_AT + 8].copy_from_slice(&(u64::from(slot.0) + 1).to_le_bytes());
        frame[KEY_AT..KEY_AT + KEY_BYTES].copy_from_slice(key);
        if !context.is_empty() {
            frame[CONTEXT_AT..CONTEXT_AT + context.len()].copy_from_slice(context);
        }
    }
}

fn no_key() -> Key {
    Key::new(vec![0; KEY_BYTES]).expect("a length within its bounds")
}

fn malformed(error: WireError) -> Refusal {
    Refusal { kind: "malformed answer", message: error.to_string(), passes: false }
}

fn unexpected(what: String) -> Refusal {
    Refusal { kind: "malformed answer", message: format!("{what}, which nobody asked for"), passes: false }
}

fn refusal(failure: &Failure) -> Refusal {
    let kind = match failure {
        Failure::Malformed { .. } => "malformed request",
        Failure::Length(_) => "length",
        Failure::Context(_) => "context",
        Failure::SetLimit(_) => "set limit",
        Failure::OperationReused => "operation reused",
        Failure::QuorumImpossible { .. } => "quorum impossible",
        Failure::QuorumNotMet { .. } => "quorum not met",
        Failure::Overloaded { .. } => "overloaded",
        Failure::DiskFull => "disk full",
        Failure::WritesStopped { .. } => "writes stopped",
        Failure::Unreadable { .. } => "unreadable",
        Failure::ReplyTooLarge { .. } => "reply too large",
        Failure::Stopping => "stopping",
        Failure::Unauthorized => "unauthorized",
        Failure::Version { .. } => "version",
        Failure::Connections { .. } => "too many connections",
        Failure::Other { .. } => "other",
    };
    Refusal { kind, message: failure.to_string(), passes: matches!(failure, Failure::Overloaded { .. }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smallvec::SmallVec;

    use super::*;
    use crate::protocol::message::{Found, Level, Written};
    use crate::protocol::types::{ActorId, ClusterId, CoreId, Dot, WallTime};
    use crate::wire::hello::{Limits, Welcome, encode_greeting};
    use crate::wire::{Frame, decode_call, encode_answer, next_frame};

    const DOT: Dot = Dot { actor: ActorId(1), counter: 2 };

    fn welcomed() -> Sloop {
        let mut sloop = Sloop::new(Token::default());
        let greeting = Ok(Welcome {
            version: 1,
            features: Features::default(),
            cluster: ClusterId(1),
            core: CoreId(0),
            cores: 1,
            salt: 0,
            partitions: 1_024,
            limits: Limits { request_bytes: 1, answer_bytes: 1, in_flight: 1 },
            node: "node".to_owned(),
        });
        let mut spelled = BytesMut::new();
        encode_greeting(&mut spelled, &greeting);
        assert_eq!(sloop.open(&mut vec![]), Opening::Greeting);
        assert_eq!(sloop.hear(&spelled[..spelled.len() - 1], &mut vec![]), Ok(None));
        assert_eq!(sloop.hear(&spelled, &mut vec![]), Ok(Some(Heard { bytes: spelled.len(), said: Said::Ready })));
        sloop
    }

    fn answer(id: u64, answer: Answer) -> BytesMut {
        let mut spelled = BytesMut::new();
        encode_answer(&mut spelled, CallId(id), &answer);
        spelled
    }

    fn found(siblings: usize) -> Answer {
        let sibling = Sibling { dot: DOT, value: Value::default(), written_at: WallTime(1) };
        let context = Bytes::from_static(b"seen");
        Answer::One(Ok(Reply::Found(Found { siblings: vec![sibling; siblings], context, level: Level::default() })))
    }

    /// What a node reads of the requests in `out`.
    fn read(out: &[u8]) -> Vec<(CallId, Call)> {
        let mut bytes = BytesMut::from(out);
        let mut calls = vec![];
        let read = |frame: Frame<'_>| (frame.id, decode_call(frame).unwrap());
        while let Some(call) = next_frame(&mut bytes, usize::MAX, read).unwrap() {
            calls.push(call);
        }
        assert!(bytes.is_empty());
        calls
    }

    proptest! {
        #[test]
        fn a_node_reads_what_was_asked(
            asks in prop::collection::vec(
                (0..9u16, any::<[u8; KEY_BYTES]>(), prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..9))), 1..9),
        ) {
            let (mut sloop, mut out, mut expected) = (welcomed(), vec![], vec![]);
            for (slot, key, value, context) in &asks {
                let ask = match value {
                    None => Ask::Get { key },
                    Some(value) => Ask::Put { key, value, context: context.as_deref() },
                };
                sloop.ask(Slot(*slot), ask, &mut out);
                let key = Key::new(key).unwrap();
                let request = match value {
                    None => Request::Get(Get { key, terms: Terms::default() }),
                    Some(value) => Request::Put(Put {
                        key,
                        value: Value::new(value.clone()).unwrap(),
                        causality: match context {
                            None => Causality::Blind,
                            Some(context) => Causality::Context(context.clone().into()),
                        },
                        operation: None,
                        terms: Terms::default(),
                    }),
                };
                expected.push((CallId(u64::from(*slot) + 1), Call::One(request)));
            }
            prop_assert_eq!(read(&out), expected);
        }
    }

    #[test]
    fn answers_are_heard_in_any_order() {
        let mut sloop = welcomed();
        let written = Written {
            dot: DOT,
            context: Bytes::new(),
            superseded: SmallVec::new(),
            written_at: WallTime(1),
            remembered: false,
            level: Level::default(),
        };
        let busy = Failure::Overloaded { retry_after_ms: 5 };
        let refused = Refusal { kind: "overloaded", message: busy.to_string(), passes: true };
        let answers = [
            (8, found(2), Outcome::Found { context: b"seen" }),
            (1, Answer::One(Ok(Reply::Written(written))), Outcome::Written),
            (5, found(0), Outcome::Absent),
            (2, Answer::One(Err(busy)), Outcome::Refused(refused)),
        ];
        for (id, said, outcome) in answers {
            let spelled = answer(id, said);
            let slot = Slot(id as u16 - 1);
            let heard = Heard { bytes: spelled.len(), said: Said::Answer { slot, outcome } };
            assert_eq!(sloop.hear(&spelled, &mut vec![]), Ok(Some(heard)));
        }
    }

    #[test]
    fn what_ends_a_connection_says_why() {
        let refused =
            sloop_after(|out| encode_greeting(out, &Err(Failure::Unauthorized)), Sloop::new(Token::default()));
        assert_eq!(refused.kind, "unauthorized");
        let stranger = sloop_after(|out| out.extend_from_slice(b"HTTP/1.1 400"), Sloop::new(Token::default()));
        assert!(stranger.message.contains("not a sloop handshake"), "{stranger:?}");
        let closing = answer(0, Answer::One(Err(Failure::Stopping)));
        let closing = sloop_after(|out| out.extend_from_slice(&closing), welcomed());
        assert_eq!(closing.kind, "stopping");
        for unasked in [answer(1, Answer::Pong), answer(0, found(1)), answer(1 << 20, found(1))] {
            let unasked = sloop_after(|out| out.extend_from_slice(&unasked), welcomed());
            assert_eq!(unasked.kind, "malformed answer");
        }
    }

    fn sloop_after(spell: impl FnOnce(&mut BytesMut), mut sloop: Sloop) -> Refusal {
        let mut spelled = BytesMut::new();
        spell(&mut spelled);
        sloop.hear(&spelled, &mut vec![]).unwrap_err()
    }
}
