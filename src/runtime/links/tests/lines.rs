//! When lines are dialed, on a clock of the test's own.

use metrics::NoopRecorder;

use super::*;

struct Table {
    links: Links,
    wishes: flume::Receiver<Wish>,
    metrics: CoreMetrics,
    now: Instant,
}

impl Table {
    fn new(seed: u64) -> Table {
        let (wish, wishes) = flume::unbounded();
        let links = Links::new(CoreId(3), wish, 1024 * 1024, seed);
        Table { links, wishes, metrics: CoreMetrics::new(Arc::new(NoopRecorder), CoreId(3)), now: Instant(0) }
    }

    fn see(&mut self, others: &[(&str, SocketAddr, Cores)]) {
        self.see_view(&view(others));
    }

    fn see_view(&mut self, view: &View) {
        assert!(self.links.on_view(self.now, view, &self.metrics).is_empty());
    }

    fn wishes(&self) -> Vec<Wish> {
        self.wishes.try_iter().collect()
    }

    fn fail(&mut self, wish: &Wish) {
        let to = (wish.node, wish.core);
        assert!(self.links.waits_for(to, wish.attempt));
        self.links.on_failed(self.now, to);
    }

    /// How long the next wish is waited for.
    fn wait(&mut self) -> (Duration, Wish) {
        let begun = self.now;
        loop {
            self.links.on_tick(self.now);
            if let [wish] = &self.wishes()[..] {
                return (self.now.since(begun), wish.clone());
            }
            self.now = self.now + Duration::from_millis(1);
            assert!(self.now.since(begun) < LIMIT, "it never wishes again");
        }
    }
}

#[test]
fn all_cores_of_all_others_are_dialed_ahead() {
    let mut table = Table::new(1);
    table.see(&[("node-b", nowhere(), Cores { count: 3, salt: 7 }), ("node-c", nowhere(), ONE_CORE)]);
    let mut wished: Vec<_> = table.wishes().into_iter().map(|wish| (wish.from, wish.node, wish.core)).collect();
    wished.sort_unstable();
    let mut expected: Vec<_> = (0..3).map(|core| (CoreId(3), node_b(), CoreId(core))).collect();
    expected.push((CoreId(3), NodeId::of("node-c"), CoreId(0)));
    expected.sort_unstable();
    assert_eq!(wished, expected);

    table.see(&[("node-b", nowhere(), Cores { count: 3, salt: 7 }), ("node-c", nowhere(), ONE_CORE)]);
    assert_eq!(table.wishes(), [], "nothing is dialed twice");
    table.see(&[("node-b", nowhere(), Cores { count: 3, salt: 8 })]);
    assert_eq!(table.wishes().len(), 3, "one that was started anew with another salt is another");
}

#[test]
fn tries_that_fail_are_repeated_after_longer_waits_with_jitter() {
    let mut seen = vec![];
    for seed in 0..8 {
        let mut table = Table::new(seed);
        table.see(&[("node-b", nowhere(), ONE_CORE)]);
        let mut wish = table.wishes().remove(0);
        let mut waits = vec![];
        for failures in 1..=10 {
            table.fail(&wish);
            let wait;
            (wait, wish) = table.wait();
            assert_eq!(wish.failures, failures);
            let longest = (BACKOFF_MIN * 2 * 2_u32.pow(failures - 1)).min(BACKOFF_MAX);
            assert!((longest / 2..=longest + Duration::from_millis(1)).contains(&wait), "{wait:?} after {failures}");
            waits.push(wait);
        }
        assert!(BACKOFF_MAX / 2 <= waits[9] && waits[0] < 2 * BACKOFF_MIN + Duration::from_millis(1));
        seen.push(waits);
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 8, "no two cores wait alike");
}

#[test]
fn a_wish_that_nobody_answers_is_given_up_and_made_again() {
    let mut table = Table::new(1);
    table.see(&[("node-b", nowhere(), ONE_CORE)]);
    let first = table.wishes().remove(0);
    let (wait, second) = table.wait();
    assert!(DIAL_MAX <= wait && wait < DIAL_MAX + BACKOFF_MAX);
    assert!(!table.links.waits_for((first.node, first.core), first.attempt));
    assert!(table.links.waits_for((second.node, second.core), second.attempt));
}

#[test]
fn a_peer_that_is_back_is_dialed_at_once() {
    let mut table = Table::new(1);
    let shown = |liveness| {
        let mut view = View::clone(&view(&[("node-b", nowhere(), ONE_CORE)]));
        view.members.iter_mut().filter(|member| member.node == node_b()).for_each(|member| member.liveness = liveness);
        view
    };
    table.see_view(&shown(Liveness::Up));
    let mut wish = table.wishes().remove(0);
    for _ in 0..8 {
        table.fail(&wish);
        wish = table.wait().1;
    }
    table.fail(&wish);
    table.see_view(&shown(Liveness::Suspect));
    table.see_view(&shown(Liveness::Down));
    assert_eq!(table.wishes(), []);
    table.see_view(&shown(Liveness::Up));
    let wish = table.wishes().remove(0);
    assert_eq!(wish.failures, 0);
    table.fail(&wish);
    assert!(table.wait().0 <= 2 * BACKOFF_MIN, "its waits begin anew");
}

#[test]
fn a_member_that_leaves_is_dialed_no_more() {
    let mut table = Table::new(1);
    table.see(&[("node-b", nowhere(), ONE_CORE), ("node-c", nowhere(), ONE_CORE)]);
    for wish in table.wishes() {
        table.fail(&wish);
    }
    table.see(&[]);
    table.now = table.now + LIMIT;
    table.links.on_tick(table.now);
    assert_eq!(table.wishes(), []);
    assert!(table.links.due.is_empty() && table.links.peers.is_empty());
}

#[test]
fn names_that_are_counted_are_bounded() {
    let mut table = Table::new(1);
    for n in 0..NAMES_MAX + 50 {
        let name = format!("node-{n}");
        table.see(&[(&name, nowhere(), ONE_CORE)]);
    }
    assert!(table.links.counted.len() <= NAMES_MAX + 1);
}
