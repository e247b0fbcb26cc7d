//! Who answers: SWIM with suspicion, by foca. The one file that knows foca.
//!
//! foca's identity is a node's *session*: a higher one replaces a lower one. It is new at every start, and foca renews
//! it when others took this node for down by mistake.
//!
//! ```text
//! payload   header, and what foca puts behind it
//! header    source, incarnation u16, destination, kind u8, [probe u8 | identity, probe u8]
//! identity  node u64, epoch u64, renewals u32, stamp u64, address
//! address   4 or 6 u8, 4 or 16 bytes, port u16
//! member    identity, incarnation u16, state u8
//! ```

use core::net::{IpAddr, SocketAddr};
use core::num::{NonZeroU8, NonZeroUsize};
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, TryGetError};
use foca::{Codec, Foca, Header, Member, Message, NoCustomBroadcast, Notification, PeriodicParams, Runtime, State};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

use super::PAYLOAD_BYTES_MAX;
use crate::protocol::ring::Liveness;
use crate::protocol::types::{Instant, NodeId};

/// A node is probed by each other one once in as many periods as there are nodes. Three nodes find a silent one within
/// two periods, one more until the probe has failed, and [`SUSPICION`]: 1.5 s; many nodes find it sooner.
pub(super) const PROBE_PERIOD: Duration = Duration::from_millis(250);

/// Beyond this a direct probe is helped by indirect ones. A round trip on one site takes a hundredth of it.
pub(super) const PROBE_RTT: Duration = Duration::from_millis(100);

/// What a suspect has to say that it is there. Stretched while our own loop is late.
pub(super) const SUSPICION: Duration = Duration::from_millis(750);

/// A node that was down for longer is forgotten by SWIM, and found again by its row.
const REMEMBER_DOWN: Duration = Duration::from_secs(24 * 3_600);

/// How often news are told, to three nodes each time.
const GOSSIP_PERIOD: Duration = Duration::from_millis(100);

/// How often a random node is asked for all that it knows: what was lost on the way is made up for.
const FEED_PERIOD: Duration = Duration::from_secs(10);

/// Times that a node tells one piece of news. Twice the logarithm of a thousand nodes.
const TRANSMISSIONS_MAX: u8 = 20;

/// Which life of a node this is; the greatest replaces the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Session {
    /// Generation and start of the data directory.
    pub epoch: u64,
    /// Times that it came back after others had taken it for down.
    pub renewals: u32,
    /// Random bits of the start.
    pub stamp: u64,
}

/// Whom a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its session.
    pub session: Session,
    /// Where it is.
    pub address: SocketAddr,
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    fn renew(&self) -> Option<Identity> {
        let renewals = self.session.renewals.checked_add(1)?;
        Some(Identity { session: Session { renewals, ..self.session }, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Identity) -> bool {
        adversary.session < self.session
    }
}

/// A timer of foca.
pub(super) type Timer = foca::Timer<Identity>;

/// Whether the timer passes a verdict on another node, which is to wait when our own loop was late.
pub(super) fn is_verdict(timer: &Timer) -> bool {
    matches!(timer, Timer::ProbeRandomMember(_) | Timer::ChangeSuspectToDown { .. })
}

/// What foca wants done.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Payloads to send.
    pub(super) sends: Vec<(SocketAddr, Bytes)>,
    /// Timers to set.
    pub(super) timers: Vec<(Timer, Duration)>,
    /// Others took this node for down, and it has come back with a new session.
    pub(super) has_renewed: bool,
    /// Whether probing goes on from now on, if that has changed.
    is_probing: Option<bool>,
}

impl Runtime<Identity> for Wanted {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::Active => self.is_probing = Some(true),
            Notification::Idle | Notification::Defunct => self.is_probing = Some(false),
            // It probes nobody before it has heard of somebody again.
            Notification::Rejoin(_) => (self.has_renewed, self.is_probing) = (true, Some(false)),
            Notification::MemberUp(_) | Notification::MemberDown(_) | Notification::Rename(..) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.sends.push((to.address, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer, after: Duration) {
        self.timers.push((event, after));
    }
}

/// The detector of one node.
pub(super) struct Swim {
    foca: Foca<Identity, Spelling, Xoshiro256PlusPlus, NoCustomBroadcast>,
    liveness: BTreeMap<NodeId, Liveness>,
    is_probing: bool,
    /// Suspects of sessions that have ended, and until when they have time; not set before it is looked at.
    inherited: Vec<Identity>,
    inherited_until: Option<Instant>,
}

impl Swim {
    /// A detector that knows nobody.
    pub(super) fn new(identity: Identity, seed: u64) -> Swim {
        let rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Swim {
            foca: Foca::new(identity, config(), rng, Spelling),
            liveness: BTreeMap::new(),
            is_probing: false,
            inherited: Vec::new(),
            inherited_until: None,
        }
    }

    /// Takes a payload in. One that is not understood changes nothing; says whether it was understood.
    pub(super) fn on_payload(&mut self, payload: &[u8], wanted: &mut Wanted) -> bool {
        let understood = match self.foca.handle_data(payload, &mut *wanted) {
            Ok(()) | Err(foca::Error::DataFromOurselves | foca::Error::IndirectForOurselves) => true,
            Err(_) => false,
        };
        self.inherit_suspects(wanted);
        self.look(wanted);
        understood
    }

    /// Takes the end of a timer in.
    pub(super) fn on_timer(&mut self, timer: Timer, wanted: &mut Wanted) {
        // A timer of a session that has ended is none any more. Nothing else is lost with an error: the probe cycle
        // begins again by itself.
        let _ = self.foca.handle_timer(timer, &mut *wanted);
        self.inherit_suspects(wanted);
        self.look(wanted);
    }

    /// Tells a node that this one is there, whichever session that one has.
    pub(super) fn announce(&mut self, node: NodeId, address: SocketAddr, wanted: &mut Wanted) {
        let session = Session { epoch: 0, renewals: 0, stamp: 0 };
        // Spelling one identity never fails.
        let _ = self.foca.announce(Identity { node, session, address }, wanted);
    }

    /// Tells others that this session ends.
    pub(super) fn leave(&mut self, wanted: &mut Wanted) {
        // Spelling one identity never fails.
        let _ = self.foca.leave_cluster(&mut *wanted);
    }

    /// How a node is seen. One that was never heard of is down.
    pub(super) fn liveness(&self, node: NodeId) -> Liveness {
        self.liveness.get(&node).copied().unwrap_or(Liveness::Down)
    }

    /// Whether it probes others. Until it has heard of one it does not.
    pub(super) fn is_probing(&self) -> bool {
        self.is_probing
    }

    /// A new session forgets the timers of the last one, those of its suspects among them.
    fn inherit_suspects(&mut self, wanted: &Wanted) {
        if wanted.has_renewed {
            self.inherited = self.suspects().collect();
            self.inherited_until = None;
        }
    }

    /// Suspects of an ended session that have not said that they are there get as much time again. Then they are taken
    /// for down, hear of it and come back: otherwise nobody would ever find out.
    pub(super) fn bury_inherited(&mut self, now: Instant, wanted: &mut Wanted) {
        if self.inherited.is_empty() || now < *self.inherited_until.get_or_insert(now + SUSPICION) {
            return;
        }
        let inherited = std::mem::take(&mut self.inherited);
        let down: Vec<_> = self.suspects().filter(|suspect| inherited.contains(suspect)).map(Member::down).collect();
        // Spelling one identity never fails.
        let _ = self.foca.apply_many(down.into_iter(), true, &mut *wanted);
        self.look(wanted);
    }

    fn suspects(&self) -> impl Iterator<Item = Identity> {
        let all = self.foca.iter_membership_state();
        all.filter(|member| member.state() == State::Suspect).map(|member| *member.id())
    }

    fn look(&mut self, wanted: &Wanted) {
        self.is_probing = wanted.is_probing.unwrap_or(self.is_probing);
        self.liveness.clear();
        for member in self.foca.iter_membership_state() {
            let liveness = match member.state() {
                State::Alive => Liveness::Up,
                State::Suspect => Liveness::Suspect,
                State::Down => Liveness::Down,
            };
            self.liveness.insert(member.id().node, liveness);
        }
    }
}

fn config() -> foca::Config {
    let some = |number| NonZeroUsize::new(number).expect("it is not zero");
    foca::Config {
        probe_period: PROBE_PERIOD,
        probe_rtt: PROBE_RTT,
        num_indirect_probes: some(3),
        max_transmissions: NonZeroU8::new(TRANSMISSIONS_MAX).expect("it is not zero"),
        suspect_to_down_after: SUSPICION,
        remove_down_after: Some(REMEMBER_DOWN),
        max_packet_size: some(PAYLOAD_BYTES_MAX),
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams { frequency: FEED_PERIOD, num_members: some(1) }),
        // The membership looks for all that are not up by their rows.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: GOSSIP_PERIOD, num_members: some(3) }),
    }
}

/// How foca's values are spelt.
struct Spelling;

/// What cannot be spelt or read.
#[derive(Debug, thiserror::Error)]
enum Misspelt {
    #[error("no room is left")]
    Full,
    #[error(transparent)]
    Short(#[from] TryGetError),
    #[error("unknown tag {0}")]
    Unknown(u8),
}

/// Most bytes of an identity.
const IDENTITY_BYTES_MAX: usize = 8 + 8 + 4 + 8 + 1 + 16 + 2;
const MEMBER_BYTES_MAX: usize = IDENTITY_BYTES_MAX + 2 + 1;
const HEADER_BYTES_MAX: usize = 3 * IDENTITY_BYTES_MAX + 2 + 1 + 1;

impl Codec<Identity> for Spelling {
    type Error = Misspelt;

    fn encode_header(&mut self, header: &Header<Identity>, mut out: impl BufMut) -> Result<(), Misspelt> {
        if out.remaining_mut() < HEADER_BYTES_MAX {
            return Err(Misspelt::Full);
        }
        put_identity(&mut out, &header.src);
        out.put_u16_le(header.src_incarnation);
        put_identity(&mut out, &header.dst);
        let (kind, identity, probe) = match &header.message {
            Message::Ping(probe) => (0, None, Some(*probe)),
            Message::Ack(probe) => (1, None, Some(*probe)),
            Message::PingReq { target, probe_number } => (2, Some(target), Some(*probe_number)),
            Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(*probe_number)),
            Message::IndirectAck { target, probe_number } => (4, Some(target), Some(*probe_number)),
            Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(*probe_number)),
            Message::Announce => (6, None, None),
            Message::Feed => (7, None, None),
            Message::Gossip => (8, None, None),
            Message::Broadcast => (9, None, None),
            Message::TurnUndead => (10, None, None),
        };
        out.put_u8(kind);
        if let Some(identity) = identity {
            put_identity(&mut out, identity);
        }
        if let Some(probe) = probe {
            out.put_u8(probe);
        }
        Ok(())
    }

    fn decode_header(&mut self, mut from: impl Buf) -> Result<Header<Identity>, Misspelt> {
        let from = &mut from;
        let src = get_identity(from)?;
        let src_incarnation = from.try_get_u16_le()?;
        let dst = get_identity(from)?;
        let message = match from.try_get_u8()? {
            0 => Message::Ping(from.try_get_u8()?),
            1 => Message::Ack(from.try_get_u8()?),
            2 => Message::PingReq { target: get_identity(from)?, probe_number: from.try_get_u8()? },
            3 => Message::IndirectPing { origin: get_identity(from)?, probe_number: from.try_get_u8()? },
            4 => Message::IndirectAck { target: get_identity(from)?, probe_number: from.try_get_u8()? },
            5 => Message::ForwardedAck { origin: get_identity(from)?, probe_number: from.try_get_u8()? },
            6 => Message::Announce,
            7 => Message::Feed,
            8 => Message::Gossip,
            9 => Message::Broadcast,
            10 => Message::TurnUndead,
            tag => return Err(Misspelt::Unknown(tag)),
        };
        Ok(Header { src, src_incarnation, dst, message })
    }

    fn encode_member(&mut self, member: &Member<Identity>, mut out: impl BufMut) -> Result<(), Misspelt> {
        if out.remaining_mut() < MEMBER_BYTES_MAX {
            return Err(Misspelt::Full);
        }
        put_identity(&mut out, member.id());
        out.put_u16_le(member.incarnation());
        out.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut from: impl Buf) -> Result<Member<Identity>, Misspelt> {
        let identity = get_identity(&mut from)?;
        let incarnation = from.try_get_u16_le()?;
        let state = match from.try_get_u8()? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            tag => return Err(Misspelt::Unknown(tag)),
        };
        Ok(Member::new(identity, incarnation, state))
    }
}

fn put_identity(out: &mut impl BufMut, identity: &Identity) {
    out.put_u64_le(identity.node.0);
    out.put_u64_le(identity.session.epoch);
    out.put_u32_le(identity.session.renewals);
    out.put_u64_le(identity.session.stamp);
    match identity.address.ip() {
        IpAddr::V4(ip) => {
            out.put_u8(4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16_le(identity.address.port());
}

fn get_identity(from: &mut impl Buf) -> Result<Identity, Misspelt> {
    let node = NodeId(from.try_get_u64_le()?);
    let epoch = from.try_get_u64_le()?;
    let session = Session { epoch, renewals: from.try_get_u32_le()?, stamp: from.try_get_u64_le()? };
    let ip = match from.try_get_u8()? {
        4 => IpAddr::from(octets::<4>(from)?),
        6 => IpAddr::from(octets::<16>(from)?),
        tag => return Err(Misspelt::Unknown(tag)),
    };
    Ok(Identity { node, session, address: SocketAddr::new(ip, from.try_get_u16_le()?) })
}

fn octets<const N: usize>(from: &mut impl Buf) -> Result<[u8; N], Misspelt> {
    let mut octets = [0; N];
    from.try_copy_to_slice(&mut octets)?;
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(node: u64, address: &str) -> Identity {
        let session = Session { epoch: 1, renewals: 2, stamp: 3 };
        Identity { node: NodeId(node), session, address: address.parse().unwrap() }
    }

    #[test]
    fn a_new_session_suspects_nobody_for_ever() {
        let (me, other) = (identity(1, "127.0.0.1:7600"), identity(2, "127.0.0.1:7700"));
        let mut swim = Swim::new(me, 1);
        let mut wanted = Wanted::default();
        swim.foca.apply_many([Member::new(other, 0, State::Suspect)].into_iter(), false, &mut wanted).unwrap();
        swim.inherit_suspects(&wanted);
        let later = |millis: u64| Instant::default() + Duration::from_millis(millis);
        swim.bury_inherited(later(60_000), &mut wanted);
        assert_eq!(swim.suspects().count(), 1, "its timer runs");

        swim.foca.apply_many([Member::down(me)].into_iter(), false, &mut wanted).unwrap();
        assert!(wanted.has_renewed);
        swim.inherit_suspects(&wanted);
        swim.bury_inherited(later(61_000), &mut wanted);
        swim.bury_inherited(later(61_001), &mut wanted);
        assert_eq!(swim.suspects().count(), 1);
        swim.bury_inherited(later(61_000) + SUSPICION, &mut wanted);
        assert_eq!(swim.liveness(other.node), Liveness::Down);
    }

    fn headers() -> Vec<Header<Identity>> {
        let (one, two) = (identity(1, "127.0.0.1:7600"), identity(2, "[::1]:7600"));
        let (target, origin, probe_number) = (two, one, 9);
        let messages = [
            Message::Ping(7),
            Message::Ack(7),
            Message::PingReq { target, probe_number },
            Message::IndirectPing { origin, probe_number },
            Message::IndirectAck { target, probe_number },
            Message::ForwardedAck { origin, probe_number },
            Message::Announce,
            Message::Feed,
            Message::Gossip,
            Message::Broadcast,
            Message::TurnUndead,
        ];
        messages.map(|message| Header { src: one, src_incarnation: 4, dst: two, message }).to_vec()
    }

    #[test]
    fn what_is_spelt_is_read_back_and_what_is_cut_is_refused() {
        for header in headers() {
            let mut out = vec![];
            Spelling.encode_header(&header, &mut out).unwrap();
            assert!(out.len() <= HEADER_BYTES_MAX);
            assert_eq!(Spelling.decode_header(&out[..]).unwrap(), header);
            assert!(Spelling.decode_header(&out[..out.len() - 1]).is_err());
        }
        let member = Member::new(identity(2, "[::1]:7600"), 5, State::Suspect);
        let mut out = vec![];
        Spelling.encode_member(&member, &mut out).unwrap();
        assert_eq!((Spelling.decode_member(&out[..]).unwrap(), out.len()), (member, MEMBER_BYTES_MAX));
    }

    #[test]
    fn what_finds_no_room_is_not_spelt_at_all() {
        let mut out = vec![];
        let member = Member::alive(identity(1, "127.0.0.1:7600"));
        let full = Spelling.encode_member(&member, (&mut out).limit(MEMBER_BYTES_MAX - 1));
        assert!(matches!(full, Err(Misspelt::Full)));
        assert!(out.is_empty());
    }

    #[test]
    fn the_bytes_never_change() {
        let spelt = headers().into_iter().take(1).map(|header| {
            let mut out = vec![];
            Spelling.encode_header(&header, &mut out).unwrap();
            hex::encode(out)
        });
        assert_eq!(spelt.collect::<Vec<_>>(), GOLDEN);
    }

    const GOLDEN: [&str; 1] = [concat!(
        "01000000000000000100000000000000020000000300000000000000047f000001b01d040002000000000000000100000000",
        "0000000200000003000000000000000600000000000000000000000000000001b01d0007",
    )];

    proptest! {
        #[test]
        fn any_payload_is_taken_in_without_harm(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut swim = Swim::new(identity(2, "127.0.0.1:7601"), 1);
            let mut header = vec![];
            Spelling.encode_header(&headers()[8], &mut header).unwrap();
            swim.on_payload(&noise, &mut Wanted::default());
            swim.on_payload(&[header, noise].concat(), &mut Wanted::default());
        }
    }
}
