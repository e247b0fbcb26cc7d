//! How two nodes prove the cluster's secret to each other, before anything else of theirs is read.
//!
//! ```text
//! dialer    hello (kind 1 or 2, no token)
//! acceptor  "SLOP", length u16, 2 u8, version u16, features u64, challenge 32 bytes
//!      or   "SLOP", length u16, 1 u8, failure
//! dialer    "SLOP", length u16, node u64, cluster u128, nonce 32 bytes, proof 32 bytes
//! acceptor  "SLOP", length u16, 3 u8, proof 32 bytes, welcome as in hello
//!      or   "SLOP", length u16, 1 u8, failure
//! ```
//! Both sides add fresh random bytes to what is proven, so nothing that was heard once proves anything later. The
//! secret never travels. Without a secret both prove the empty one. What is sent afterwards is not guarded by the
//! proof: whoever can change bytes under way is not kept out (TLS is a feature of its own).
//!
//! A dialer that belongs to no cluster yet says cluster 0. One that belongs to another is told the acceptor's cluster
//! by the welcome, and both sides close.

use bytes::{BufMut, BytesMut};

use super::failure::{get_failure, put_failure};
use super::hello::{
    Features, GREETING_BYTES_MAX, HELLO_BYTES_MAX, Hello, Kind, Welcome, get_message, get_welcome, put_message,
    put_welcome, unknown,
};
use super::proof::{CHALLENGE_BYTES, PROOF_BYTES, Secret};
use super::reader::{Reader, Result};
use crate::protocol::message::Failure;
use crate::protocol::types::{ClusterId, NodeId};

const REFUSAL: u8 = 1;
const CHALLENGE: u8 = 2;
const ACCEPTED: u8 = 3;

/// Random bytes that one side adds.
pub type Nonce = [u8; CHALLENGE_BYTES];

/// What the acceptor says to the hello of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The version that both will speak.
    pub version: u16,
    /// What both can do.
    pub features: Features,
    /// What the dialer's proof is about.
    pub nonce: Nonce,
}

/// What the dialer says to a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who it is.
    pub node: NodeId,
    /// The cluster that it belongs to, if any.
    pub cluster: Option<ClusterId>,
    /// What the acceptor's proof is about.
    pub nonce: Nonce,
    /// That it knows the secret.
    pub proof: [u8; PROOF_BYTES],
}

/// What the acceptor says to a claim that is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// That it knows the secret too.
    pub proof: [u8; PROOF_BYTES],
    /// Who it is.
    pub welcome: Welcome,
}

impl Claim {
    /// The claim of a node, proven for this challenge and this connection's hello.
    pub fn new(
        secret: &Secret,
        challenge: &Nonce,
        hello: &Hello,
        (node, cluster): (NodeId, Option<ClusterId>),
        nonce: Nonce,
    ) -> Claim {
        let claim = Claim { node, cluster, nonce, proof: [0; PROOF_BYTES] };
        let proof = secret.prove("dial", &[challenge, &claim.said(hello)]);
        Claim { proof, ..claim }
    }

    /// Whether it proves the secret for this challenge and this connection's hello.
    pub fn is_proven(&self, secret: &Secret, challenge: &Nonce, hello: &Hello) -> bool {
        secret.verifies("dial", &[challenge, &self.said(hello)], &self.proof)
    }

    /// Spells it behind what is there.
    pub fn encode(&self, out: &mut BytesMut) {
        put_message(out, HELLO_BYTES_MAX, |out| {
            out.put_u64_le(self.node.0);
            out.put_u128_le(self.cluster.map_or(0, |cluster| cluster.0));
            out.put_slice(&self.nonce);
            out.put_slice(&self.proof);
        });
    }

    /// Reads one from the front of what has come, and says how many bytes it took. `None` needs more bytes.
    ///
    /// # Errors
    /// Any [`WireError`](super::WireError): this is no node of ours.
    pub fn decode(from: &[u8]) -> Result<Option<(Claim, usize)>> {
        let Some((mut body, taken)) = get_message(from, "claim", HELLO_BYTES_MAX)? else {
            return Ok(None);
        };
        let claim = Claim {
            node: NodeId(body.u64("node")?),
            cluster: Some(body.u128("cluster")?).filter(|&cluster| cluster != 0).map(ClusterId),
            nonce: array(&mut body, "nonce")?,
            proof: array(&mut body, "proof")?,
        };
        Ok(Some((claim, taken)))
    }

    /// What is proven beside the challenge: who says so, with which nonce, and what the connection is for.
    fn said(&self, hello: &Hello) -> BytesMut {
        let mut said = BytesMut::with_capacity(64);
        said.put_u8(match hello.kind {
            Kind::Client => 0,
            Kind::Peer => 1,
            Kind::Members => 2,
        });
        said.put_u16_le(hello.core.map_or(u16::MAX, |core| core.0));
        said.put_u64_le(self.node.0);
        said.put_u128_le(self.cluster.map_or(0, |cluster| cluster.0));
        said.put_slice(&self.nonce);
        said
    }
}

impl Accepted {
    /// The answer to a proven claim.
    pub fn new(secret: &Secret, challenge: &Nonce, claim: &Claim, welcome: Welcome) -> Accepted {
        let proof = secret.prove("accept", &[&claim.nonce, challenge, &spelt(&welcome)]);
        Accepted { proof, welcome }
    }

    /// Whether it proves the secret to whoever made this claim.
    pub fn is_proven(&self, secret: &Secret, challenge: &Nonce, claim: &Claim) -> bool {
        secret.verifies("accept", &[&claim.nonce, challenge, &spelt(&self.welcome)], &self.proof)
    }
}

fn spelt(welcome: &Welcome) -> BytesMut {
    let mut out = BytesMut::new();
    put_welcome(&mut out, welcome);
    out
}

/// Spells the answer to a node's hello behind what is there.
pub fn encode_challenge(out: &mut BytesMut, challenge: &std::result::Result<Challenge, Failure>) {
    put_message(out, GREETING_BYTES_MAX, |out| match challenge {
        Ok(challenge) => {
            out.put_u8(CHALLENGE);
            out.put_u16_le(challenge.version);
            out.put_u64_le(challenge.features.0);
            out.put_slice(&challenge.nonce);
        }
        Err(failure) => put_refusal(out, failure),
    });
}

/// Reads the answer to a node's hello, and says how many bytes it took. `None` needs more bytes.
///
/// # Errors
/// Any [`WireError`](super::WireError): this is no node of ours.
pub fn decode_challenge(from: &[u8]) -> Result<Option<(std::result::Result<Challenge, Failure>, usize)>> {
    decode(from, "challenge", CHALLENGE, |body| {
        let (version, features) = (body.u16("version")?, Features(body.u64("features")?));
        Ok(Challenge { version, features, nonce: array(body, "challenge")? })
    })
}

/// Spells the answer to a claim behind what is there.
pub fn encode_accepted(out: &mut BytesMut, accepted: &std::result::Result<Accepted, Failure>) {
    put_message(out, GREETING_BYTES_MAX, |out| match accepted {
        Ok(accepted) => {
            out.put_u8(ACCEPTED);
            out.put_slice(&accepted.proof);
            put_welcome(out, &accepted.welcome);
        }
        Err(failure) => put_refusal(out, failure),
    });
}

/// Reads the answer to a claim, and says how many bytes it took. `None` needs more bytes.
///
/// # Errors
/// Any [`WireError`](super::WireError): this is no node of ours.
pub fn decode_accepted(from: &[u8]) -> Result<Option<(std::result::Result<Accepted, Failure>, usize)>> {
    decode(from, "answer to a claim", ACCEPTED, |body| {
        Ok(Accepted { proof: array(body, "proof")?, welcome: get_welcome(body)? })
    })
}

type Answered<T> = Option<(std::result::Result<T, Failure>, usize)>;

fn decode<T>(
    from: &[u8],
    what: &'static str,
    wanted: u8,
    get: impl FnOnce(&mut Reader) -> Result<T>,
) -> Result<Answered<T>> {
    let Some((mut body, taken)) = get_message(from, what, GREETING_BYTES_MAX)? else {
        return Ok(None);
    };
    let answer = match body.u8(what)? {
        REFUSAL => Err(get_failure(&mut body)?),
        tag if tag == wanted => Ok(get(&mut body)?),
        tag => return Err(unknown(what, tag)),
    };
    Ok(Some((answer, taken)))
}

fn put_refusal(out: &mut BytesMut, failure: &Failure) {
    out.put_u8(REFUSAL);
    put_failure(out, failure);
}

fn array<const N: usize>(body: &mut Reader, what: &'static str) -> Result<[u8; N]> {
    Ok(body.take(what, N)?.try_into().expect("as many as were asked for"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::types::CoreId;
    use crate::wire::hello::{Limits, Token, VERSIONS};

    const CHALLENGED: Nonce = [1; 32];
    const NONCE: Nonce = [2; 32];

    fn hello(kind: Kind) -> Hello {
        let core = Some(CoreId(3));
        Hello { versions: VERSIONS, features: Features::default(), kind, core, token: Token::default() }
    }

    fn welcome() -> Welcome {
        Welcome {
            version: 1,
            features: Features::default(),
            cluster: ClusterId(7),
            core: CoreId(1),
            cores: 4,
            salt: 8,
            partitions: 1_024,
            limits: Limits { request_bytes: 1, answer_bytes: 2, in_flight: 3 },
            node: "node-a".to_owned(),
        }
    }

    fn claim(secret: &Secret) -> Claim {
        Claim::new(secret, &CHALLENGED, &hello(Kind::Peer), (NodeId(9), Some(ClusterId(7))), NONCE)
    }

    fn challenge() -> Challenge {
        Challenge { version: 1, features: Features::default(), nonce: CHALLENGED }
    }

    #[test]
    fn a_claim_holds_for_its_own_challenge_connection_and_node_only() {
        let secret = Secret::new(b"cluster");
        let claim = claim(&secret);
        assert!(claim.is_proven(&secret, &CHALLENGED, &hello(Kind::Peer)));
        assert!(!claim.is_proven(&secret, &NONCE, &hello(Kind::Peer)));
        assert!(!claim.is_proven(&secret, &CHALLENGED, &hello(Kind::Members)));
        assert!(!claim.is_proven(&Secret::new(b"other"), &CHALLENGED, &hello(Kind::Peer)));
        let another = Claim { node: NodeId(10), ..claim.clone() };
        assert!(!another.is_proven(&secret, &CHALLENGED, &hello(Kind::Peer)));
        let joiner = Claim { cluster: None, ..claim };
        assert!(!joiner.is_proven(&secret, &CHALLENGED, &hello(Kind::Peer)));
    }

    #[test]
    fn an_acceptance_holds_for_its_own_claim_and_welcome_only() {
        let secret = Secret::new(b"cluster");
        let claim = claim(&secret);
        let accepted = Accepted::new(&secret, &CHALLENGED, &claim, welcome());
        assert!(accepted.is_proven(&secret, &CHALLENGED, &claim));
        assert!(!accepted.is_proven(&Secret::new(b""), &CHALLENGED, &claim));
        assert!(!accepted.is_proven(&secret, &CHALLENGED, &Claim { nonce: [3; 32], ..claim.clone() }));
        let node = "node-b".to_owned();
        let another = Accepted { welcome: Welcome { node, ..welcome() }, ..accepted };
        assert!(!another.is_proven(&secret, &CHALLENGED, &claim));
    }

    #[test]
    fn what_nodes_say_is_read_back_and_asks_for_more_when_it_is_cut() {
        let secret = Secret::new(b"cluster");
        let claim = claim(&secret);
        let accepted = Ok(Accepted::new(&secret, &CHALLENGED, &claim, welcome()));
        let (mut one, mut two, mut three) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        encode_challenge(&mut one, &Ok(challenge()));
        claim.encode(&mut two);
        encode_accepted(&mut three, &accepted);

        assert_eq!(decode_challenge(&one), Ok(Some((Ok(challenge()), one.len()))));
        assert_eq!(Claim::decode(&two), Ok(Some((claim, two.len()))));
        assert_eq!(decode_accepted(&three), Ok(Some((accepted, three.len()))));
        for cut in 0..two.len() {
            assert_eq!(Claim::decode(&two[..cut]), Ok(None));
        }
        assert!(decode_accepted(&one).is_err(), "a challenge accepts nobody");
        assert!(decode_challenge(&three).is_err());
        let mut refused = BytesMut::new();
        encode_challenge(&mut refused, &Err(Failure::Stopping));
        assert_eq!(decode_accepted(&refused), Ok(Some((Err(Failure::Stopping), refused.len()))));
    }

    #[test]
    fn the_bytes_never_change() {
        let secret = Secret::new(b"cluster");
        let claim = claim(&secret);
        let (mut one, mut two, mut three) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        encode_challenge(&mut one, &Ok(challenge()));
        claim.encode(&mut two);
        encode_accepted(&mut three, &Ok(Accepted::new(&secret, &CHALLENGED, &claim, welcome())));
        assert_eq!([one, two, three].map(hex::encode), GOLDEN);
    }

    const GOLDEN: [&str; 3] = [
        "534c4f502b0002010000000000000000000101010101010101010101010101010101010101010101010101010101010101",
        concat!(
            "534c4f5058000900000000000000070000000000000000000000000000000202020202020202020202020202020202020202",
            "0202020202020202020202021372b392311cad9dad425f6ec6f3c08c08fc8378538bfe48856998b5ad7aa7b2",
        ),
        concat!(
            "534c4f505d0003db8218f24076eae9370136da6cf2846ce4fcdbf77c5145002225fecd2b2204f90100000000000000000007",
            "000000000000000000000000000000010004000800000000000000000401000000020000000300000006006e6f64652d61",
        ),
    ];

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(noise in prop::collection::vec(any::<u8>(), 0..400)) {
            let whole = [&b"SLOP"[..], &u16::try_from(noise.len()).unwrap().to_le_bytes(), &noise].concat();
            for bytes in [noise, whole] {
                let _ = Claim::decode(&bytes);
                let _ = decode_challenge(&bytes);
                let _ = decode_accepted(&bytes);
            }
        }
    }
}
