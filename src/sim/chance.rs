//! All chance of one run: from a seed, or from bytes that somebody else chooses, as a fuzzer does.

use std::time::Duration;

use crate::store::memory::Rng;

/// Chance that repeats.
#[derive(Clone, Debug)]
pub struct Chance {
    /// What is drawn first, as long as it lasts.
    script: std::vec::IntoIter<u8>,
    rng: Rng,
    /// Everything takes the least time that it can.
    is_prompt: bool,
}

impl Chance {
    /// The chance of a seed.
    pub fn new(seed: u64) -> Chance {
        Chance { script: Vec::new().into_iter(), rng: Rng::new(seed), is_prompt: false }
    }

    /// The chance of a seed, but for times: those are always the least.
    #[cfg(test)]
    pub fn prompt(seed: u64) -> Chance {
        Chance { is_prompt: true, ..Chance::new(seed) }
    }

    /// Bytes decide, and behind them the chance of what they hash to.
    pub fn scripted(bytes: &[u8]) -> Chance {
        let (script, rng) = (Vec::from(bytes), Rng::new(seahash::hash(bytes)));
        Chance { script: script.into_iter(), rng, is_prompt: false }
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.bits()
    }

    /// What the model disk draws from.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let Some(first) = self.script.next() else {
            return self.rng.bits() % bound;
        };
        let mut drawn = u64::from(first);
        if 256 < bound {
            let more: Vec<u8> = self.script.by_ref().take(3).collect();
            drawn = more.into_iter().fold(drawn, |drawn, byte| drawn << 8 | u64::from(byte));
        }
        drawn % bound
    }

    /// An index below `length`, which is not 0.
    pub fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True so many times in a thousand.
    pub fn thousandth(&mut self, of_thousand: u64) -> bool {
        0 < of_thousand && self.below(1_000) < of_thousand
    }

    /// A time from `least` to `most`.
    pub fn time(&mut self, least: Duration, most: Duration) -> Duration {
        if self.is_prompt {
            return least;
        }
        let micros = |time: Duration| u64::try_from(time.as_micros()).expect("no more than hours");
        Duration::from_micros(self.between(micros(least), micros(most).max(micros(least))))
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }
}
