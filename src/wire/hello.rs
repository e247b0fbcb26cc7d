//! The handshake: the first bytes of a connection, before any frame.
//!
//! ```text
//! client  "SLOP", length u16, min u16, max u16, features u64, kind u8, core u16, token length u16, token
//! node    "SLOP", length u16, 0 u8, version u16, features u64, cluster u128, core u16, cores u16, salt u64,
//!                             partitions u16, request bytes u32, answer bytes u32, in flight u32,
//!                             name length u16, name
//!    or   "SLOP", length u16, 1 u8, failure
//! ```
//! To a node that says hello the answer is a challenge, or the same refusal; see `greet`.
//!
//! The length counts what stands behind it. Both messages must stay readable for every version that will ever be: what
//! stands behind the fields above belongs to a later version and is passed over, up to the bound. A stranger is told by
//! the first byte that differs, however little has come.

use bytes::{BufMut, Bytes, BytesMut};

use super::failure::{get_failure, put_failure};
use super::reader::{Reader, Result, WireError, put_bytes16, put_text};
use crate::protocol::config::NODE_NAME_BYTES_MAX;
use crate::protocol::message::Failure;
use crate::protocol::types::{ClusterId, CoreId, LengthError};

const MAGIC: [u8; 4] = *b"SLOP";
const HEAD_BYTES: usize = MAGIC.len() + 2;

/// Longest hello. A stranger costs no more memory than this before it is refused.
pub const HELLO_BYTES_MAX: usize = 512;

/// Longest answer to a hello.
pub const GREETING_BYTES_MAX: usize = 1_024;

/// Longest token: room for 128 random bytes in hexadecimal digits.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Longest name of a node.
pub const NAME_BYTES_MAX: usize = NODE_NAME_BYTES_MAX;

const CORE_ANY: u16 = u16::MAX;

/// Versions of the binary protocol that one side speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

/// Versions that this program speaks.
pub const VERSIONS: Versions = Versions { min: 1, max: 1 };

impl Versions {
    /// The highest version that both speak.
    pub fn common(self, other: Versions) -> Option<u16> {
        let highest = self.max.min(other.max);
        (self.min.max(other.min) <= highest).then_some(highest)
    }
}

/// What a side can do beside its version, one bit each. The welcome names those that both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Features(pub u64);

impl Features {
    /// TLS from the welcome on. Reserved: nobody offers it yet.
    pub const TLS: Features = Features(1);

    /// What both have.
    #[must_use]
    pub fn common(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }
}

/// Who says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client, which sends calls.
    Client,
    /// A core of another node, which sends asks. It proves the cluster's secret first (`greet`).
    Peer,
    /// Another node, which compares what it knows of the members with what this one knows. It proves the secret too.
    Members,
}

/// What guards a node. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token(Bytes);

impl Token {
    /// Checks the bound. An empty token is none.
    ///
    /// # Errors
    /// [`LengthError`] for a token that is too long.
    pub fn new(bytes: impl Into<Bytes>) -> std::result::Result<Token, LengthError> {
        let bytes = bytes.into();
        if bytes.len() <= TOKEN_BYTES_MAX {
            return Ok(Token(bytes));
        }
        Err(LengthError { what: "token", bytes: bytes.len(), min: 0, max: TOKEN_BYTES_MAX })
    }

    /// The bytes, to be compared in constant time.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Versions that it speaks.
    pub versions: Versions,
    /// What else it can do.
    pub features: Features,
    /// Who it is.
    pub kind: Kind,
    /// The core that it wants to talk to; `None` is any.
    pub core: Option<CoreId>,
    /// The token that it was given; empty for none.
    pub token: Token,
}

/// What a node says to a hello that it takes. Frames follow, both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that both will speak.
    pub version: u16,
    /// What both can do.
    pub features: Features,
    /// The cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The core that answers on this connection.
    pub core: CoreId,
    /// The node's number of cores.
    pub cores: u16,
    /// The node's salt: with it a client computes the core of a partition.
    pub salt: u64,
    /// Partitions of the ring.
    pub partitions: u16,
    /// What one connection may ask.
    pub limits: Limits,
    /// The node's name.
    pub node: String,
}

/// Bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame that the node takes.
    pub request_bytes: u32,
    /// Largest frame that the node sends.
    pub answer_bytes: u32,
    /// Calls under way at once; the node reads no further call before one of them is answered.
    pub in_flight: u32,
}

/// What a node says to a hello: after a refusal it closes the connection.
pub type Greeting = std::result::Result<Welcome, Failure>;

impl Hello {
    /// Spells it behind what is there.
    pub fn encode(&self, out: &mut BytesMut) {
        put_message(out, HELLO_BYTES_MAX, |out| {
            out.put_u16_le(self.versions.min);
            out.put_u16_le(self.versions.max);
            out.put_u64_le(self.features.0);
            out.put_u8(match self.kind {
                Kind::Client => 0,
                Kind::Peer => 1,
                Kind::Members => 2,
            });
            out.put_u16_le(self.core.map_or(CORE_ANY, |core| core.0));
            put_bytes16(out, self.token.as_bytes());
        });
    }

    /// Reads one from the front of what has come, and says how many bytes it took. `None` needs more bytes.
    ///
    /// # Errors
    /// Any [`WireError`]: this is no client of ours.
    pub fn decode(from: &[u8]) -> Result<Option<(Hello, usize)>> {
        let Some((mut body, taken)) = get_message(from, "hello", HELLO_BYTES_MAX)? else {
            return Ok(None);
        };
        let hello = Hello {
            versions: Versions { min: body.u16("lowest version")?, max: body.u16("highest version")? },
            features: Features(body.u64("features")?),
            kind: match body.u8("kind")? {
                0 => Kind::Client,
                1 => Kind::Peer,
                2 => Kind::Members,
                tag => return Err(unknown("kind", tag)),
            },
            core: Some(body.u16("core")?).filter(|&core| core != CORE_ANY).map(CoreId),
            token: Token(Bytes::copy_from_slice(body.bytes16("token", TOKEN_BYTES_MAX)?)),
        };
        Ok(Some((hello, taken)))
    }
}

/// Spells the answer to a hello behind what is there.
pub fn encode_greeting(out: &mut BytesMut, greeting: &Greeting) {
    put_message(out, GREETING_BYTES_MAX, |out| match greeting {
        Ok(welcome) => {
            out.put_u8(0);
            put_welcome(out, welcome);
        }
        Err(failure) => {
            out.put_u8(1);
            put_failure(out, failure);
        }
    });
}

/// Reads the answer to a hello from the front of what has come, and says how many bytes it took. `None` needs more.
///
/// # Errors
/// Any [`WireError`]: this is no node of ours.
pub fn decode_greeting(from: &[u8]) -> Result<Option<(Greeting, usize)>> {
    let Some((mut body, taken)) = get_message(from, "greeting", GREETING_BYTES_MAX)? else {
        return Ok(None);
    };
    let greeting = match body.u8("greeting")? {
        0 => Ok(get_welcome(&mut body)?),
        1 => Err(get_failure(&mut body)?),
        tag => return Err(unknown("greeting", tag)),
    };
    Ok(Some((greeting, taken)))
}

pub(super) fn put_welcome(out: &mut BytesMut, welcome: &Welcome) {
    out.put_u16_le(welcome.version);
    out.put_u64_le(welcome.features.0);
    out.put_u128_le(welcome.cluster.0);
    out.put_u16_le(welcome.core.0);
    out.put_u16_le(welcome.cores);
    out.put_u64_le(welcome.salt);
    out.put_u16_le(welcome.partitions);
    out.put_u32_le(welcome.limits.request_bytes);
    out.put_u32_le(welcome.limits.answer_bytes);
    out.put_u32_le(welcome.limits.in_flight);
    put_text(out, &welcome.node, NAME_BYTES_MAX);
}

pub(super) fn get_welcome(body: &mut Reader) -> Result<Welcome> {
    Ok(Welcome {
        version: body.u16("version")?,
        features: Features(body.u64("features")?),
        cluster: ClusterId(body.u128("cluster")?),
        core: CoreId(body.u16("core")?),
        cores: body.u16("cores")?,
        salt: body.u64("salt")?,
        partitions: body.u16("partitions")?,
        limits: Limits {
            request_bytes: body.u32("request bytes")?,
            answer_bytes: body.u32("answer bytes")?,
            in_flight: body.u32("in flight")?,
        },
        node: body.text("node", NAME_BYTES_MAX)?,
    })
}

pub(super) fn put_message(out: &mut BytesMut, max: usize, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_slice(&MAGIC);
    out.put_u16_le(0);
    body(out);
    let length = out.len() - start;
    assert!(length <= max, "a message of the handshake has {length} bytes, allowed are {max}");
    let behind = u16::try_from(length - HEAD_BYTES).expect("bounded by max");
    out[start + MAGIC.len()..start + HEAD_BYTES].copy_from_slice(&behind.to_le_bytes());
}

pub(super) fn get_message<'a>(from: &'a [u8], what: &'static str, max: usize) -> Result<Option<(Reader<'a>, usize)>> {
    let magic = &from[..from.len().min(MAGIC.len())];
    if !MAGIC.starts_with(magic) {
        let mut found = [0; MAGIC.len()];
        found[..magic.len()].copy_from_slice(magic);
        return Err(WireError::Foreign { found });
    }
    let Some(length) = from.get(MAGIC.len()..HEAD_BYTES) else {
        return Ok(None);
    };
    let found = HEAD_BYTES + usize::from(u16::from_le_bytes([length[0], length[1]]));
    if found > max {
        return Err(WireError::TooLong { what, found, max });
    }
    Ok(from.get(HEAD_BYTES..found).map(|body| (Reader::new(body), found)))
}

pub(super) fn unknown(what: &'static str, tag: u8) -> WireError {
    WireError::Unknown { what, tag: tag.into() }
}
