//! Which key: uniform, zipfian or the latest, as YCSB chooses (Cooper et al., SoCC 2010).

use super::random::Random;

/// How often which key is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Every key as often as any other.
    Uniform,
    /// A few keys very often, strewn over all of them.
    Zipfian,
    /// The newest keys most often.
    Latest,
}

impl Distribution {
    /// All of them, by the names that people give.
    pub const NAMES: [(&str, Distribution); 3] =
        [("uniform", Distribution::Uniform), ("zipfian", Distribution::Zipfian), ("latest", Distribution::Latest)];

    /// The one of that name.
    pub fn named(name: &str) -> Option<Distribution> {
        Distribution::NAMES.iter().find(|(known, _)| *known == name).map(|&(_, distribution)| distribution)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Distribution::NAMES.iter().find(|(_, known)| *known == self).expect("every one has a name").0
    }
}

/// The exponent of all zipfian choices.
const THETA: f64 = 0.99;

/// YCSB draws a scrambled key's rank from this many items, however many keys there are, and knows their zeta: 1 + 1/2^θ
/// + 1/3^θ and so on.
const SCRAMBLED_ITEMS: u64 = 10_000_000_000;
const SCRAMBLED_ZETA: f64 = 26.469_028_201_783_02;

/// Chooses a key's number below a bound that may grow.
#[derive(Clone, Debug)]
pub enum Chooser {
    /// See [`Distribution::Uniform`].
    Uniform,
    /// Ranks of a zipfian, hashed over all keys.
    Scrambled(Zipfian),
    /// Ranks of a zipfian, counted back from the newest key.
    Latest(Zipfian),
}

impl Chooser {
    /// One for `keys` keys, at least 1. For the latest it takes a sum over all keys: 20 ms a million.
    pub fn new(distribution: Distribution, keys: u64) -> Chooser {
        match distribution {
            Distribution::Uniform => Chooser::Uniform,
            Distribution::Zipfian => Chooser::Scrambled(Zipfian::with_zeta(SCRAMBLED_ITEMS, SCRAMBLED_ZETA)),
            Distribution::Latest => Chooser::Latest(Zipfian::new(keys)),
        }
    }

    /// A number below `keys`, which never shrinks and is at least 1.
    pub fn choose(&mut self, keys: u64, random: &mut Random) -> u64 {
        match self {
            Chooser::Uniform => random.below(keys),
            Chooser::Scrambled(ranks) => scramble(ranks.rank(random)) % keys,
            Chooser::Latest(ages) => {
                ages.grow(keys);
                keys - 1 - ages.rank(random)
            }
        }
    }
}

/// Ranks from 0, of which rank r comes in proportion to 1 / (r + 1)^θ: the method of Gray et al., "Quickly generating
/// billion-record synthetic databases" (SIGMOD 1994). It needs the sum of all weights, zeta, and no table.
#[derive(Clone, Debug)]
pub struct Zipfian {
    items: u64,
    zeta: f64,
    eta: f64,
}

impl Zipfian {
    /// Ranks below `items`, at least 1.
    pub fn new(items: u64) -> Zipfian {
        Zipfian::with_zeta(items, zeta(0, items, 0.0))
    }

    fn with_zeta(items: u64, zeta: f64) -> Zipfian {
        let eta = (1.0 - (2.0 / items as f64).powf(1.0 - THETA)) / (1.0 - zeta_of_two() / zeta);
        Zipfian { items, zeta, eta }
    }

    /// Goes on to more items, by adding their weights.
    pub fn grow(&mut self, items: u64) {
        if self.items < items {
            *self = Zipfian::with_zeta(items, zeta(self.items, items, self.zeta));
        }
    }

    /// The next rank.
    pub fn rank(&self, random: &mut Random) -> u64 {
        let unit = random.unit();
        let weight = unit * self.zeta;
        if weight < 1.0 {
            return 0;
        }
        if weight < zeta_of_two() {
            return 1.min(self.items - 1);
        }
        let rank = self.items as f64 * (self.eta * unit - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.items - 1)
    }
}

fn zeta_of_two() -> f64 {
    1.0 + 0.5f64.powf(THETA)
}

/// The sum of the weights of `to` ranks, of which those below `from` are in `sum`.
fn zeta(from: u64, to: u64, sum: f64) -> f64 {
    (from..to).fold(sum, |sum, rank| sum + 1.0 / ((rank + 1) as f64).powf(THETA))
}

/// YCSB's hash of a rank: FNV-1a over its eight bytes, the lowest first.
fn scramble(rank: u64) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = rank.to_le_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    hash.cast_signed().unsigned_abs()
}
