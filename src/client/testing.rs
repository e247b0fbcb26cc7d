//! A node for tests: the real protocol over a real socket, with memory for a disk.
//!
//! It decides with the same state machine as a node and speaks the same bytes, so what a client learns here holds
//! there; it keeps nothing, has one core and one copy of each key. A [`Cluster`] is several that share their memory,
//! and shows which way requests go. What came together is answered last first: a client must not rely on the order. And
//! it can be told to fail in the ways that are hard to bring about with a real node:
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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::links::Target;
use crate::protocol::causality::Siblings;
use crate::protocol::config::{self, DEADLINE_DEFAULT, PARTITIONS};
use crate::protocol::io::{Effect, Held, Input};
use crate::protocol::message::{
    Answer, Call, Directory, Failure, Keys, NodeInfo, Outcome, Page, Place, Request, RingMap,
};
use crate::protocol::planted::Planted;
use crate::protocol::ring::{Cores, Layout, LayoutRow, LayoutStamp, Liveness, Member, Partition, Ring, View, Wanted};
use crate::protocol::shard::{Birth, Shard};
use crate::protocol::types::{ActorId, ClusterId, CoreId, Instant, Key, NodeId, Now, RequestId, WallTime};
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

/// Several nodes with one memory: each of them answers for every key, and says in the ring who owns what, so that it
/// shows which way a client goes. It closes when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Option<Node>>,
    members: Vec<Member>,
    welcome: Welcome,
    orders: mpsc::Sender<Order>,
}

/// A request as it reached a node of a [`Cluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which node it reached, counted from 0.
    pub node: usize,
    /// On which core's connection.
    pub core: CoreId,
    /// The key that it is about.
    pub key: Key,
    /// Whether it came in a batch.
    pub batched: bool,
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
    Call { at: Target, call: Call, said: oneshot::Sender<Said> },
    Fault(Fault, oneshot::Sender<()>),
    View { members: Vec<Member>, layout: Option<Layout>, done: oneshot::Sender<()> },
    Faults(oneshot::Sender<usize>),
    Map(oneshot::Sender<RingMap>),
    Silence(NodeId, bool, oneshot::Sender<()>),
    Heard(oneshot::Sender<Vec<(Target, Key, bool)>>),
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
        let state = State::new(getrandom::u64().map_err(io::Error::other)?);
        let (welcome, cores) = (state.welcome(), Cores { count: 1, salt: 0 });
        let (orders, queue) = mpsc::channel(1);
        tokio::spawn(run(state, queue));
        Node::listen("127.0.0.1:0", token, welcome, cores, orders).await
    }

    async fn listen(
        addr: &str,
        token: Token,
        welcome: Welcome,
        cores: Cores,
        orders: mpsc::Sender<Order>,
    ) -> io::Result<Node> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?.to_string();
        let welcome = Welcome { cores: cores.count, salt: cores.salt, ..welcome };
        let task = tokio::spawn(accept(listener, token, welcome, orders.clone()));
        Ok(Node { addr, orders, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Makes the next call go wrong; returns once that is certain.
    pub async fn inject(&self, fault: Fault) {
        told(&self.orders, |done| Order::Fault(fault, done)).await;
    }
}

/// Gives an order and waits until it is carried out.
async fn told<T>(orders: &mpsc::Sender<Order>, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> T {
    let (done, heard) = oneshot::channel();
    drop(orders.send(order(done)).await);
    heard.await.expect("the memory lives as long as its nodes")
}

impl Cluster {
    /// Starts so many nodes of so many cores on free ports of 127.0.0.1. Each key has three owners where there are as
    /// many nodes.
    ///
    /// # Errors
    /// What the operating system says about the ports.
    pub async fn start(nodes: usize, cores: u16) -> io::Result<Cluster> {
        let state = State::new(getrandom::u64().map_err(io::Error::other)?);
        let welcome = state.welcome();
        let (orders, queue) = mpsc::channel(1);
        tokio::spawn(run(state, queue));
        let mut cluster = Cluster { nodes: Vec::new(), members: Vec::new(), welcome, orders: orders.clone() };
        for at in 0..nodes {
            let name = format!("{NAME}-{at}");
            let cores = Cores { count: cores, salt: at as u64 };
            let welcome = Welcome { node: name.clone(), ..cluster.welcome.clone() };
            let node = Node::listen("127.0.0.1:0", Token::default(), welcome, cores, orders.clone()).await?;
            let address = node.addr().parse().map_err(io::Error::other)?;
            cluster.nodes.push(Some(node));
            let (node, liveness) = (NodeId::of(&name), Liveness::Up);
            cluster.members.push(Member {
                node,
                name: name.into(),
                incarnation: 0,
                is_removed: false,
                address,
                http: address,
                cores,
                liveness,
            });
        }
        cluster.lay_out(&(0..nodes).collect::<Vec<_>>()).await;
        Ok(cluster)
    }

    /// Where the node listens.
    pub fn addr(&self, node: usize) -> String {
        self.members[node].address.to_string()
    }

    /// The first owner of a key, and the core that serves it there.
    pub async fn owner(&self, key: &Key) -> (usize, CoreId) {
        let map = told(&self.orders, Order::Map).await;
        let partition = Ring::new(map.partitions).partition(key);
        let owners = map.owners.expect("nothing is known beforehand");
        let owner = &map.nodes[usize::from(owners[usize::from(partition.0) * usize::from(map.copies)])];
        (self.place(owner.node), owner.cores.of(partition))
    }

    /// Makes these nodes, and no others, own everything.
    pub async fn lay_out(&mut self, nodes: &[usize]) {
        let row = |node: &usize| LayoutRow {
            node: self.members[*node].node,
            incarnation: *node as u128,
            zone: "".into(),
            weight: 1,
        };
        let wanted = Wanted { n: 3, r: 2, w: 2 };
        let rows: Vec<LayoutRow> = nodes.iter().map(row).collect();
        let layout = Layout::founding(PARTITIONS, wanted, rows[0].clone()).next(rows, wanted);
        self.view(Some(layout)).await;
    }

    /// Stops a node: its connections close, and the others say that it is down.
    pub async fn stop(&mut self, node: usize) {
        self.nodes[node] = None;
        self.members[node].liveness = Liveness::Down;
        self.view(None).await;
    }

    /// Starts a node again that was stopped, where it was.
    ///
    /// # Errors
    /// What the operating system says about the port.
    pub async fn start_again(&mut self, node: usize) -> io::Result<()> {
        let Member { name, cores, .. } = self.members[node].clone();
        let welcome = Welcome { node: name.to_string(), ..self.welcome.clone() };
        let (addr, orders) = (self.addr(node), self.orders.clone());
        self.nodes[node] = Some(Node::listen(&addr, Token::default(), welcome, cores, orders).await?);
        self.members[node].liveness = Liveness::Up;
        self.view(None).await;
        Ok(())
    }

    /// Lets a node take calls and never answer, or answer again. The others say nothing about it.
    pub async fn silence(&self, node: usize, is_silent: bool) {
        let node = self.members[node].node;
        told(&self.orders, |done| Order::Silence(node, is_silent, done)).await;
    }

    /// Makes the next call go wrong, whichever node it comes to; returns once that is certain.
    pub async fn inject(&self, fault: Fault) {
        told(&self.orders, |done| Order::Fault(fault, done)).await;
    }

    /// How many calls are yet to go wrong.
    pub async fn faults(&self) -> usize {
        told(&self.orders, Order::Faults).await
    }

    /// All requests for keys since this was asked last.
    pub async fn heard(&self) -> Vec<Heard> {
        let heard = told(&self.orders, Order::Heard).await;
        let one =
            |(at, key, batched): (Target, Key, bool)| Heard { node: self.place(at.node), core: at.core, key, batched };
        heard.into_iter().map(one).collect()
    }

    fn place(&self, node: NodeId) -> usize {
        self.members.iter().position(|member| member.node == node).expect("a node of this cluster")
    }

    async fn view(&self, layout: Option<Layout>) {
        let mut members = self.members.clone();
        members.sort_by_key(|member| member.node);
        told(&self.orders, |done| Order::View { members, layout, done }).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The one task that owns the state. It ends with the last node.
async fn run(mut state: State, mut queue: mpsc::Receiver<Order>) {
    let mut faults = VecDeque::new();
    let mut silent = BTreeSet::new();
    while let Some(order) = queue.recv().await {
        match order {
            Order::Fault(fault, done) => {
                faults.push_back(fault);
                let _ = done.send(());
            }
            Order::Silence(node, is_silent, done) => {
                if is_silent {
                    silent.insert(node)
                } else {
                    silent.remove(&node)
                };
                let _ = done.send(());
            }
            Order::View { members, layout, done } => {
                state.members = members;
                state.layout = layout.map(Arc::new).or(state.layout);
                let _ = done.send(());
            }
            Order::Faults(done) => drop(done.send(faults.len())),
            Order::Map(done) => drop(done.send(state.map(NodeId::of(NAME), LayoutStamp::default()))),
            Order::Heard(done) => drop(done.send(std::mem::take(&mut state.heard))),
            Order::Call { at, said, .. } if silent.contains(&at.node) => drop(said.send(Said::Nothing)),
            Order::Call { at, call: Call::Ring { known }, said } => {
                drop(said.send(Said::Answer(Answer::Ring(state.map(at.node, known)))));
            }
            Order::Call { at, call, said } => {
                state.note(at, &call);
                drop(said.send(state.obey(call, faults.pop_front())));
            }
        }
    }
}

/// The one task of a node. Its connections end with it.
async fn accept(listener: TcpListener, token: Token, welcome: Welcome, orders: mpsc::Sender<Order>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => {
                connections.spawn(serve(stream, token.clone(), welcome.clone(), orders.clone()));
            }
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
    let Ok(welcome) = greeting else {
        return Ok(());
    };
    let at = Target { node: NodeId::of(&welcome.node), core: welcome.core };
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
                    orders.send(Order::Call { at, call, said }).await.map_err(io::Error::other)?;
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
        Some(version) => {
            let core = hello.core.filter(|core| core.0 < welcome.cores).unwrap_or(CoreId(0));
            Ok(Welcome { version, core, ..welcome })
        }
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
    /// None for a node alone.
    layout: Option<Arc<Layout>>,
    members: Vec<Member>,
    /// Requests of a cluster's clients.
    heard: Vec<(Target, Key, bool)>,
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
            transfer_rate: config::TRANSFER_BYTES_PER_SECOND,
            compare_period: config::COMPARE_PERIOD,
            keeps_hints: true,
            tombstone_age: config::TOMBSTONE_AGE,
            planted: Planted::NONE,
        };
        State {
            shard: Shard::new(Instant(0), birth),
            cluster,
            ring: Ring::new(PARTITIONS),
            held: BTreeMap::new(),
            requests: 0,
            started: tokio::time::Instant::now(),
            layout: None,
            members: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// What the node says of the ring.
    fn map(&self, me: NodeId, known: LayoutStamp) -> RingMap {
        match &self.layout {
            None => self.shard.view().map(known),
            Some(layout) => {
                let (layout, members) = (Arc::clone(layout), self.members.clone());
                View { me, epoch: 1, layout, change: None, members }.map(known)
            }
        }
    }

    fn note(&mut self, at: Target, call: &Call) {
        if self.layout.is_some() {
            let batched = matches!(call, Call::Many(_));
            self.heard.extend(call.keys().map(|key| (at, key.clone(), batched)));
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
            Call::Ring { known } => Answer::Ring(self.map(NodeId::of(NAME), known)),
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
                    Effect::Ask { .. }
                    | Effect::Tell { .. }
                    | Effect::Compare(_)
                    | Effect::Survey { .. }
                    | Effect::Scan { .. }
                    | Effect::Reached { .. } => {
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
