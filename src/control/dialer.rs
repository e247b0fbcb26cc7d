//! The way out to other nodes: what cores wish for is dialed here, so that a handshake never takes a data core's time.
//!
//! A wish is tried once and answered once; when to try again is the core's to say. Whoever answers must prove the
//! cluster's secret, be the node that is expected, and have the cores that the core reckons with: keys would go astray.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::node::Node;
use super::shake::{self, Party, ShakeError};
use crate::protocol::ring::Cores;
use crate::protocol::types::{CoreId, NodeId};
use crate::runtime::door::Door;
use crate::runtime::mail::{Line, Wish};
use crate::wire::hello::{Kind, Welcome};

/// Tries under way. A node that does not answer holds one for a time-out, and others wait for it.
const DIALS_MAX: usize = 256;

/// Time for the connection, and as much again for the handshake.
const DIAL_TIME_MAX: Duration = Duration::from_secs(1);

/// Why there is no connection to a core of another node.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("no connection: {0}")]
    Unreached(#[from] io::Error),
    #[error("no answer within {} s", DIAL_TIME_MAX.as_secs())]
    Late,
    #[error(transparent)]
    Shake(#[from] ShakeError),
    #[error("node {} is there, which is another", .0)]
    OtherNode(String),
    #[error("core {answered} of {cores:?} answered, which is another than was expected")]
    OtherCores { answered: CoreId, cores: Cores },
}

/// The dialer of one node.
#[derive(Clone)]
pub struct Dialer {
    door: Door,
    party: Party,
    permits: Arc<Semaphore>,
}

impl Dialer {
    /// A dialer for the cores of a node.
    pub fn new(node: &Node) -> Dialer {
        Dialer { door: node.door.clone(), party: node.party.clone(), permits: Arc::new(Semaphore::new(DIALS_MAX)) }
    }

    /// Does what cores wish until none of them is left. Polled on the control thread.
    pub async fn serve(self, wishes: flume::Receiver<Wish>) {
        while let Ok(wish) = wishes.recv_async().await {
            let permit = Arc::clone(&self.permits).acquire_owned().await.expect("it is never closed");
            tokio::spawn(self.clone().answer(wish, permit));
        }
    }

    async fn answer(self, wish: Wish, _permit: OwnedSemaphorePermit) {
        let line = match self.dial(&wish).await {
            Ok(line) => Some(line),
            Err(failed) => {
                let Wish { node, address, core, failures, .. } = wish;
                if failures == 0 {
                    tracing::info!(%node, %address, %core, reason = %failed, "a peer cannot be reached yet");
                } else {
                    tracing::debug!(%node, %address, %core, failures, reason = %failed, "a peer cannot be reached");
                }
                None
            }
        };
        // A core that takes no mail wishes again.
        let _ = self.door.answer_wish(&wish, line);
    }

    async fn dial(&self, wish: &Wish) -> Result<Line, Failed> {
        let connecting = timeout(DIAL_TIME_MAX, TcpStream::connect(wish.address));
        let mut socket = connecting.await.map_err(|_| Failed::Late)??;
        socket.set_nodelay(true)?;
        let mut read = BytesMut::new();
        let shaking = shake::dial(&mut socket, &mut read, (Kind::Peer, Some(wish.core)), &self.party);
        let welcome = timeout(DIAL_TIME_MAX, shaking).await.map_err(|_| Failed::Late)??;
        expect(wish, &welcome)?;
        Ok(Line { socket: socket.into_std()?, leftover: read.freeze(), asks_max: welcome.limits.in_flight })
    }
}

fn expect(wish: &Wish, welcome: &Welcome) -> Result<(), Failed> {
    if NodeId::of(&welcome.node) != wish.node {
        return Err(Failed::OtherNode(welcome.node.clone()));
    }
    let cores = Cores { count: welcome.cores, salt: welcome.salt };
    if (welcome.core, cores) != (wish.core, wish.cores) {
        return Err(Failed::OtherCores { answered: welcome.core, cores });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;

    use tokio::net::TcpListener;

    use super::*;
    use crate::control::acceptor::Acceptor;
    use crate::control::metrics::Metrics;
    use crate::control::testing;
    use crate::protocol::config;
    use crate::protocol::ring::{Layout, LayoutRow, Liveness, Member, Ring, View, Wanted};
    use crate::protocol::types::ClusterId;
    use crate::runtime::mail::{Arrival, Caller, Mail};
    use crate::runtime::node as runtime;
    use crate::runtime::slots::Slots;
    use crate::runtime::start::NodeConfig;
    use crate::wire::proof::Secret;

    const HERE: Cores = Cores { count: 1, salt: 9 };

    /// A node that dials another, which accepts.
    struct Pair {
        wishes: flume::Sender<Wish>,
        mail: flume::Receiver<Mail>,
        there: Node,
        address: SocketAddr,
        arrivals: flume::Receiver<Arrival>,
    }

    impl Pair {
        fn new(secret: &[u8]) -> Pair {
            let (there, arrivals) = testing::node(Some("token"));
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(Acceptor::new(there.clone(), Slots::new(2, 1)).serve(listener));

            let (letters, mail) = flume::bounded(8);
            let (wishes, wished) = flume::unbounded();
            let party =
                Party { node: NodeId::of("node-b"), cluster: Some(testing::CLUSTER), secret: Secret::new(secret) };
            let door = Door::new(Ring::new(16), HERE, vec![letters]);
            let here = Node { door, party, ..there.clone() };
            tokio::spawn(Dialer::new(&here).serve(wished));
            Pair { wishes, mail, there, address, arrivals }
        }

        fn wish(&self) -> Wish {
            Wish {
                from: CoreId(0),
                attempt: 7,
                node: NodeId::of("node-a"),
                address: self.address,
                cores: self.there.cores,
                core: CoreId(1),
                failures: 0,
            }
        }

        async fn dial(&self, wish: Wish) -> Option<Line> {
            let expected = (wish.node, wish.core, wish.attempt);
            self.wishes.send(wish).unwrap();
            match timeout(Duration::from_secs(20), self.mail.recv_async()).await.expect("a wish is answered") {
                Ok(Mail::Dialed { node, core, attempt, line }) => {
                    assert_eq!((node, core, attempt), expected);
                    line
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_wish_becomes_a_line_between_two_cores() {
        let pair = Pair::new(testing::SECRET);
        let line = pair.dial(pair.wish()).await.expect("it is let in");
        let arrival = pair.arrivals.recv_async().await.unwrap();
        assert_eq!((arrival.caller, arrival.slot.core()), (Caller::Peer(NodeId::of("node-b")), CoreId(1)));
        assert_eq!(arrival.peer, line.socket.local_addr().unwrap());
        assert_eq!(line.asks_max as usize, crate::runtime::connection::ASKS_MAX);
        assert!(line.leftover.is_empty() && arrival.leftover.is_empty());
    }

    #[tokio::test]
    async fn peers_take_no_place_of_a_client() {
        let pair = Pair::new(testing::SECRET);
        let one = pair.dial(pair.wish()).await;
        let other = pair.dial(pair.wish()).await;
        assert!(one.is_some() && other.is_some(), "there is one place for clients");
    }

    #[tokio::test]
    async fn who_is_not_who_was_expected_is_not_handed_over() {
        let pair = Pair::new(testing::SECRET);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let deaf = Wish { address: listener.local_addr().unwrap(), ..pair.wish() };
        let closed = Wish { address: ([127, 0, 0, 1], 1).into(), ..pair.wish() };
        let other_node = Wish { node: NodeId::of("node-c"), ..pair.wish() };
        let other_core = Wish { core: CoreId(5), ..pair.wish() };
        let other_salt = Wish { cores: Cores { salt: 77, ..pair.there.cores }, ..pair.wish() };
        for wish in [deaf, closed, other_node, other_core, other_salt] {
            assert!(pair.dial(wish.clone()).await.is_none(), "{wish:?}");
        }
    }

    #[tokio::test]
    async fn who_does_not_prove_the_secret_reaches_no_core() {
        let pair = Pair::new(b"another");
        assert!(pair.dial(pair.wish()).await.is_none());
        assert!(pair.arrivals.is_empty());
    }

    /// A whole node of one core, as the daemon puts it together.
    struct Whole {
        node: runtime::Node,
        metrics: Arc<Metrics>,
        serving: tokio::task::JoinHandle<()>,
    }

    impl Whole {
        fn start(name: &str, dir: &Path, listener: std::net::TcpListener, cluster: ClusterId) -> Whole {
            let config = NodeConfig {
                name: name.to_owned(),
                data_dir: dir.to_owned(),
                founding: crate::runtime::opening::founding(),
                cores: 2,
                pin: false,
                memory: 512 * 1024 * 1024,
                idle_max: Duration::from_secs(60),
                transfer_rate: config::TRANSFER_BYTES_PER_SECOND,
                compare_period: config::COMPARE_PERIOD,
                keeps_hints: true,
                tombstone_age: config::TOMBSTONE_AGE,
            };
            let metrics = Arc::new(Metrics::recording());
            let node = runtime::Node::start(&config, |core| metrics.core(core)).unwrap();
            let party = Party { node: NodeId::of(name), cluster: Some(cluster), secret: Secret::new(testing::SECRET) };
            let shown = Node {
                name: name.into(),
                cluster,
                ring: node.ring(),
                cores: node.cores(),
                door: node.door(),
                metrics: Arc::clone(&metrics),
                party,
                ..testing::node(None).0
            };
            let acceptor = Acceptor::new(shown.clone(), Slots::new(2, 8));
            let (dialer, wishes) = (Dialer::new(&shown), node.wishes());
            let serving = tokio::spawn(async move {
                let (accepted, ()) = tokio::join!(acceptor.serve(listener), dialer.serve(wishes));
                accepted.unwrap();
            });
            Whole { node, metrics, serving }
        }

        async fn stop(self) {
            self.serving.abort();
            let _ = self.serving.await;
            tokio::task::spawn_blocking(|| self.node.stop().unwrap()).await.unwrap();
        }

        /// Waits until each of its cores has so many links to a peer.
        async fn has_links(&self, peer: &str, links: u32) {
            let lines: Vec<String> =
                (0..2).map(|core| format!("sloop_peer_links{{core=\"{core}\",peer=\"{peer}\"}} {links}\n")).collect();
            let all = async {
                while !lines.iter().all(|line| self.metrics.render(0).contains(line)) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let shown = timeout(Duration::from_secs(20), all).await;
            assert!(shown.is_ok(), "{lines:?} is missing in\n{}", self.metrics.render(0));
        }
    }

    #[tokio::test]
    async fn all_cores_of_two_nodes_are_linked_and_are_again_after_a_restart_of_one() {
        let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (listener_a, listener_b) = (bind(), bind());
        let addresses = [listener_a.local_addr().unwrap(), listener_b.local_addr().unwrap()];
        let a = Whole::start("node-a", dir_a.path(), listener_a, testing::CLUSTER);
        let b = Whole::start("node-b", dir_b.path(), listener_b, testing::CLUSTER);
        let (cores_a, cores_b) = (a.node.cores(), b.node.cores());
        let view = |me: &str| {
            let member = |(name, cores): (&str, Cores), address: SocketAddr| Member {
                node: NodeId::of(name),
                name: name.into(),
                incarnation: 1,
                is_removed: false,
                address,
                http: address,
                cores,
                liveness: Liveness::Up,
            };
            let row = LayoutRow { node: NodeId::of("node-a"), incarnation: 1, zone: "a".into(), weight: 1 };
            let layout = Layout::founding(a.node.ring().partitions(), Wanted { n: 3, r: 2, w: 2 }, row);
            let mut members =
                vec![member(("node-a", cores_a), addresses[0]), member(("node-b", cores_b), addresses[1])];
            members.sort_unstable_by_key(|member| member.node);
            Arc::new(View { me: NodeId::of(me), epoch: 1, layout: Arc::new(layout), change: None, members })
        };
        a.node.door().show(&view("node-a")).unwrap();
        b.node.door().show(&view("node-b")).unwrap();
        a.has_links("node-b", 2).await;
        b.has_links("node-a", 2).await;

        b.stop().await;
        a.has_links("node-b", 0).await;

        let listener_b = std::net::TcpListener::bind(addresses[1]).unwrap();
        let b = Whole::start("node-b", dir_b.path(), listener_b, testing::CLUSTER);
        a.has_links("node-b", 2).await;
        b.stop().await;
        a.stop().await;
    }
}
