//! The handshake of two nodes, both sides of it: each proves the cluster's secret to the other (`wire::greet`).
//!
//! Nothing is said of the cluster to, and nothing is read from, who has not proven it. Neither side waits for ever:
//! the caller puts a time-out around it.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::protocol::message::Failure;
use crate::protocol::types::{ClusterId, CoreId, NodeId};
use crate::runtime::entropy;
use crate::wire::WireError;
use crate::wire::greet::{
    Accepted, Challenge, Claim, Nonce, decode_accepted, decode_challenge, encode_accepted, encode_challenge,
};
use crate::wire::hello::{Features, GREETING_BYTES_MAX, Hello, Kind, Token, VERSIONS, Welcome};
use crate::wire::proof::Secret;

/// Who shakes hands.
#[derive(Clone, Debug)]
pub struct Party {
    /// This node.
    pub node: NodeId,
    /// The cluster that it belongs to; `None` while it joins one.
    pub cluster: Option<ClusterId>,
    /// What the nodes of the cluster share.
    pub secret: Secret,
}

/// Who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The node.
    pub node: NodeId,
    /// Its cluster: ours, or `None` for one that has none yet.
    pub cluster: Option<ClusterId>,
}

/// Why two nodes did not come together. The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ShakeError {
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// What came was not understood.
    #[error("it does not speak as a node does: {0}")]
    Wire(#[from] WireError),
    /// The other side refused.
    #[error("it refuses: {0}")]
    Refused(Failure),
    /// The other side did not prove the secret.
    #[error("it does not prove the cluster's secret: give all nodes of a cluster the same cluster_secret")]
    Unproven,
    /// The other side belongs to another cluster.
    #[error("it belongs to cluster {theirs}, and this node to {ours}")]
    Foreign {
        /// Our cluster.
        ours: ClusterId,
        /// The other one.
        theirs: ClusterId,
    },
}

/// Dials: says hello as a node and proves it. Bytes that come behind the welcome stand in `read` afterwards.
///
/// # Errors
/// [`ShakeError`].
pub async fn dial(
    socket: &mut TcpStream,
    read: &mut BytesMut,
    (kind, core): (Kind, Option<CoreId>),
    party: &Party,
) -> Result<Welcome, ShakeError> {
    let hello = Hello { versions: VERSIONS, features: Features::default(), kind, core, token: Token::default() };
    let mut out = BytesMut::new();
    hello.encode(&mut out);
    socket.write_all(&out).await?;
    let challenge = hear(socket, read, decode_challenge).await?.map_err(ShakeError::Refused)?;
    let claim = Claim::new(&party.secret, &challenge.nonce, &hello, (party.node, party.cluster), nonce());
    out.clear();
    claim.encode(&mut out);
    socket.write_all(&out).await?;
    let accepted = match hear(socket, read, decode_accepted).await? {
        Ok(accepted) => accepted,
        // Only a wrong proof is refused as unauthorized.
        Err(Failure::Unauthorized) => return Err(ShakeError::Unproven),
        Err(failure) => return Err(ShakeError::Refused(failure)),
    };
    if !accepted.is_proven(&party.secret, &challenge.nonce, &claim) {
        return Err(ShakeError::Unproven);
    }
    same_cluster(party.cluster, Some(accepted.welcome.cluster))?;
    Ok(accepted.welcome)
}

/// Accepts a node whose hello was read: challenges it, and welcomes it when it proves the secret. Bytes that come
/// behind its proof stand in `read` afterwards.
///
/// # Errors
/// [`ShakeError`]; the other side was told why.
pub async fn accept(
    socket: &mut TcpStream,
    read: &mut BytesMut,
    hello: &Hello,
    party: &Party,
    welcome: Welcome,
) -> Result<Proven, ShakeError> {
    let mut out = BytesMut::new();
    let nonce = nonce();
    encode_challenge(&mut out, &Ok(Challenge { version: welcome.version, features: welcome.features, nonce }));
    socket.write_all(&out).await?;
    let claim = hear(socket, read, Claim::decode).await?;
    out.clear();
    if !claim.is_proven(&party.secret, &nonce, hello) {
        encode_accepted(&mut out, &Err(Failure::Unauthorized));
        socket.write_all(&out).await?;
        return Err(ShakeError::Unproven);
    }
    // A node of another cluster learns from the welcome that it is one.
    encode_accepted(&mut out, &Ok(Accepted::new(&party.secret, &nonce, &claim, welcome)));
    socket.write_all(&out).await?;
    same_cluster(party.cluster, claim.cluster)?;
    Ok(Proven { node: claim.node, cluster: claim.cluster })
}

fn same_cluster(ours: Option<ClusterId>, theirs: Option<ClusterId>) -> Result<(), ShakeError> {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(ShakeError::Foreign { ours, theirs }),
        _ => Ok(()),
    }
}

/// Reads until a message is whole, and takes it off what was read. Messages are bounded, so this ends.
async fn hear<T>(
    socket: &mut TcpStream,
    read: &mut BytesMut,
    decode: impl Fn(&[u8]) -> Result<Option<(T, usize)>, WireError>,
) -> Result<T, ShakeError> {
    read.reserve(GREETING_BYTES_MAX);
    loop {
        match decode(read)? {
            Some((message, taken)) => {
                drop(read.split_to(taken));
                return Ok(message);
            }
            None if socket.read_buf(read).await? == 0 => {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            None => {}
        }
    }
}

fn nonce() -> Nonce {
    let mut nonce = Nonce::default();
    nonce[..16].copy_from_slice(&entropy::wide().to_le_bytes());
    nonce[16..].copy_from_slice(&entropy::wide().to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hello::Limits;
    use tokio::net::TcpListener;

    const OURS: ClusterId = ClusterId(7);

    fn party(name: &str, cluster: Option<ClusterId>, secret: &str) -> Party {
        Party { node: NodeId::of(name), cluster, secret: Secret::new(secret.as_bytes()) }
    }

    fn welcome() -> Welcome {
        Welcome {
            version: 1,
            features: Features::default(),
            cluster: OURS,
            core: CoreId(1),
            cores: 2,
            salt: 3,
            partitions: 16,
            limits: Limits { request_bytes: 1, answer_bytes: 2, in_flight: 3 },
            node: "node-a".to_owned(),
        }
    }

    /// Both ends of one handshake.
    async fn shake(dialer: Party) -> (Result<Welcome, ShakeError>, Result<Proven, ShakeError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut read = BytesMut::new();
            let hello = hear(&mut socket, &mut read, Hello::decode).await.unwrap();
            let acceptor = party("node-a", Some(OURS), "secret");
            accept(&mut socket, &mut read, &hello, &acceptor, welcome()).await
        };
        let dialling = async {
            let mut socket = TcpStream::connect(address).await.unwrap();
            dial(&mut socket, &mut BytesMut::new(), (Kind::Members, None), &dialer).await
        };
        tokio::join!(dialling, accepting)
    }

    #[tokio::test]
    async fn nodes_that_share_a_secret_come_together() {
        let (dialled, accepted) = shake(party("node-b", Some(OURS), "secret")).await;
        assert_eq!(dialled.unwrap(), welcome());
        assert_eq!(accepted.unwrap(), Proven { node: NodeId::of("node-b"), cluster: Some(OURS) });

        let (dialled, accepted) = shake(party("node-c", None, "secret")).await;
        assert!(dialled.is_ok());
        assert_eq!(accepted.unwrap().cluster, None, "one that joins has no cluster yet");
    }

    #[tokio::test]
    async fn a_node_with_another_secret_is_refused_and_told() {
        let (dialled, accepted) = shake(party("node-b", Some(OURS), "Secret")).await;
        assert!(matches!(dialled, Err(ShakeError::Unproven)));
        assert!(matches!(accepted, Err(ShakeError::Unproven)));
    }

    #[tokio::test]
    async fn nodes_of_two_clusters_part_on_both_sides() {
        let (dialled, accepted) = shake(party("node-b", Some(ClusterId(8)), "secret")).await;
        let expected = format!("it belongs to cluster {OURS}, and this node to {}", ClusterId(8));
        assert_eq!(dialled.unwrap_err().to_string(), expected);
        assert!(matches!(accepted, Err(ShakeError::Foreign { ours: OURS, theirs: ClusterId(8) })));
    }
}
