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
    /// Where the nodes listen, `host:port`. They are tried in this order, and the next one when a connection is lost.
    pub nodes: Vec<String>,
    /// What guards the nodes; empty for nothing.
    pub token: Token,
    /// The core to talk to; `None` lets the node choose.
    pub core: Option<CoreId>,
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
    /// The defaults: five seconds for an operation and two to connect, operation ids on, no token.
    pub fn new(nodes: impl AsRef<str>) -> Options {
        Options {
            nodes: nodes.as_ref().split(',').map(|node| node.trim().to_owned()).collect(),
            token: Token::default(),
            core: None,
            deadline: DEADLINE_DEFAULT,
            connect_timeout: Duration::from_secs(2),
            operation_ids: true,
        }
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
