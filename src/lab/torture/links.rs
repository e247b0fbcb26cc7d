//! Which ways from node to node are cut.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::sync::watch;

use super::place::Place;
use crate::protocol::types::NodeId;

/// What becomes of a way that is cut. Gossip on it is lost either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Connections stand still, and what was sent arrives when the way is open again: a cable without a plug.
    Stall,
    /// Connections break and new ones are refused: a firewall that says so. Breaks the other direction too, where it
    /// is on the same connection.
    Reset,
}

/// The network between nodes: whoever has it cuts its ways.
#[derive(Debug)]
pub struct Network(watch::Sender<Map>);

#[derive(Clone, Debug, Default)]
struct Map {
    nodes: BTreeMap<SocketAddr, NodeId>,
    /// From whom to whom, how, and by how many who do not know of each other.
    cuts: BTreeMap<(NodeId, NodeId), Vec<Cut>>,
}

/// The ways to one node, as its proxy looks at them.
#[derive(Clone, Debug)]
pub(super) struct Links {
    map: watch::Receiver<Map>,
    /// The node behind the proxy.
    pub(super) to: NodeId,
}

impl Default for Network {
    fn default() -> Network {
        Network(watch::Sender::new(Map::default()))
    }
}

impl Network {
    /// The ways to the node of this name, which sends its gossip from this place.
    pub(super) fn links(&self, name: &str, place: Place) -> Links {
        let to = NodeId::of(name);
        self.0.send_modify(|map| {
            map.nodes.insert(place.node(), to);
        });
        Links { map: self.0.subscribe(), to }
    }

    /// Cuts the way from one node to another, also when it is cut already.
    pub fn cut(&self, from: &str, to: &str, cut: Cut) {
        let way = (NodeId::of(from), NodeId::of(to));
        self.0.send_modify(|map| map.cuts.entry(way).or_default().push(cut));
    }

    /// Takes back one such cut.
    pub fn mend(&self, from: &str, to: &str, cut: Cut) {
        let way = (NodeId::of(from), NodeId::of(to));
        self.0.send_modify(|map| {
            let Some(cuts) = map.cuts.get_mut(&way) else { return };
            if let Some(at) = cuts.iter().position(|one| *one == cut) {
                cuts.remove(at);
            }
            if cuts.is_empty() {
                map.cuts.remove(&way);
            }
        });
    }
}

impl Map {
    fn is_reset(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|cuts| cuts.contains(&Cut::Reset))
    }
}

impl Links {
    /// Whether packets from this address arrive.
    pub(super) fn lets_in(&self, from: SocketAddr) -> bool {
        let map = self.map.borrow();
        map.nodes.get(&from).is_none_or(|from| !map.cuts.contains_key(&(*from, self.to)))
    }

    /// Waits until a way is not cut.
    pub(super) async fn open(&self, from: NodeId, to: NodeId) {
        // A network that has gone cuts nothing any more.
        let _ = self.map.clone().wait_for(|map| !map.cuts.contains_key(&(from, to))).await;
    }

    /// Waits until connections between this node and another one break.
    pub(super) async fn breaks(&self, other: NodeId) {
        let is_broken = |map: &Map| map.is_reset(other, self.to) || map.is_reset(self.to, other);
        let is_gone = self.map.clone().wait_for(is_broken).await.is_err();
        if is_gone {
            std::future::pending::<()>().await;
        }
    }
}
