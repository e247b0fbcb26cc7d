//! How a client connects and how long it tries.

use std::time::Duration;

use super::{Client, Result};
use crate::protocol::config::DEADLINE_DEFAULT;
use crate::protocol::types::CoreId;
use crate::wire::hello::Token;

/// Everything that can be chosen. [`Options::new`] spells the defaults.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use sloop::client::{Options, testing};
///
/// let node = testing::Node::start_with("secret").await?;
/// let mut options = Options::new(node.addr());
/// options.set_token("secret")?;
/// options.deadline = Duration::from_millis(500);
/// let client = options.connect().await?;
/// client.ping().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Where nodes listen, `host:port`: those to begin with. They are tried in this order, and the next one when all
    /// connections are lost.
    pub nodes: Vec<String>,
    /// What guards the nodes; empty for nothing.
    pub token: Token,
    /// The core to talk to, and to no other one; `None` is the one that owns the key.
    pub core: Option<CoreId>,
    /// Whether requests go straight to the owners of their keys. Otherwise the node that was reached first forwards
    /// all.
    pub routing: bool,
    /// Time between two looks at the ring. A look also follows whenever a connection is lost.
    pub ring_interval: Duration,
    /// Time that an operation has, retries included. The node is told of nine tenths of it, so that its own answer,
    /// which carries numbers, comes first.
    pub deadline: Duration,
    /// Time that one node has to take a connection and answer the hello.
    pub connect_timeout: Duration,
    /// Whether each write gets a random operation id, which makes it safe to retry (see the module's page for the
    /// cost).
    pub operation_ids: bool,
}

impl Options {
    /// The defaults: five seconds for an operation and two to connect, a look at the ring every three, operation ids
    /// on, no token.
    pub fn new(nodes: impl Nodes) -> Options {
        Options {
            nodes: nodes.addresses(),
            token: Token::default(),
            core: None,
            routing: true,
            ring_interval: Duration::from_secs(3),
            deadline: DEADLINE_DEFAULT,
            connect_timeout: Duration::from_secs(2),
            operation_ids: true,
        }
    }

    pub(super) fn routes(&self) -> bool {
        self.routing && self.core.is_none()
    }

    /// Sets the token.
    ///
    /// # Errors
    /// [`Error::Failure`](super::Error::Failure) when it is longer than 256 bytes.
    pub fn set_token(&mut self, token: &str) -> Result<()> {
        self.token = Token::new(token.to_owned())?;
        Ok(())
    }

    /// Connects to the first node that welcomes us.
    ///
    /// # Errors
    /// [`Error::Connection`](super::Error::Connection) when none can be reached,
    /// [`Error::Failure`](super::Error::Failure) when one refuses.
    pub async fn connect(self) -> Result<Client> {
        Client::with(self).await
    }
}

/// What names nodes: a text with commas between them, or several texts.
pub trait Nodes {
    /// Where the nodes listen, `host:port`.
    fn addresses(self) -> Vec<String>;
}

impl Nodes for &str {
    fn addresses(self) -> Vec<String> {
        self.split(',').map(|node| node.trim().to_owned()).collect()
    }
}

impl Nodes for &String {
    fn addresses(self) -> Vec<String> {
        self.as_str().addresses()
    }
}

impl Nodes for String {
    fn addresses(self) -> Vec<String> {
        self.as_str().addresses()
    }
}

impl<S: AsRef<str>, const N: usize> Nodes for [S; N] {
    fn addresses(self) -> Vec<String> {
        self.iter().flat_map(|nodes| nodes.as_ref().addresses()).collect()
    }
}

impl<S: AsRef<str>> Nodes for &[S] {
    fn addresses(self) -> Vec<String> {
        self.iter().flat_map(|nodes| nodes.as_ref().addresses()).collect()
    }
}

impl<S: AsRef<str>> Nodes for Vec<S> {
    fn addresses(self) -> Vec<String> {
        self.as_slice().addresses()
    }
}
