//! Requests that come with what is held of their key are answered as those are that have it loaded.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// One step of a history, by numbers: what is done, to which key, and how.
type Step = (u8, u8, u8);

impl World {
    fn step(&mut self, (verb, which, how): Step, tokens: &mut BTreeMap<&'static str, Bytes>) {
        let name = ["a", "b", "a key too long to stand in the struct"][usize::from(which) % 3];
        let causality = match how % 4 {
            0 | 1 => Causality::Blind,
            2 => Causality::Sibling,
            _ => tokens.get(name).map_or(Causality::Blind, |token| Causality::Context(token.clone())),
        };
        let operation = (how % 5 == 0).then(|| format!("op-{}", how % 3));
        match verb % 10 {
            0..=3 => _ = self.ask(put_as(name, &how.to_string(), causality, operation.as_deref())),
            4 => {
                _ = self.ask(Request::Delete(Delete {
                    key: key(name),
                    causality,
                    operation: None,
                    terms: Terms::default(),
                }))
            }
            5 | 6 => _ = tokens.insert(name, self.get(name).context),
            7 => _ = self.ask(Request::Siblings(key(name))),
            8 if how % 16 == 0 => {
                self.log.clear();
                self.feed(Input::AppendsFailed { actor: ActorId(u64::from(how)) });
            }
            8 => {
                self.now = self.now + Duration::from_millis(u64::from(how) * 10);
                self.feed(Input::Tick);
            }
            _ => self.sync(),
        }
    }
}

proptest! {
    #[test]
    fn what_is_held_in_memory_changes_nothing_but_the_loads(
        steps in prop::collection::vec(any::<Step>(), 0..60),
    ) {
        let said = |knows| {
            let (mut world, mut tokens) = (World { knows, ..World::new() }, BTreeMap::new());
            steps.iter().for_each(|step| world.step(*step, &mut tokens));
            (world.said, world.durable, world.shard.actor())
        };
        prop_assert_eq!(said(true), said(false));
    }
}

#[test]
fn a_key_that_is_held_is_neither_loaded_nor_kept_waiting() {
    let mut world = World { knows: true, slow_loads: Some(vec![]), ..World::new() };
    world.ask(put("a", "1"));
    assert_eq!(world.log.len(), 1, "it is minted at once");
    world.sync();
    assert_eq!(world.values("a"), ["1"]);
    assert_eq!(world.slow_loads.as_deref(), Some(&[][..]));
    assert_eq!(world.shard.waiting.len(), 0);
}

#[test]
fn what_is_appended_wins_over_what_is_held() {
    let mut world = World { knows: true, ..World::new() };
    let first = world.ask(put("a", "1"));
    let second = world.written(put("a", "2"));
    let Ok(Reply::Written(first)) = world.outcome(first) else { panic!("the first is written") };
    assert_eq!(second.superseded[..], [first.dot], "the held state had not seen the first");
}
