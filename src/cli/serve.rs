//! `sloop serve`: a node until it is told to stop.
//!
//! The main thread becomes the control thread. Ports are taken before the data directory is touched, so that a second
//! sloop by mistake changes nothing.

use std::net::SocketAddr;
use std::path::absolute;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::config::Config;
use super::signals::Stop;
use super::{Failed, Said, logs, say};
use crate::control::acceptor::Acceptor;
use crate::control::dialer::Dialer;
use crate::control::gossip::{self, Gossip};
use crate::control::guard::Guard;
use crate::control::http::{self, server};
use crate::control::listener;
use crate::control::members::{self, Letters, Orders};
use crate::control::metrics::Metrics;
use crate::control::node::{MembersShown, Node as Shown};
use crate::control::notify::Notify;
use crate::control::settle::{self, Settled, Wants};
use crate::control::shake::Party;
use crate::protocol::membership::{Birth, Refusal, RowStart};
use crate::protocol::planted::Planted;
use crate::protocol::types::NodeId;
use crate::runtime::entropy;
use crate::runtime::heartbeat::Heartbeats;
use crate::runtime::node::Node;
use crate::runtime::slots::Slots;
use crate::runtime::snapshots;
use crate::runtime::start::NodeConfig;
use crate::runtime::trees;
use crate::store::cluster;
use crate::store::home::Founding;
use crate::wire::proof::Secret;

/// Threads for what HTTP would hold the control thread up with: large values to and from JSON.
const BLOCKING_THREADS_MAX: usize = 2;

/// A node that has seen its cluster waits at most this long for links to it, and looks so often whether they are there.
const LINKED_MAX: Duration = Duration::from_secs(1);
const LINKED_LOOK: Duration = Duration::from_millis(10);

/// Runs a node.
///
/// # Errors
/// Why it could not start, or did not stop cleanly.
pub fn run(mut config: Config) -> Result<Said, Failed> {
    logs::start(&config);
    abort_on_panic();
    listener::allow_descriptors(config.connections_max);
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS_MAX).build()?;
    let (binary, web) = (listener::bind("listen", config.listen)?, listener::bind("http", config.http)?);
    let packets = gossip::bind(binary.local_addr()?)?;
    if !config.origins.contains_key("name") {
        // A host may be called otherwise than when it joined; the node is still the same.
        config.name = settle::owner(&config.data_dir)?.unwrap_or(config.name);
    }
    let wants = wants(&config, binary.local_addr()?, web.local_addr()?);
    // The wait for a cluster to join may be long: it ends by the same signals, also for a first process, for which the
    // system would do nothing.
    let settled = runtime.block_on(async {
        let mut signals = Stop::here()?;
        tokio::select! {
            settled = settle::settle(&wants) => Ok::<_, Failed>(Some(settled?)),
            () = signals.comes() => Ok(None),
        }
    })?;
    let Some(settled) = settled else {
        tracing::info!("stopped before it began to serve");
        return Ok(Said::default());
    };
    let metrics = Arc::new(Metrics::recording());
    let node = Node::start(&node_config(&config, settled.founding), |core| metrics.core(core))?;
    let (letters, received) = members::letters();
    let (orders, ordered) = members::orders();
    let (show, members) = watch::channel(MembersShown::default());
    let party =
        Party { node: NodeId::of(&config.name), cluster: Some(node.info().cluster), secret: wants.secret.clone() };
    let shown =
        shown(&config, &node, (binary.local_addr()?, Arc::clone(&metrics)), (party.clone(), letters, orders, members));
    let slots = Slots::new(config.cores, config.connections_max);
    let acceptor = Acceptor::new(shown.clone(), slots);
    let (dialer, wishes) = (Dialer::new(&shown), node.wishes());
    let file = node.data_dir().to_owned();
    let parts = gossip::Parts {
        socket: packets,
        party,
        cluster: node.info().cluster,
        door: node.door(),
        notices: node.notices(),
        letters: received,
        writer: Arc::new(move |durable| cluster::write(&file, durable).map_err(|error| error.to_string())),
        orders: ordered,
        emptiness: Arc::new(node.emptiness()),
        metrics: Arc::clone(&metrics),
        shown: show,
    };
    let birth = birth(&config, &node, &wants, settled);
    let (name, data_dir) = (&config.name, absolute(&config.data_dir)?);
    let ready = format!(
        "sloop {} \"{name}\" is ready: clients on {}, http on http://{}, {} {}, data in {}\n",
        env!("CARGO_PKG_VERSION"),
        binary.local_addr()?,
        web.local_addr()?,
        config.cores,
        if config.cores == 1 { "core" } else { "cores" },
        data_dir.display(),
    );
    let notify = Notify::here();
    runtime.block_on(async move {
        let mut signals = Stop::here()?;
        let mut membership = Gossip::begin(parts, birth)?;
        let mut begun = shown.members.clone();
        let serving = async {
            // Before they see the cluster, the cores take themselves for all of it, and would answer alone.
            begun.wait_for(|shown| shown.view.is_some()).await.expect("the membership is at work beside");
            linked(&shown.hearts).await;
            // Only now would a signal end the node cleanly.
            say(ready.as_bytes())?;
            notify.ready();
            let (accepted, served, ..) = tokio::join!(
                acceptor.serve(binary),
                server::serve(web, http::router(shown.clone())),
                metrics.upkeep(),
                notify.watch(Arc::clone(&shown.hearts)),
            );
            Ok::<_, Failed>(accepted.and(served)?)
        };
        let serving = async { tokio::join!(serving, dialer.serve(wishes)).0 };
        let refusal = tokio::select! {
            ended = serving => {
                ended?;
                None
            }
            refusal = membership.work() => Some(refusal),
            () = signals.comes() => None,
        };
        membership.leave();
        notify.stopping();
        tracing::info!("stopping: ending what is under way; a second signal ends at once");
        tokio::select! {
            stopped = stop(node) => stopped,
            () = signals.insists() => Err(Failed::refused("ended at once by a second signal")),
        }?;
        match refusal {
            // That is what was wanted: nothing has failed.
            Some(left @ Refusal::Left { .. }) => tracing::info!("{left}"),
            Some(refusal) => return Err(Failed::from(refusal)),
            None => {}
        }
        Ok(())
    })?;
    Ok(Said::default())
}

/// Waits until the cores have their links to other nodes: whoever came before would find no quorum. Nodes that start
/// together wait for each other here, so nobody waits for long.
async fn linked(hearts: &Heartbeats) {
    let all = async {
        while !hearts.linked() {
            sleep(LINKED_LOOK).await;
        }
    };
    if timeout(LINKED_MAX, all).await.is_err() {
        tracing::warn!("serving, though not every node of the cluster could be reached: see `sloop cluster status`");
    }
}

/// As whom the node wants to start.
fn wants(config: &Config, binary: SocketAddr, web: SocketAddr) -> Wants {
    let address = config.advertise.unwrap_or(binary);
    // Where HTTP listens on all addresses, it is on that one too.
    let http = if web.ip().is_unspecified() { SocketAddr::new(address.ip(), web.port()) } else { web };
    let secret = config.cluster_secret.as_ref().map_or("", |secret| secret.reveal());
    Wants {
        name: config.name.clone(),
        data_dir: config.data_dir.clone(),
        join: config.join.clone(),
        address,
        http,
        cores: config.cores,
        secret: Secret::new(secret.as_bytes()),
    }
}

fn birth(config: &Config, node: &Node, wants: &Wants, settled: Settled) -> Birth {
    let identity = node.identity();
    Birth {
        cluster: identity.cluster,
        partitions: identity.partitions,
        name: config.name.as_str().into(),
        incarnation: identity.incarnation,
        start: RowStart {
            count: identity.starts,
            stamp: identity.stamp,
            address: wants.address,
            http: wants.http,
            cores: node.cores(),
        },
        zone: config.zone.as_deref().map(Arc::from),
        weight: config.weight,
        known: settled.known,
        wanted: config.wanted,
        auto_join: config.auto_join,
        seeds: settled.seeds,
        seed: entropy::word(),
        planted: Planted::NONE,
    }
}

fn node_config(config: &Config, founding: Founding) -> NodeConfig {
    NodeConfig {
        name: config.name.clone(),
        data_dir: config.data_dir.clone(),
        founding,
        cores: config.cores,
        pin: config.pin,
        memory: config.memory,
        idle_max: config.idle_timeout,
        transfer_rate: config.transfer_rate,
        compare_period: config.compare_period,
        keeps_hints: config.keeps_hints,
        tombstone_age: config.tombstone_age,
    }
}

/// What the control thread knows of the node.
fn shown(
    config: &Config,
    node: &Node,
    (listen, metrics): (SocketAddr, Arc<Metrics>),
    (party, letters, orders, members): (Party, Letters, Orders, watch::Receiver<MembersShown>),
) -> Shown {
    let (lsm, tree, ring) = (node.lsm(), node.lsm(), node.ring());
    Shown {
        name: config.name.as_str().into(),
        cluster: node.info().cluster,
        ring,
        cores: node.cores(),
        directory: node.directory(),
        listen,
        door: node.door(),
        hearts: node.hearts(),
        metrics,
        guard: Guard::new(config.token.as_ref().map(|token| token.reveal())),
        party,
        letters,
        orders,
        transfer_rate: config.transfer_rate,
        members,
        holdings: Arc::new(node.holdings()),
        snapshots: Arc::new(move || snapshots::begin(&lsm, ring)),
        trees: Arc::new(move |range| trees::begin(&tree, ring, range)),
    }
}

async fn stop(node: Node) -> Result<(), Failed> {
    let (done, stopped) = oneshot::channel();
    std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
        // Whoever waited has ended the process.
        let _ = done.send(node.stop());
    })?;
    Ok(stopped.await??)
}

/// A panic ends one thread and leaves the others running with half a node. The log makes ending all of it safe.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "a bug in sloop: the node ends, and what it acknowledged is in its log");
        report(panic);
        std::process::abort();
    }));
}
