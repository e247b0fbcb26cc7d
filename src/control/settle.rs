//! As whom a node starts, found out before it serves or changes anything: it founds a cluster, joins one, or goes on in
//! its own, if that lets it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::members::{self, ExchangeError};
use super::shake::{Party, ShakeError};
use crate::protocol::membership::{Durable, Knowledge, Past, Refusal, RowStart, may_join};
use crate::protocol::ring::Cores;
use crate::protocol::types::{ClusterId, NodeId};
use crate::runtime::opening::founding;
use crate::store::cluster;
use crate::store::home::{Founding, Home, HomeError, Identity};
use crate::wire::proof::Secret;

/// How long a node that has a cluster asks its members before it starts without an answer.
const CHECK_MAX: Duration = Duration::from_secs(2);

/// How long it waits for members to see that the node is not up elsewhere any more, or that its name is free.
const RUNNING_MAX: Duration = Duration::from_secs(4);

/// Members that are asked at once.
const ASKED_MAX: usize = 16;

/// How long a node that joins waits between two rounds of all addresses: at first, and at last.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(2);

/// It says what it waits for in the first rounds, and then once in so many: in a minute.
const WORDS_FIRST: u32 = 3;
const WORDS_EVERY: u32 = 30;

/// What a node is started with, as far as it matters here.
#[derive(Clone, Debug)]
pub struct Wants {
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Addresses of members of a cluster.
    pub join: Vec<String>,
    /// Where others will reach it.
    pub address: SocketAddr,
    /// Where HTTP will be.
    pub http: SocketAddr,
    /// Its data cores.
    pub cores: u16,
    /// What it proves to others.
    pub secret: Secret,
}

/// As whom a node starts.
#[derive(Clone, Debug)]
pub struct Settled {
    /// What its directory is founded as, if it is empty.
    pub founding: Founding,
    /// What it knows of its cluster; `None` when it founds one.
    pub known: Option<Durable>,
    /// Further addresses to look for members at.
    pub seeds: Vec<SocketAddr>,
}

/// Why a node does not start. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The cluster does not let it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The directory is another node's.
    #[error(
        "{path} belongs to node \"{owner}\", not to \"{name}\": start it with --name {owner}, or choose another \
         --data-dir"
    )]
    OtherName {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// The name that was given.
        name: String,
    },
    /// Two files of the directory are of two nodes.
    #[error(
        "{path}: its files \"node\" and \"cluster\" belong to two nodes; restore the directory from a copy of all of it"
    )]
    Torn {
        /// The directory.
        path: PathBuf,
    },
    /// The member and this node do not share a secret.
    #[error(
        "{address} does not prove the cluster's secret, or does not take ours: give all nodes of a cluster the same \
         cluster_secret"
    )]
    Unproven {
        /// The member's address.
        address: SocketAddr,
    },
}

/// Finds out as whom the node starts. Waits for a member without end where the node is to join a cluster.
///
/// # Errors
/// [`SettleError`].
pub async fn settle(wants: &Wants) -> Result<Settled, SettleError> {
    let identity = Home::peek(&wants.data_dir)?;
    let known = cluster::read(&wants.data_dir)?;
    if let Some(known) = &known {
        own(wants, known, identity.as_ref())?;
    }
    match (identity, known) {
        (None, None) if wants.join.is_empty() => Ok(Settled { founding: founding(), known: None, seeds: vec![] }),
        (None, None) => join(wants).await,
        (None, Some(known)) => Ok(Settled { founding: begun(&known), seeds: seeds(wants).await, known: Some(known) }),
        (Some(identity), known) => {
            check(wants, &identity, known.as_ref()).await?;
            Ok(Settled { founding: founding(), known, seeds: seeds(wants).await })
        }
    }
}

/// The name of the node whose data directory it is, where it knows one.
///
/// # Errors
/// [`HomeError`].
pub fn owner(data_dir: &Path) -> Result<Option<String>, HomeError> {
    let known = cluster::read(data_dir)?;
    Ok(known.and_then(|known| Some(known.rows.get(known.me)?.name.to_string())))
}

/// Whether what the directory knows is this node's.
fn own(wants: &Wants, known: &Durable, identity: Option<&Identity>) -> Result<(), SettleError> {
    let path = || wants.data_dir.clone();
    let row = known.rows.get(known.me).expect("it was looked at when it was read");
    if known.me != NodeId::of(&wants.name) {
        let (owner, name) = (row.name.to_string(), wants.name.clone());
        return Err(SettleError::OtherName { path: path(), owner, name });
    }
    let is_torn = |identity: &Identity| {
        let ours = (identity.cluster, identity.incarnation, identity.partitions);
        ours != (known.cluster, row.incarnation, known.partitions)
    };
    if identity.is_some_and(is_torn) { Err(SettleError::Torn { path: path() }) } else { Ok(()) }
}

/// What a join began to found before it broke off.
fn begun(known: &Durable) -> Founding {
    let row = known.rows.get(known.me).expect("it was looked at when it was read");
    let (incarnation, salt) = (row.incarnation, row.start.cores.salt);
    Founding { cluster: known.cluster, incarnation, partitions: known.partitions, salt }
}

fn party(wants: &Wants, cluster: Option<ClusterId>) -> Party {
    Party { node: NodeId::of(&wants.name), cluster, secret: wants.secret.clone() }
}

async fn join(wants: &Wants) -> Result<Settled, SettleError> {
    let fresh = founding();
    // Looked at before the wait, which may be long.
    drop(Home::open(&wants.data_dir, fresh)?);
    let cores = Cores { count: wants.cores, salt: fresh.salt };
    let start = RowStart { count: 0, stamp: 0, address: wants.address, http: wants.http, cores };
    let mut known = find(wants).await?;
    let asked = Instant::now();
    let durable = loop {
        match may_join(&wants.name, fresh.incarnation, start.clone(), known.clone()) {
            // Others may know more, or be about to: that the name's node is down, and is to be replaced.
            Err(Refusal::NameTaken { .. }) if asked.elapsed() < RUNNING_MAX => {
                sleep(CHECK_MAX / 4).await;
                let rows = known.rows.iter().filter(|row| !row.is_removed() && row.start.address != wants.address);
                let members: Vec<SocketAddr> = rows.map(|row| row.start.address).take(ASKED_MAX).collect();
                known = what_all_know(&party(wants, known.cluster), &members).await.unwrap_or(known);
            }
            outcome => break outcome?,
        }
    };
    tracing::info!(cluster = %durable.cluster, nodes = durable.rows.len() - 1, "joining");
    cluster::write(&wants.data_dir, &durable)?;
    Ok(Settled { founding: begun(&durable), seeds: seeds(wants).await, known: Some(durable) })
}

/// What the first member that answers knows.
async fn find(wants: &Wants) -> Result<Knowledge, SettleError> {
    let party = party(wants, None);
    let mut wait = WAIT_MIN;
    let mut round = 0;
    loop {
        let speaks = round < WORDS_FIRST || round % WORDS_EVERY == 0;
        let mut others = 0;
        for seed in &wants.join {
            for address in resolve(wants, seed, speaks).await {
                others += 1;
                match members::ask(&party, address).await {
                    Ok(known) if known.cluster.is_some() => return Ok(known),
                    Ok(_) => {}
                    Err(ExchangeError::Shake(ShakeError::Unproven)) => return Err(SettleError::Unproven { address }),
                    Err(error) if speaks => {
                        tracing::info!(%seed, %error, "waiting for a member of the cluster to join");
                    }
                    Err(_) => {}
                }
            }
        }
        if others == 0 && speaks {
            tracing::warn!(
                "nobody can be asked: join names no address that is known, or this node's own alone. The first node of \
                 a cluster is started without join, and founds it"
            );
        }
        sleep(wait).await;
        wait = (2 * wait).min(WAIT_MAX);
        round += 1;
    }
}

async fn seeds(wants: &Wants) -> Vec<SocketAddr> {
    let mut seeds = vec![];
    for seed in &wants.join {
        seeds.extend(resolve(wants, seed, true).await);
    }
    seeds
}

/// The addresses of a seed, without our own. Says so where there are none.
async fn resolve(wants: &Wants, seed: &str, speaks: bool) -> Vec<SocketAddr> {
    match lookup_host(seed).await {
        Ok(found) => found.filter(|address| *address != wants.address).collect(),
        Err(error) => {
            if speaks {
                tracing::info!(%seed, %error, "the address of a member is not known");
            }
            vec![]
        }
    }
}

/// Asks a member, if one answers soon, whether this directory may start once more.
async fn check(wants: &Wants, identity: &Identity, known: Option<&Durable>) -> Result<(), SettleError> {
    let me = NodeId::of(&wants.name);
    let past = Past {
        node: me,
        incarnation: identity.incarnation,
        starts: identity.starts,
        stamp: identity.stamp,
        address: wants.address,
    };
    let rows = known.into_iter().flat_map(|known| known.rows.iter()).filter(|row| row.node != me);
    let members: Vec<SocketAddr> = rows.map(|row| row.start.address).take(ASKED_MAX).collect();
    let seeds = seeds(wants).await;
    let party = party(wants, Some(identity.cluster));
    let begun = Instant::now();
    loop {
        let answer = timeout(CHECK_MAX, first_answer(&party, &members, &seeds)).await;
        let Some(known) = answer.unwrap_or(Ok(None))? else {
            return Ok(());
        };
        match past.may_start(&known) {
            // It may have been stopped a moment ago, and nobody knows yet.
            Err(Refusal::Running { .. }) if begun.elapsed() < RUNNING_MAX => sleep(CHECK_MAX / 4).await,
            outcome => return Ok(outcome?),
        }
    }
}

/// What the first member that answers knows; `None` when none does.
async fn first_answer(
    party: &Party,
    members: &[SocketAddr],
    seeds: &[SocketAddr],
) -> Result<Option<Knowledge>, SettleError> {
    let mut asked = JoinSet::new();
    for address in members.iter().chain(seeds.iter().filter(|seed| !members.contains(seed))) {
        let (party, address, is_seed) = (party.clone(), *address, seeds.contains(address));
        asked.spawn(async move { (address, is_seed, members::ask(&party, address).await) });
    }
    while let Some(answered) = asked.join_next().await {
        match answered.expect("a panic has ended the process already") {
            (_, _, Ok(known)) => return Ok(Some(known)),
            (_, true, Err(ExchangeError::Shake(ShakeError::Foreign { ours, theirs }))) => {
                return Err(Refusal::Foreign { ours, theirs }.into());
            }
            (address, _, Err(error)) => tracing::info!(%address, %error, "a member does not answer"),
        }
    }
    Ok(None)
}

/// What the members that answer soon know together; `None` when none does.
async fn what_all_know(party: &Party, members: &[SocketAddr]) -> Option<Knowledge> {
    let mut asked = JoinSet::new();
    for address in members.iter().copied() {
        let party = party.clone();
        asked.spawn(async move { members::ask(&party, address).await });
    }
    let mut all: Option<Knowledge> = None;
    let gather = async {
        while let Some(answered) = asked.join_next().await {
            match (answered.expect("a panic has ended the process already"), &mut all) {
                (Ok(known), Some(all)) => all.join(known),
                (Ok(known), None) => all = Some(known),
                (Err(_), _) => {}
            }
        }
    };
    // Whoever is silent is left out.
    let _all = timeout(CHECK_MAX, gather).await;
    all
}
