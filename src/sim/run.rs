//! One run: a cluster is founded, works under faults, and must come to rest when they end; a few rounds of that.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::chance::Chance;
use super::coverage::{Coverage, Reach};
use super::shape::{Scenario, Shape};
use super::trace::Trace;
use super::watch::{Broken, Rest};
use super::world::{At, Part, World};
use crate::protocol::message::{Get, Request, Terms};
use crate::protocol::planted::Planted;
use crate::protocol::ring::{Liveness, Partition};

/// A cluster is founded within this.
const FOUNDED: Duration = Duration::from_secs(60);

/// A round of faults lasts no longer.
const ROUND: Duration = Duration::from_secs(60);

/// Nodes that go on have links to each other again after so long.
const LINKS: Duration = Duration::from_millis(100);

/// Once all faults have ended, a cluster is at rest within this.
const RESTS: Duration = Duration::from_secs(240);

/// Before a single node stands still, all is well for so long.
const QUIET: Duration = Duration::from_millis(5_500);

/// It stands still no longer, while so many calls are made.
const SLEEP: Duration = Duration::from_secs(4);
const CALLS_BESIDE: u64 = 60;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is drawn from.
    pub chance: Chance,
    /// What kind of weather.
    pub scenario: Scenario,
    /// A fault that is to be found.
    pub planted: Planted,
    /// Whether every line is kept.
    pub traced: bool,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The first promise that was broken.
    pub broken: Option<Broken>,
    /// What was reached.
    pub coverage: Coverage,
    /// Calls of clients that ended.
    pub calls: u64,
    /// Virtual time.
    pub time: Duration,
    /// What happened, where that was wanted.
    pub trace: Trace,
    /// How the trace names what the broken promise is about: a key and its partition.
    pub names: Vec<String>,
}

/// Runs the seed's world. A panic in it breaks a promise like any other.
pub fn run(options: Options) -> Report {
    let Options { mut chance, scenario, planted, traced } = options;
    let shape = Shape::draw(scenario, &mut chance);
    let trace = if traced { Trace::on() } else { Trace::off() };
    let mut world = World::new(chance, shape, planted, trace);
    let begun = world.stage.now;
    world.stage.note(|stage| format!("{:?}", stage.shape));
    let played = catch_unwind(AssertUnwindSafe(|| play(&mut world)));
    if let Err((invariant, what)) = played.unwrap_or_else(|panic| Err(("panic", said(&*panic)))) {
        let now = world.stage.now;
        world.stage.watch.accuse(now, invariant, what);
    }
    let broken = world.stage.watch.broken().cloned();
    let key = broken.as_ref().and_then(|broken| broken.key.as_ref());
    let named = |key| vec![format!("{key}"), format!("{:?}", world.stage.ring().partition(key))];
    Report {
        names: key.map(named).unwrap_or_default(),
        broken,
        coverage: world.stage.coverage.clone(),
        calls: world.clients.ended,
        time: world.stage.now.since(begun),
        trace: std::mem::take(&mut world.stage.trace),
    }
}

/// What a panic says.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// What never came to pass.
type Stuck = (&'static str, String);

fn play(world: &mut World) -> Result<(), Stuck> {
    found(world)?;
    for _ in 0..world.stage.shape.rounds {
        let calls = world.stage.shape.calls;
        world.clients.go(calls, &mut world.stage);
        world.begin_mischief();
        // Where nobody answers, clients wait long.
        let _all = world.wait(ROUND, |world| world.clients.are_done());
        if world.stage.watch.broken().is_none() {
            world.clients.stop();
            world.heal();
            rest(world)?;
        }
        if world.stage.watch.broken().is_some() {
            return Ok(());
        }
    }
    if world.stage.shape.mix.processes == 0 {
        return Ok(());
    }
    let slept = world.run(QUIET);
    if slept { sleep(world) } else { Ok(()) }
}

/// All is well but for one node, which stands still: nobody may feel it but those who need just that one.
fn sleep(world: &mut World) -> Result<(), Stuck> {
    let members = world.members();
    let at = members[world.stage.chance.index(members.len())];
    world.stall(at, Part::All);
    world.clients.go(CALLS_BESIDE, &mut world.stage);
    let _all = world.wait(SLEEP, |world| world.clients.are_done());
    world.clients.stop();
    world.resume(at);
    rest(world)
}

/// A cluster of all nodes is founded.
pub(super) fn found(world: &mut World) -> Result<(), Stuck> {
    let nodes = world.stage.shape.nodes;
    let founder = world.add();
    world.start(founder);
    let founded = world.wait(FOUNDED, |world| world.nodes[founder].view().is_some());
    founded.ok_or(("liveness", "no cluster was founded".to_owned()))?;
    for _ in 1..nodes {
        let at = world.add();
        let known = world.nodes[founder].knowledge().expect("it runs");
        world.nodes[at].join(known).expect("its name is its own");
        world.start(at);
    }
    let agreed = world.wait(FOUNDED, |world| agree(world) && world.members().len() == nodes);
    stuck_unless(world, agreed, || "the founders have not come together".to_owned())
}

fn stuck_unless(world: &World, came: Option<Duration>, what: impl FnOnce() -> String) -> Result<(), Stuck> {
    match came {
        Some(_) => Ok(()),
        None if world.stage.watch.broken().is_some() => Ok(()),
        None => Err(("liveness", what())),
    }
}

/// Whether all nodes that run go by one layout, and no change is under way.
pub(super) fn agree(world: &World) -> bool {
    let mut views = world.nodes.iter().filter(|node| node.is_alive()).map(|node| node.view());
    let Some(Some(first)) = views.next() else { return false };
    let stamp = first.layout.stamp();
    let agrees = |view: Option<&std::sync::Arc<crate::protocol::ring::View>>| {
        view.is_some_and(|view| view.change.is_none() && view.layout.stamp() == stamp)
    };
    agrees(Some(first)) && views.all(agrees)
}

/// Faults have ended: what is under way ends, everything comes to rest, and every request is done.
fn rest(world: &mut World) -> Result<(), Stuck> {
    world.wake_operator();
    let _found_each_other = world.wait(LINKS, |_| false);
    let done = world.wait(RESTS, |world| world.clients.are_done() && world.operator.is_done());
    stuck_unless(world, done, || format!("calls or orders have no end: {:?}", world.operator))?;
    let agreed = world.wait(RESTS, agree);
    stuck_unless(world, agreed, || format!("changes do not end: {}", steps(world)))?;
    let converged = world.wait(RESTS, |world| unrest(world).is_none());
    stuck_unless(world, converged, || format!("no rest: {}", unrest(world).unwrap_or_default()))?;
    ask_all(world)?;
    let converged = world.wait(RESTS, |world| unrest(world).is_none());
    stuck_unless(world, converged, || format!("no rest: {}", unrest(world).unwrap_or_default()))?;
    if world.stage.watch.broken().is_some() {
        return Ok(());
    }
    world.stage.coverage.reach(Reach::CameToRest);
    if world.nodes.iter().flat_map(|node| node.stats()).any(|stats| 0 < stats.tombstones_forgotten) {
        world.stage.coverage.reach(Reach::TombstonesForgotten);
    }
    let rest = at_rest(world);
    let now = world.stage.now;
    world.stage.watch.rested(now, &rest);
    Ok(())
}

fn steps(world: &World) -> String {
    let step = |at: At| {
        let view = world.nodes[at].view()?;
        Some(format!("n{at}: {:?} {:?}", view.stamp().number, view.change.as_ref().map(|change| change.step)))
    };
    (0..world.nodes.len()).filter_map(step).collect::<Vec<_>>().join(", ")
}

/// Every key is read once, and that succeeds.
fn ask_all(world: &mut World) -> Result<(), Stuck> {
    let keys: Vec<_> = world.stage.watch.truth.keys.keys().cloned().collect();
    for key in keys {
        let members = world.members();
        let node = members[world.stage.chance.index(members.len())];
        let request = Request::Get(Get { key: key.clone(), terms: Terms { strict: true, ..Terms::default() } });
        let failed = world.stage.coverage.count(Reach::QuorumNotMet);
        world.clients.send(0, node, request, &mut world.stage);
        let answered = world.wait(Duration::from_secs(6), |world| world.clients.are_done());
        stuck_unless(world, answered, || format!("a read of {key} at n{node} has no end"))?;
        if failed < world.stage.coverage.count(Reach::QuorumNotMet) {
            return Err(("liveness", format!("a read of {key} at n{node} fails though all is well")));
        }
    }
    Ok(())
}

/// What is not at rest yet, if anything is not.
pub(super) fn unrest(world: &World) -> Option<String> {
    let members = world.members();
    for at in &members {
        let node = &world.nodes[*at];
        if !node.is_alive() {
            return Some(format!("n{at} does not run"));
        }
        let sees = |other: &At| {
            let view = node.view();
            let seen = view.and_then(|view| view.member(world.stage.posts[*other].id));
            seen.is_some_and(|member| member.liveness == Liveness::Up)
        };
        if let Some(other) = members.iter().find(|other| !sees(other)) {
            return Some(format!("n{at} does not see n{other}"));
        }
        let leftovers: u64 = node.stats().map(|stats| stats.leftover_partitions).sum();
        if 0 < leftovers {
            return Some(format!("n{at} has leftovers in {leftovers} partitions"));
        }
    }
    // Whoever has left still owes what it took in for others.
    for (at, node) in world.nodes.iter().enumerate() {
        let hints: u64 = node.stats().map(|stats| stats.hints_waiting).sum();
        if 0 < hints {
            return Some(format!("n{at} owes {hints} hints"));
        }
        // A write that began while the disk was slow may be under way long after.
        if 0 < node.unsynced() {
            return Some(format!("n{at} has {} appends that are not durable", node.unsynced()));
        }
    }
    let view = world.nodes[*members.first()?].view()?.clone();
    for partition in (0..world.stage.shape.partitions).map(Partition) {
        let owners: Vec<At> = view.layout.owners(partition).filter_map(|owner| world.stage.at(owner)).collect();
        if let Some(at) = owners.iter().find(|at| !world.nodes[**at].is_alive()) {
            return Some(format!("n{at} owns {partition:?}, and does not run"));
        }
        let sums: Vec<_> = owners.iter().map(|at| world.nodes[*at].sum(partition)).collect();
        if sums.windows(2).any(|pair| pair[0].root != pair[1].root) {
            return Some(format!("the owners {owners:?} of {partition:?} differ: {sums:?}"));
        }
        let strangers = members.iter().filter(|at| !owners.contains(at));
        if let Some(at) = strangers.into_iter().find(|at| 0 < world.nodes[**at].sum(partition).keys) {
            return Some(format!("n{at} holds keys of {partition:?}, which it does not own"));
        }
        let may_forget = world.stage.shape.tombstone_age <= Duration::from_secs(60);
        if may_forget && sums.iter().any(|sum| 0 < sum.buried) {
            return Some(format!("tombstones of {partition:?} are not forgotten: {sums:?}"));
        }
    }
    let busy = members.iter().find(|at| 0 < world.nodes[**at].under_way());
    busy.map(|at| format!("n{at} has not forgotten what has ended"))
}

fn at_rest(world: &mut World) -> Rest {
    let members = world.members();
    let view = world.nodes[members[0]].view().expect("it is at rest").clone();
    let ring = world.stage.ring();
    let owners = |key| view.layout.owners(ring.partition(key)).filter_map(|owner| world.stage.at(owner)).collect();
    let keys = world.stage.watch.truth.keys.keys();
    let owners: BTreeMap<_, Vec<At>> = keys.map(|key| (key.clone(), owners(key))).collect();
    Rest { members, owners }
}
