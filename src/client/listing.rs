//! A walk over a node's keys.

use bytes::Bytes;

use super::{Client, Error, Key, Result};
use crate::protocol::message::{Keys, Reply, Request};
use crate::wire::call::PAGE_LIMIT_MAX;

/// The keys that begin with a prefix, page by page, in the node's own order (by partition: stable, not alphabetical).
/// A key that is written or deleted during the walk may or may not be in it; every other key is, exactly once.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use sloop::client::{Client, testing};
/// # let node = testing::Node::start().await?;
/// # let client = Client::connect(node.addr()).await?;
/// client.put("cart:1", "apples").await?;
/// client.put("cart:2", "pears").await?;
/// client.put("user:1", "Ada").await?;
///
/// let mut listing = client.keys("cart:");
/// let mut carts = Vec::new();
/// while let Some(page) = listing.next_page().await? {
///     carts.extend(page);
/// }
/// assert_eq!(carts.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Listing {
    client: Client,
    prefix: Bytes,
    after: Option<Key>,
    more: bool,
}

impl Listing {
    pub(super) fn new(client: Client, prefix: Bytes) -> Listing {
        Listing { client, prefix, after: None, more: true }
    }

    /// The next page; `None` after the last one. After an error the same page can be asked for again.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<Key>>> {
        if !self.more {
            return Ok(None);
        }
        let keys = Keys { prefix: self.prefix.clone(), after: self.after.clone(), limit: PAGE_LIMIT_MAX };
        let page = match self.client.ask(Request::Keys(keys)).await? {
            Reply::Keys(page) => page,
            other => return Err(Error::unexpected("a listing", &other)),
        };
        self.more = page.more && !page.keys.is_empty();
        self.after = page.keys.last().cloned().or(self.after.take());
        Ok(Some(page.keys).filter(|keys| !keys.is_empty()))
    }
}
