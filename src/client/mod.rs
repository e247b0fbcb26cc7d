//! ASKS. The bundled client library, on tokio: connect, pipeline, retry what is safe to retry.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use sloop::client::{Client, testing};
//!
//! // An in-memory node that speaks the real protocol; with a real one this is "127.0.0.1:7600".
//! let node = testing::Node::start().await?;
//! let client = Client::connect(node.addr()).await?;
//!
//! client.put("greeting", "hello").await?;
//! let entry = client.get("greeting").await?;
//! assert_eq!(entry.latest().map(|sibling| sibling.value.as_bytes()), Some(&b"hello"[..]));
//!
//! client.delete("greeting").await?;
//! assert!(client.get("greeting").await?.is_absent());
//! # Ok(())
//! # }
//! ```
//!
//! # Reading, changing, writing
//!
//! Two clients that write one key at the same time leave two *siblings*; none is lost, and a reader gets both. What a
//! write replaces is said by its context, and contexts come from reads: an [`Entry`] carries the context of its own
//! key, so a write with it replaces exactly the siblings that the entry shows. [`Client::update`] does both steps:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use std::collections::BTreeSet;
//! # use sloop::client::{Client, Sibling, testing};
//! # let node = testing::Node::start().await?;
//! # let client = Client::connect(node.addr()).await?;
//! client.put("cart", "apples").await?;
//! let before = client.get("cart").await?;
//! client.replace(&before, "apples,pears").await?;
//! // A writer that has not seen the pears: its value stands beside them, and both are there.
//! client.replace(&before, "apples,plums").await?;
//! assert_eq!(client.get("cart").await?.siblings().len(), 2);
//!
//! // The change sees all siblings, and its value replaces just these.
//! client
//!     .update("cart", |siblings| {
//!         let text = |sibling: &Sibling| String::from_utf8_lossy(sibling.value.as_bytes()).into_owned();
//!         let carts: Vec<String> = siblings.iter().map(text).collect();
//!         let fruits: BTreeSet<&str> = carts.iter().flat_map(|cart| cart.split(',')).collect();
//!         Vec::from_iter(fruits).join(",")
//!     })
//!     .await?;
//! let after = client.get("cart").await?;
//! assert_eq!(after.siblings().len(), 1);
//! assert_eq!(after.siblings()[0].value.as_bytes(), b"apples,pears,plums");
//! # Ok(())
//! # }
//! ```
//!
//! # Which node answers
//!
//! The client asks for the ring when it connects, every few seconds, and when a connection is lost. A request for one
//! key goes straight to the core of an owner, to the first one that is up; while there is no connection to it yet, and
//! where none can be had, it goes over another one, to another core, another owner or any node, which forwards it. A
//! batch is split by owners. A node that was lost is left aside for a moment, one that has gone quiet until it is heard
//! again. What is about a node and not about a key (ping, info, a listing, the copies that a node holds) goes to the
//! first node that was named, as long as it is there.
//!
//! # Retries
//!
//! A request is tried until its deadline as long as that is safe: reads always; a write when it certainly was not done,
//! or when it carries an operation id, under which a node does a write once. Every write gets such an id unless
//! [`Options::operation_ids`] is off. It costs some 20 bytes and a digest of 8 in the stored version, and an entry in
//! the node's memory of operations for ten minutes; a client that writes small values at a high rate and can live
//! with a write being done twice may turn it off.

mod options;
mod connection;
mod map;
mod links;
mod driver;
mod ids;
mod retry;
mod entry;
mod batch;
mod listing;
mod error;
pub mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

pub use self::entry::Entry;
pub use self::error::Error;
pub use self::listing::Listing;
pub use self::options::{Nodes, Options};
pub use crate::protocol::message::{
    Causality, Copies, Copy, Delete, Failure, Found, Get, Keys, Level, NodeInfo, Put, Reply, Request, Sibling, Terms,
    Written,
};
pub use crate::protocol::types::{Key, OperationId, Value};

use self::driver::Driver;
use self::ids::Ids;
use self::links::{Links, Wish};
use crate::protocol::message::{Answer, Call};

/// What an operation of the client returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Calls that wait for their turn on a connection; more wait in their own tasks.
const JOBS_MAX: usize = 1_024;

/// Connections to a cluster, shared by any number of tasks. Clones share them; they close with the last of them.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    ids: Ids,
    links: watch::Receiver<Arc<Links>>,
    wishes: mpsc::Sender<Wish>,
}

impl Client {
    /// Connects to the first of `nodes` that welcomes us: `host:port`, in a list or in one text with commas between
    /// them. From it the client learns of all others.
    ///
    /// # Errors
    /// [`Error::Connection`] when none can be reached, [`Error::Failure`] when one refuses.
    pub async fn connect(nodes: impl Nodes) -> Result<Client> {
        Options::new(nodes).connect().await
    }

    async fn with(options: Options) -> Result<Client> {
        let ids = Ids::new()?;
        let connection = connection::connect(&options, 0, Vec::new()).await?;
        let (wishes, queue) = mpsc::channel(JOBS_MAX);
        let (published, links) = watch::channel(Arc::default());
        tokio::spawn(Driver::new(options.clone(), connection, queue, published).run());
        let shared = Arc::new(Shared { options, ids, links, wishes });
        Ok(Client { shared })
    }

    /// All live siblings of a key, with the context for the next write of it.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Entry> {
        let key = make_key(key)?;
        self.get_key(key).await
    }

    async fn get_key(&self, key: Key) -> Result<Entry> {
        let terms = Terms::default();
        let get = Get { key: key.clone(), terms };
        match self.ask(Request::Get(get)).await? {
            Reply::Found(found) => Ok(Entry::new(key, found)),
            other => Err(Error::unexpected("a get", &other)),
        }
    }

    /// Writes a value over whatever the key's coordinator holds, seen or not; the reply names what that was. Where the
    /// new value depends on the old one, use [`Client::update`].
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn put(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<Written> {
        self.put_key(make_key(key)?, make_value(value)?, Causality::Blind).await
    }

    /// Writes a value that replaces exactly the siblings that `entry` shows.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn replace(&self, entry: &Entry, value: impl Into<Bytes>) -> Result<Written> {
        self.put_key(entry.key().clone(), make_value(value)?, entry.causality()).await
    }

    /// Reads the key, lets `change` make one value out of all its siblings (none when the key is absent), and writes
    /// that in place of them. What another client wrote meanwhile was not seen: it stays beside the new value as a
    /// sibling, for the next reader to see both.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn update<V: Into<Bytes>>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnOnce(&[Sibling]) -> V,
    ) -> Result<Written> {
        let entry = self.get(key).await?;
        let value = change(entry.siblings());
        self.replace(&entry, value).await
    }

    async fn put_key(&self, key: Key, value: Value, causality: Causality) -> Result<Written> {
        let put = Put { key, value, causality, operation: None, terms: Terms::default() };
        self.write(Request::Put(put)).await
    }

    /// Deletes whatever the owners of the key hold. Also for a key that is not there.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<Written> {
        self.delete_key(make_key(key)?, Causality::Blind).await
    }

    /// Deletes exactly the siblings that `entry` shows.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn remove(&self, entry: &Entry) -> Result<Written> {
        self.delete_key(entry.key().clone(), entry.causality()).await
    }

    async fn delete_key(&self, key: Key, causality: Causality) -> Result<Written> {
        let delete = Delete { key, causality, operation: None, terms: Terms::default() };
        self.write(Request::Delete(delete)).await
    }

    async fn write(&self, request: Request) -> Result<Written> {
        match self.ask(request).await? {
            Reply::Written(written) => Ok(written),
            other => Err(Error::unexpected("a write", &other)),
        }
    }

    /// The node's own copy of a key: who wrote each version and when, tombstones too.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn siblings(&self, key: impl AsRef<[u8]>) -> Result<Copies> {
        match self.ask(Request::Siblings(make_key(key)?)).await? {
            Reply::Siblings(copies) => Ok(copies),
            other => Err(Error::unexpected("a siblings request", &other)),
        }
    }

    /// The node's keys that begin with `prefix`, page by page.
    pub fn keys(&self, prefix: impl Into<Bytes>) -> Listing {
        Listing::new(self.clone(), prefix.into())
    }

    /// Whether the node answers.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn ping(&self) -> Result<()> {
        match self.call(Call::Ping).await? {
            Answer::Pong => Ok(()),
            other => Err(Error::unexpected("a ping", &other)),
        }
    }

    /// Who the node is.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn info(&self) -> Result<NodeInfo> {
        match self.call(Call::Info).await? {
            Answer::Info(info) => Ok(info),
            other => Err(Error::unexpected("an info request", &other)),
        }
    }

    /// Asks one request with everything that the protocol offers: quorum, strictness, causality, an operation id and a
    /// deadline of its own. A write without an id gets one.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn ask(&self, request: Request) -> Result<Reply> {
        match self.call(Call::One(self.named(request))).await? {
            Answer::One(outcome) => Ok(outcome?),
            other => Err(Error::unexpected("a request", &other)),
        }
    }

    /// Gives a write an operation id, unless it has one or the options say no.
    fn named(&self, mut request: Request) -> Request {
        if let Request::Put(Put { operation, .. }) | Request::Delete(Delete { operation, .. }) = &mut request
            && operation.is_none()
            && self.shared.options.operation_ids
        {
            *operation = Some(self.shared.ids.next());
        }
        request
    }
}

fn make_key(key: impl AsRef<[u8]>) -> Result<Key> {
    Ok(Key::new(key)?)
}

fn make_value(value: impl Into<Bytes>) -> Result<Value> {
    Ok(Value::new(value)?)
}
