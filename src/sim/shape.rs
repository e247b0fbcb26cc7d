//! What a run is like: sizes, times and rates, all drawn from its seed.

use std::time::Duration;

use super::chance::Chance;
use crate::protocol::ring::Wanted;
use crate::protocol::types::ClusterId;
use crate::wire::proof::Secret;

/// A kind of weather that can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Everything at once, as the seed will have it.
    Default,
    /// As the default, in clusters of five nodes with three copies.
    Five,
    /// No faults at all.
    Calm,
    /// The network alone.
    Network,
    /// Disks alone.
    Disks,
    /// Crashes, stalls and restarts alone.
    Processes,
    /// Owners change, beside mild weather.
    Changes,
    /// Much is deleted, and tombstones are forgotten soon.
    Deletes,
    /// Everything at once, and soon over.
    Small,
}

impl Scenario {
    /// All of them.
    pub const ALL: &[Scenario] = &[
        Scenario::Default,
        Scenario::Five,
        Scenario::Calm,
        Scenario::Network,
        Scenario::Disks,
        Scenario::Processes,
        Scenario::Changes,
        Scenario::Deletes,
        Scenario::Small,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Default => "default",
            Scenario::Five => "five",
            Scenario::Calm => "calm",
            Scenario::Network => "network",
            Scenario::Disks => "disks",
            Scenario::Processes => "processes",
            Scenario::Changes => "changes",
            Scenario::Deletes => "deletes",
            Scenario::Small => "small",
        }
    }

    /// What it is like.
    pub fn about(self) -> &'static str {
        match self {
            Scenario::Default => "everything at once, as the seed will have it",
            Scenario::Five => "as the default, in clusters of five nodes with three copies",
            Scenario::Calm => "no faults at all",
            Scenario::Network => "the network alone",
            Scenario::Disks => "disks alone",
            Scenario::Processes => "crashes, stalls, restarts and clocks alone",
            Scenario::Changes => "owners change all the time, beside mild weather",
            Scenario::Deletes => "much is deleted, and tombstones are forgotten soon",
            Scenario::Small => "everything at once in a few calls: a run takes milliseconds",
        }
    }
}

/// Sizes of the store of a core: small, so that a short run goes through everything that a large store goes through.
#[derive(Clone, Copy, Debug)]
pub struct StoreSizes {
    /// See [`EngineConfig`](crate::store::EngineConfig).
    pub overlay_bytes_max: u64,
    /// See [`EngineConfig`](crate::store::EngineConfig).
    pub queue_bytes_max: u64,
    /// See [`EngineConfig`](crate::store::EngineConfig).
    pub cache_bytes: u64,
    /// See [`EngineConfig`](crate::store::EngineConfig).
    pub chunk_bytes: u64,
    /// See [`EngineConfig`](crate::store::EngineConfig).
    pub chunk_age: Duration,
    /// See [`EngineConfig`](crate::store::EngineConfig).
    pub log_bytes_max: u64,
    /// See [`LogConfig`](crate::store::wal::log::LogConfig).
    pub write_bytes_max: usize,
    /// See [`LogConfig`](crate::store::wal::log::LogConfig).
    pub segment_bytes_min: u64,
    /// See [`LogConfig`](crate::store::wal::log::LogConfig).
    pub segment_bytes_max: u64,
}

/// How often which fault is chosen, against the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mix {
    /// Crashes, power losses, stalls, restarts.
    pub processes: u64,
    /// Cuts, slow ways, clogged ways, broken connections.
    pub network: u64,
    /// Slow, full and failing disks.
    pub disks: u64,
    /// Disks that are lost or rot.
    pub losses: u64,
    /// Clocks that jump or drift.
    pub clocks: u64,
    /// What operators do.
    pub members: u64,
}

/// Everything that was drawn for one run.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its secret.
    pub secret: Secret,
    /// Partitions of its ring.
    pub partitions: u16,
    /// Copies and quorums.
    pub wanted: Wanted,
    /// Nodes that found it.
    pub nodes: usize,
    /// Nodes that may join it.
    pub spares: usize,
    /// Cores of a node, at most.
    pub cores: u16,
    /// Joins commit by themselves.
    pub auto_join: bool,
    /// A message's way takes from so much to twice as much.
    pub hop: Duration,
    /// So does a sync.
    pub sync: Duration,
    /// A read of the tree takes at most so much.
    pub read: Duration,
    /// Sizes of the stores.
    pub store: StoreSizes,
    /// See [`Birth`](crate::protocol::shard::Birth).
    pub transfer_rate: u64,
    /// See [`Birth`](crate::protocol::shard::Birth).
    pub compare_period: Duration,
    /// See [`Birth`](crate::protocol::shard::Birth).
    pub keeps_hints: bool,
    /// See [`Birth`](crate::protocol::shard::Birth).
    pub tombstone_age: Duration,
    /// Clients.
    pub clients: usize,
    /// Between two calls of a client, at most.
    pub think: Duration,
    /// Keys that they share.
    pub keys: u64,
    /// Calls of all clients in one round of faults.
    pub calls: u64,
    /// Rounds of faults, each of which ends in peace.
    pub rounds: u64,
    /// Of a thousand writes, so many are deletes.
    pub deletes: u64,
    /// The smallest W that clients ask for.
    pub least_w: u8,
    /// Between two faults, at most; none at all where it is zero.
    pub mischief: Duration,
    /// So many faults at most last at once.
    pub at_once: usize,
    /// Which faults.
    pub mix: Mix,
    /// Of a thousand messages, so many are lost, late, doubled while the weather is bad.
    pub weather: (u64, u64, u64),
}

impl Shape {
    /// Draws one.
    pub fn draw(scenario: Scenario, chance: &mut Chance) -> Shape {
        let ms = Duration::from_millis;
        let wanted = wanted(chance);
        let kib = 1_024;
        let nodes = usize::from(wanted.n) + chance.index(3);
        // One chunk fills while another is ingested, as the daemon shares out its memory.
        let chunk_bytes = chance.pick(&[6, 16, 64]) * kib;
        let overlay_bytes_max = (chance.pick(&[64, 128, 512]) * kib).max(2 * chunk_bytes);
        let mut shape = Shape {
            cluster: ClusterId(u128::from(chance.bits())),
            secret: Secret::new(b"rehearsal"),
            partitions: chance.pick(&[8, 16, 32]),
            wanted,
            nodes,
            spares: chance.index(3),
            cores: chance.pick(&[1, 1, 2, 3]),
            auto_join: chance.thousandth(300),
            hop: Duration::from_micros(chance.between(50, 400)),
            sync: Duration::from_micros(chance.between(100, 1_500)),
            read: Duration::from_micros(chance.between(20, 3_000)),
            store: StoreSizes {
                overlay_bytes_max,
                queue_bytes_max: chance.pick(&[32, 128]) * kib,
                cache_bytes: chance.pick(&[4, 16, 64]) * kib,
                chunk_bytes,
                chunk_age: ms(chance.pick(&[40, 300, 2_000])),
                log_bytes_max: chance.pick(&[48, 96, 256]) * kib,
                write_bytes_max: 8 * 1_024,
                segment_bytes_min: 12 * kib,
                segment_bytes_max: chance.pick(&[32, 64]) * kib,
            },
            transfer_rate: chance.pick(&[64 * kib, 1_024 * kib]),
            compare_period: ms(chance.pick(&[1_000, 3_000, 5_000])),
            keeps_hints: !chance.thousandth(250),
            tombstone_age: ms(chance.pick(&[3_000, 3_000, 10_000, 3_600_000])),
            clients: 2 + chance.index(8),
            think: Duration::from_micros(chance.pick(&[500, 2_000, 8_000])),
            keys: chance.pick(&[4, 12, 60]),
            calls: chance.between(300, 1_500),
            rounds: chance.between(1, 2),
            deletes: chance.pick(&[50, 150, 400]),
            least_w: 1,
            mischief: ms(chance.pick(&[20, 60, 200])),
            at_once: chance.pick(&[1, 2, 3, 5]),
            mix: Mix { processes: 8, network: 8, disks: 4, losses: 1, clocks: 2, members: 3 },
            weather: (chance.below(20), chance.below(60), chance.below(20)),
        };
        shape.suit(scenario, chance);
        if 0 < shape.mix.losses {
            // Whoever loses disks must have acknowledged on two at least.
            shape.least_w = 2;
        }
        shape
    }

    fn suit(&mut self, scenario: Scenario, chance: &mut Chance) {
        let none = Mix::default();
        let all = self.mix;
        match scenario {
            Scenario::Default => self.be_stormy(chance),
            Scenario::Five => {
                (self.wanted, self.nodes) = (Wanted { n: 3, r: 2, w: 2 }, 5);
                self.be_stormy(chance);
            }
            Scenario::Calm => (self.mix, self.weather, self.mischief) = (none, (0, 0, 0), Duration::ZERO),
            Scenario::Network => self.mix = Mix { network: all.network, ..none },
            Scenario::Disks => {
                self.mix = Mix { disks: all.disks, losses: if 2 <= self.wanted.w { 1 } else { 0 }, ..none };
            }
            Scenario::Processes => self.mix = Mix { processes: all.processes, clocks: all.clocks, ..none },
            Scenario::Changes => {
                self.mix = Mix { members: 8, processes: 2, network: 2, ..none };
                self.spares = 3;
            }
            Scenario::Deletes => {
                self.mix.losses = 0;
                self.deletes = 500;
                self.tombstone_age = Duration::from_secs(3);
            }
            Scenario::Small => self.be_small(chance),
        }
    }

    fn be_stormy(&mut self, chance: &mut Chance) {
        // Losses bind W, so many runs are without.
        if self.wanted.w < 2 || chance.thousandth(300) {
            self.mix.losses = 0;
        } else if chance.thousandth(500) {
            self.mix.losses = 6;
        }
        // In some, owners change all the time.
        if chance.thousandth(400) {
            (self.mix.members, self.spares) = (12, 3);
        }
    }

    /// Three nodes and few calls, but as many faults a second as anywhere.
    fn be_small(&mut self, chance: &mut Chance) {
        (self.wanted, self.nodes, self.spares) = (Wanted { n: 3, r: 2, w: 2 }, 3, chance.index(2));
        (self.partitions, self.clients, self.keys) = (8, 3, 3);
        (self.calls, self.rounds) = (chance.between(20, 80), 1);
        (self.think, self.mischief) = (Duration::from_millis(20), Duration::from_millis(20));
    }

    /// How long a read of the tree takes.
    pub fn read_time(&self, chance: &mut Chance) -> Duration {
        chance.time(self.read / 4, self.read)
    }

    /// How long an ingestion takes.
    pub fn ingest_time(&self, chance: &mut Chance) -> Duration {
        chance.time(self.sync, 20 * self.sync)
    }
}

/// Mostly 3, 2, 2.
fn wanted(chance: &mut Chance) -> Wanted {
    let (n, r, w) = chance.pick(&[
        (3, 2, 2),
        (3, 2, 2),
        (3, 2, 2),
        (3, 2, 2),
        (3, 1, 3),
        (3, 3, 1),
        (2, 1, 2),
        (2, 2, 1),
        (5, 3, 3),
        (1, 1, 1),
    ]);
    Wanted { n, r, w }
}
