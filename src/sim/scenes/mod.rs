//! Scenes of whole clusters: commands, and under each the conversation that it leads to. The conversation is written by
//! the nodes themselves, and reviewed as a diff: `SLOOP_BLESS=1 cargo test --lib -- scenes` rewrites the files in this
//! folder (docs/SIMULATION.md).
//!
//! ```text
//! # What the scene is about.
//! cluster nodes=4               begins; also n=3 r=2 w=2, age=3s (of tombstones), compare=1s (between comparisons)
//! > put k 1 at owner1           also: beside / in context, named ID, retry, strict, q=2, by ann
//! > get k at owner2
//! > delete k at owner1
//! > kill owner2 / start owner2
//! > cut owner1 from owner2 owner3 / mend
//! > lose the disk of owner2
//! > join new1 by owner1         a node asks a member for a place, and starts
//! > order leave owner2 at owner1 / order remove .. / order replace .. / order weight owner2 3 at ..
//! > order commit at owner1      calls and orders have half a second, or none where they end in "at once"
//! > wait 2s / wait until rest
//! > copies                      who holds the key k, and who owes it to whom
//!   client -> owner1: put k 1   lines with two spaces in front are the conversation
//! ```
//! There is one key, k. Nodes are called by what they were to it when the cluster was founded: `owner1` is its first
//! owner, `spare1` the first node that owns nothing of it, `new1` the first that came later. `#1` is the dot that the
//! scene shows first. Who says the same to several nodes says it in one line, and so do several nodes that say the same
//! to one, or note the same. Only what is about k is shown, and how layouts change: no gossip, no comparison, no time.
//! Every message takes as long as any other, so that small changes to the protocol leave most lines as they are.

mod script;
mod tale;
#[cfg(test)]
mod tests;

use crate::protocol::planted::Planted;
use script::Script;

/// What a scene's commands lead to: the scene with the conversation as it goes now, with a fault or without.
///
/// # Panics
/// Where a command is not understood, or a promise is broken.
fn play(scene: &str, planted: Planted) -> String {
    let mut script: Option<Script> = None;
    let mut played = String::new();
    for line in scene.lines().filter(|line| !line.starts_with("  ")) {
        played += line;
        played.push('\n');
        let words: Vec<&str> = line.split_whitespace().collect();
        match (&words[..], &mut script) {
            (["#", ..] | [], _) => {}
            (["cluster", settings @ ..], None) => script = Some(Script::begin(settings, planted)),
            ([">", command @ ..], Some(script)) => {
                for said in script.perform(command) {
                    played += &format!("  {said}\n");
                }
            }
            _ => panic!("not understood: {line}"),
        }
    }
    played
}
