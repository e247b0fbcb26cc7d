//! A node for tests: the real protocol over a real socket, with memory for a disk.
//!
//! It decides with the same state machine as a node and speaks the same bytes, so what a client learns here holds
//! there; it keeps nothing, has one core and one copy of each key. What came together is answered last first: a
//! client must not rely on the order. And it can be told to fail in the ways that are hard to bring about with a real
//! node:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use sloop::client::{Client, testing::{Fault, Node}};
//!
//! let node = Node::start().await?;
//! let client = Client::connect(node.addr()).await?;
//!
//! // The write is done, but the connection breaks before its answer. The client tries again under the same operation
//! // id, and the node remembers: one write, not two.
//! node.inject(Fault::LoseAnswer).await;
//! let written = client.put("counter", "1").await?;
//! assert!(written.remembered);
//! assert_eq!(client.siblings("counter").await?.copies.len(), 1);
//! # Ok(())
//! # }
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::protocol::causality::Siblings;
use crate::protocol::config::{DEADLINE_DEFAULT, PARTITIONS};
use crate::protocol::io::{Effect, Held, Input};
use crate::protocol::message::{Answer, Call, Directory, Failure, Keys, NodeInfo, Outcome, Page, Place, Request};
use crate::protocol::ring::{Cores, Partition, Ring, View};
use crate::protocol::shard::{Birth, Shard};
use crate::protocol::types::{ActorId, ClusterId, CoreId, Instant, Key, Now, RequestId, WallTime};
use crate::wire::frame::{ANSWER_BYTES_MAX, CALL_BYTES_MAX};
use crate::wire::hello::{Features, Greeting, Hello, Limits, Token, VERSIONS, Welcome, encode_greeting};
use crate::wire::{CallId, decode_call, encode_answer, next_frame};

const NAME: &str = "test-node";

/// A running node; dropping it closes all its connections.
#[derive(Debug)]
pub struct Node {
    addr: String,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

/// What the node does wrong with the next call, once. Several wait in line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Does the call and closes the connection without an answer.
    LoseAnswer,
    /// Closes the connection without doing the call.
    LoseCall,
    /// Does not do the call and never answers it.
    Ignore,
    /// Does not do the call and answers with this.
    Refuse(Failure),
}

enum Order {
    Call(Call, oneshot::Sender<Said>),
    Fault(Fault, oneshot::Sender<()>),
}

enum Said {
    Answer(Answer),
    Nothing,
    HangUp,
}

impl Node {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// What the operating system says about the port.
    pub async fn start() -> io::Result<Node> {
        Node::start_with("").await
    }

    /// Starts one that wants a token.
    ///
    /// # Errors
    /// What the operating system says about the port, and [`io::ErrorKind::InvalidInput`] for a token of more than 256
    /// bytes.
    pub async fn start_with(token: &str) -> io::Result<Node> {
        let token = Token::new(token.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?.to_string();
        let (orders, queue) = mpsc::channel(1);
        let state = State::new(getrandom::u64().map_err(io::Error::other)?);
        let task = tokio::spawn(run(listener, token, state, orders.clone(), queue));
        Ok(Node { addr, orders, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Makes the next call go wrong; returns once that is certain.
    pub async fn inject(&self, fault: Fault) {
        let (done, heard) = oneshot::channel();
        self.orders.send(Order::Fault(fault, done)).await.expect("the node runs until it is dropped");
        heard.await.expect("the node runs until it is dropped");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The one task that owns the state. Its connections end with it.
async fn run(
    listener: TcpListener,
    token: Token,
    mut state: State,
    orders: mpsc::Sender<Order>,
    mut queue: mpsc::Receiver<Order>,
) {
    let mut connections = JoinSet::new();
    let mut faults = VecDeque::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(serve(stream, token.clone(), state.welcome(), orders.clone()));
            }
            Some(order) = queue.recv() => match order {
                Order::Fault(fault, done) => {
                    faults.push_back(fault);
                    let _ = done.send(());
                }
                Order::Call(call, said) => drop(said.send(state.obey(call, faults.pop_front()))),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, from hello to end. Errors end it, and with it all that is known of them.
async fn serve(mut stream: TcpStream, token: Token, welcome: Welcome, orders: mpsc::Sender<Order>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = BytesMut::new();
    let greeting = loop {
        match Hello::decode(&read) {
            Err(error) => break Err(error.into()),
            Ok(Some((hello, taken))) => {
                drop(read.split_to(taken));
                break greet(&hello, &token, welcome);
            }
            Ok(None) if stream.read_buf(&mut read).await? == 0 => return Ok(()),
            Ok(None) => {}
        }
    };
    let mut out = BytesMut::new();
    encode_greeting(&mut out, &greeting);
    stream.write_all_buf(&mut out).await?;
    if greeting.is_err() {
        return Ok(());
    }
    loop {
        let mut together = Vec::new();
        let broken = loop {
            match next_frame(&mut read, CALL_BYTES_MAX, |frame| (frame.id, decode_call(frame))) {
                Ok(Some(heard)) => together.push(heard),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        let mut answers = Vec::new();
        for (id, call) in together {
            let (said, heard) = oneshot::channel();
            let answer = match call {
                Err(error) => Answer::One(Err(error.into())),
                Ok(call) => {
                    orders.send(Order::Call(call, said)).await.map_err(io::Error::other)?;
                    match heard.await.map_err(io::Error::other)? {
                        Said::Answer(answer) => answer,
                        Said::Nothing => continue,
                        Said::HangUp => return Ok(()),
                    }
                }
            };
            answers.push((id, answer));
        }
        answers.iter().rev().for_each(|(id, answer)| encode_answer(&mut out, *id, answer));
        if let Some(error) = broken {
            encode_answer(&mut out, CallId::NONE, &Answer::One(Err(error.into())));
            return stream.write_all_buf(&mut out).await;
        }
        stream.write_all_buf(&mut out).await?;
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

fn greet(hello: &Hello, token: &Token, welcome: Welcome) -> Greeting {
    match hello.versions.common(VERSIONS) {
        None => Err(Failure::Version { min: VERSIONS.min, max: VERSIONS.max }),
        Some(_) if hello.token != *token => Err(Failure::Unauthorized),
        Some(version) => Ok(Welcome { version, ..welcome }),
    }
}

/// One core, its store a map.
struct State {
    shard: Shard,
    cluster: ClusterId,
    ring: Ring,
    held: BTreeMap<Place, Arc<Siblings>>,
    requests: u64,
    started: tokio::time::Instant,
}

impl State {
    fn new(actor: u64) -> State {
        let cluster = ClusterId(u128::from(actor).rotate_left(64) | 1);
        let birth = Birth {
            cluster,
            core: CoreId(0),
            actor: ActorId(actor),
            counter: 0,
            spare: ActorId(u64::MAX),
            view: Arc::new(View::alone(NAME, Cores { count: 1, salt: 0 }, PARTITIONS)),
            directory: Arc::new(Directory::from([(ActorId(actor), NAME.to_owned())])),
            remembered: Vec::new(),
            hints: Vec::new(),
            seed: 1,
        };
        State {
            shard: Shard::new(Instant(0), birth),
            cluster,
            ring: Ring::new(PARTITIONS),
            held: BTreeMap::new(),
            requests: 0,
            started: tokio::time::Instant::now(),
        }
    }

    fn obey(&mut self, call: Call, fault: Option<Fault>) -> Said {
        match fault {
            None => Said::Answer(self.answer(call)),
            Some(Fault::LoseAnswer) => {
                self.answer(call);
                Said::HangUp
            }
            Some(Fault::LoseCall) => Said::HangUp,
            Some(Fault::Ignore) => Said::Nothing,
            Some(Fault::Refuse(failure)) => Said::Answer(Answer::One(Err(failure))),
        }
    }

    fn answer(&mut self, call: Call) -> Answer {
        match call {
            Call::One(request) => Answer::One(self.decide(request)),
            Call::Many(requests) => Answer::Many(requests.into_iter().map(|request| self.decide(request)).collect()),
            Call::Ping => Answer::Pong,
            Call::Info => Answer::Info(self.info()),
            Call::Ring { known } => Answer::Ring(self.info().ring_alone(known)),
        }
    }

    /// Hands a request to the shard and carries out what it says until it answers. Memory is durable at once.
    fn decide(&mut self, request: Request) -> Outcome {
        self.requests += 1;
        let now = self.now();
        let deadline = now.instant + DEADLINE_DEFAULT;
        let request = Input::Request { id: RequestId(self.requests), request, held: Held::Unknown, deadline };
        let mut inputs = VecDeque::from([Input::Tick, request]);
        let mut outcome = None;
        while let Some(input) = inputs.pop_front() {
            let mut effects = Vec::new();
            self.shard.handle(now, input, &mut effects);
            for effect in effects {
                match effect {
                    Effect::Ask { .. } | Effect::Tell { .. } | Effect::Compare(_) => {
                        unreachable!("a node alone asks nobody")
                    }
                    Effect::Load { load, key } => {
                        let found = self.held.get(&self.place(key)).cloned();
                        inputs.push_back(Input::Loaded { load, found: Ok(found) });
                    }
                    Effect::Append(append) => {
                        inputs.push_back(Input::Appended { through: append.id });
                        let state = append.state().map(Arc::clone);
                        self.held.extend(state.map(|state| (self.place(append.key), state)));
                    }
                    Effect::List { id, keys } => inputs.push_back(Input::Listed { id, page: Ok(self.page(&keys)) }),
                    Effect::Forget { .. } => {}
                    Effect::Reply { outcome: reply, .. } => outcome = Some(reply),
                }
            }
        }
        outcome.expect("a request is answered once its loads and appends have ended")
    }

    fn page(&self, keys: &Keys) -> Page {
        let first = (Partition(0), Key::new("\0").expect("one byte is a key"));
        let from = keys.after.clone().map_or(Bound::Included(first), |after| Bound::Excluded(self.place(after)));
        let mut listed = self
            .held
            .range((from, Bound::Unbounded))
            .filter(|((_, key), set)| key.as_bytes().starts_with(&keys.prefix) && set.live().next().is_some())
            .map(|((_, key), _)| key.clone());
        let page = listed.by_ref().take(keys.limit.into()).collect();
        Page { keys: page, more: listed.next().is_some() }
    }

    fn place(&self, key: Key) -> Place {
        (self.ring.partition(&key), key)
    }

    #[expect(clippy::disallowed_methods, reason = "a node reads the wall clock where it takes the request")]
    fn now(&self) -> Now {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Now { instant: Instant(micros(self.started.elapsed())), wall: WallTime(micros(since_1970) / 1_000) }
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            name: NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster: self.cluster,
            cores: 1,
            core: CoreId(0),
            salt: 0,
            partitions: PARTITIONS,
            uptime_ms: self.now().instant.0 / 1_000,
        }
    }

    fn welcome(&self) -> Welcome {
        Welcome {
            version: VERSIONS.max,
            features: Features::default(),
            cluster: self.cluster,
            core: CoreId(0),
            cores: 1,
            salt: 0,
            partitions: PARTITIONS,
            limits: Limits {
                request_bytes: CALL_BYTES_MAX as u32,
                answer_bytes: ANSWER_BYTES_MAX as u32,
                in_flight: 64,
            },
            node: NAME.to_owned(),
        }
    }
}
