//! Every bound and every default of the protocol, each with its reason.

use std::time::Duration;

/// Longest key. Keys are held in memory by the overlay and travel in every message; 1 KiB is what Riak users
/// settled on.
pub const KEY_BYTES_MAX: usize = 1_024;

/// Longest value. A value is read into memory whole; the seed's API promises 10 MiB.
pub const VALUE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Longest operation id: room for a UUID in text and a prefix.
pub const OPERATION_ID_BYTES_MAX: usize = 64;

/// Most siblings that a client's write may leave in a set (Riak's `max_siblings`). Merges are never refused.
pub const SIBLINGS_MAX: usize = 100;

/// Most bytes of a set that a client's write may leave. Room for one largest value with some siblings.
pub const SET_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most entries that a client's write may leave in a set's version vector: an entry is 16 bytes, so 64 KiB.
/// An actor that ended leaves its entry behind until its tombstones are collected.
pub const CLOCK_ENTRIES_MAX: usize = 4_096;

/// Most entries that a decoder accepts: a merge may pass [`CLOCK_ENTRIES_MAX`], never by this much.
pub const CLOCK_ENTRIES_DECODED_MAX: usize = 4 * CLOCK_ENTRIES_MAX;

/// Most versions that a decoder accepts in one set: a merge of a few sets, each at [`SIBLINGS_MAX`].
pub const SIBLINGS_DECODED_MAX: usize = 64 * SIBLINGS_MAX;

/// Most keys of one batch GET or PUT. A batch is a convenience, not a bulk loader: pipeline batches instead.
pub const BATCH_KEYS_MAX: usize = 1_024;

/// Most keys of one page of a listing.
pub const PAGE_KEYS_MAX: usize = 1_000;

/// Equal partitions of the ring, fixed when the cluster is founded. 1,024 gives a 100-node cluster ten for each node.
pub const PARTITIONS: u16 = 1_024;

/// Most partitions: 32 for each of [`NODES_MAX`] nodes.
pub const PARTITIONS_MAX: u16 = 32_768;

/// Most nodes of a cluster, in its layout or not. A layout of so many at 3 copies of 1,024 partitions has 70 KB, their
/// rows stay below 1 MiB, and each core links to every core of every node.
pub const NODES_MAX: usize = 1_000;

/// Most copies of a key. Beyond a handful they serve tests and odd wishes only, and a reply counts them in a byte.
pub const COPIES_MAX: u8 = 32;

/// Longest name of a node: what DNS allows, so that a host's name is one.
pub const NODE_NAME_BYTES_MAX: usize = 255;

/// Longest name of a zone: `eu-central-1a` and a rack. It travels in every row.
pub const ZONE_BYTES_MAX: usize = 64;

/// Largest weight: enough to say a disk's size in GiB.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// Default copies of a key, and the default quorums, where the layout says nothing else.
pub const N_DEFAULT: u8 = 3;

/// Time that an operation id is remembered (running time, not wall time). The seed's 600 s.
pub const OPERATION_MEMORY: Duration = Duration::from_secs(600);

/// Most operation ids that a core remembers; the oldest goes first. With the bound in bytes, some 32 MiB a core.
pub const OPERATIONS_MAX: usize = 65_536;

/// Most bytes of keys, ids and clocks that the memory of operations holds on a core.
pub const OPERATIONS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A request without a deadline of its own ends after this.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);

/// No request may ask for more time than this: what waits holds memory.
pub const DEADLINE_MAX: Duration = Duration::from_secs(60);

/// Most requests that wait on one core, for the store or for the log, and most loads that the store owes it, also for
/// requests whose deadline is over. At 64 KiB of clock and reply each it bounds the tables; beyond it a request is
/// refused as overloaded.
pub const WAITING_MAX: usize = 65_536;

/// Most bytes of writes that wait on one core for the state that they are minted upon: three of the largest. A store
/// that hangs must not fill the memory with what came in meanwhile.
pub const MINTING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Most listings under way on one core. Each holds a copy of the overlay's part of its range, and the store serves
/// one at a time.
pub const LISTINGS_MAX: usize = 16;

/// What a refusal for lack of room tells the client to wait: about one group commit of a busy disk.
pub const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A question to a peer is given up after this, and whoever was asked is silent: as long as it takes until a silent
/// node is known to be down.
pub const ASK_PATIENCE: Duration = Duration::from_secs(2);

/// A read without its R, and a write without its W, asks others as well after this: several times the round trip and
/// the sync of a node that is well.
pub const EXTEND_AFTER: Duration = Duration::from_millis(25);

/// A peer that let a question wait is asked after the others for this long.
pub const SILENT_FOR: Duration = Duration::from_secs(1);

/// One read in so many asks all owners, so that a replica that is never among the R best is repaired too (fault 4 of
/// the seed systems), and its latency stays known.
pub const READ_ALL_ONE_IN: u64 = 16;

/// Most reads whose answer is out while owners are still heard for the sake of repair.
pub const LATE_READS_MAX: usize = 4_096;

/// Most bytes of keys that a core keeps hints for, with what each takes beside its key: some 400,000 short keys.
pub const HINTS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Deliveries of hints to one target that may be under way at once, from one core: at first and after failures, and
/// when all goes well. A returning node has its clients to serve as well.
pub const HINTS_IN_FLIGHT_MIN: usize = 4;
/// See [`HINTS_IN_FLIGHT_MIN`].
pub const HINTS_IN_FLIGHT_MAX: usize = 64;

/// Most sets, keys or digests in one message about a partition. Whoever asks takes so many keys at a time that both
/// ways fit.
pub const PAGE_SETS_MAX: usize = 65_536;

/// Between two comparisons of all that a core shares with a core of another node. Equal ones cost some 250 bytes.
pub const COMPARE_PERIOD: Duration = Duration::from_secs(5);

/// Partitions that differ are looked at again after this: what was under way in the first look has come by then.
pub const COMPARE_AGAIN: Duration = Duration::from_secs(1);

/// Comparisons of a core that may be under way at once.
pub const COMPARES_MAX: usize = 4;

/// Looks at the trees and the keys of a core that peers may have under way at once; others are refused as overloaded.
pub const LOOKS_MAX: usize = 64;

/// A page of sets ends with the set by which it holds so many bytes: some milliseconds of a slow network.
pub const PULL_BYTES: usize = 256 * 1024;

/// Keys whose digests are exchanged at a time: 32 KiB of digests, and at most 4 MiB of names in memory.
pub const SYNC_NAMES: usize = 4_096;

/// Keys that are looked at for a page of which no sets are wanted.
pub const SYNC_NAMES_SERVED: usize = 16_384;

/// Sets of one partition that are taken in, sent or dropped at once, for one peer.
pub const SYNC_SETS_AT_ONCE: usize = 32;

/// Partitions of a core that are synced at once. A change fetches each of a thousand partitions from some owners, at
/// one to three round trips: with 50 ms for each that takes half a minute so, and minutes one by one. Each has a page.
pub const SYNCS_MAX: usize = 8;

/// Partitions that others own which a core clears up at once, in a round trip or more with each owner. Whoever leaves
/// waits for it.
pub const LEFTOVERS_MAX: usize = 4;

/// A partition that could not be synced with a peer is left alone for this long.
pub const SYNC_PAUSE: Duration = Duration::from_secs(1);

/// Bytes a second that a node fetches for a change of owners, unless a setting says otherwise: half of what a gigabit
/// carries, so that requests have the other half.
pub const TRANSFER_BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;

/// Between two looks for keys of partitions that this node does not own.
pub const LEFTOVERS_PERIOD: Duration = Duration::from_secs(5);

/// After a delivery that failed the target is left alone for this long.
pub const HINTS_PAUSE: Duration = Duration::from_millis(500);

/// Tombstones are kept for so long, counted in the running time of whoever leads the rounds that forget them: longer than
/// [`OPERATION_MEMORY`], or a retry of the write that was deleted would write it again.
pub const TOMBSTONE_AGE: Duration = Duration::from_secs(3_600);

/// Between two looks for tombstones.
pub const TOMBSTONE_PERIOD: Duration = Duration::from_secs(5);

/// Most tombstones whose age a core counts, 8 bytes each; the others begin to age when there is room.
pub const TOMBSTONES_SEEN_MAX: usize = 1 << 20;

/// Rounds that a core leads at once, and the partitions it looks at for the first time. There is no hurry: clients come
/// first.
pub const ROUNDS_AT_ONCE: usize = 4;

/// Most keys of one round, and bytes of them: they travel in one message, and are held until the round has ended.
pub const ROUND_KEYS_MAX: usize = 4_096;
/// See [`ROUND_KEYS_MAX`].
pub const ROUND_BYTES_MAX: usize = 256 * 1024;

/// Keys of a round that are looked up at once, beside what clients want of the store.
pub const ROUND_IN_FLIGHT: usize = 64;

/// A round ends without success after this: whatever is under way for so long may be so for ever.
pub const ROUND_PATIENCE: Duration = Duration::from_secs(30);

/// A member that was not done is asked again after this.
pub const ROUND_AGAIN: Duration = Duration::from_secs(1);

/// After a round that came to nothing the next one of its partition waits for this; twice as long after each.
pub const ROUND_PAUSE_MIN: Duration = Duration::from_secs(1);
/// See [`ROUND_PAUSE_MIN`].
pub const ROUND_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Retired keys are shown again after this, if they were not forgotten: their round came to nothing.
pub const RETIRED_FOR: Duration = Duration::from_secs(60);

const _: () = assert!(OPERATION_MEMORY.as_secs() < TOMBSTONE_AGE.as_secs());
const _: () = assert!(ROUND_KEYS_MAX <= PAGE_SETS_MAX);
const _: () = assert!(VALUE_BYTES_MAX + KEY_BYTES_MAX < SET_BYTES_MAX);
const _: () = assert!(PARTITIONS.is_power_of_two() && PARTITIONS_MAX.is_power_of_two());
const _: () = assert!(PARTITIONS <= PARTITIONS_MAX && N_DEFAULT <= COPIES_MAX && NODES_MAX <= u16::MAX as usize);
const _: () = assert!(CLOCK_ENTRIES_MAX < CLOCK_ENTRIES_DECODED_MAX && SIBLINGS_MAX < SIBLINGS_DECODED_MAX);

/// A core says this often that it has reached a step of a change of layout, until a view comes that goes on.
pub const REACHED_AGAIN: Duration = Duration::from_secs(1);
