//! Many keys at once: fewer frames and fewer turns of the loop, and no transaction.
//!
//! A batch is split by the owners of its keys, and cut into frames that a node takes. A key that a node could not serve
//! together with the others, because it had no room just then or the answer grew beyond a frame, is asked for alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::{Causality, Client, Entry, Error, Key, Result, Terms, Value, Written, make_key, make_value};
use crate::protocol::config::BATCH_KEYS_MAX;
use crate::protocol::message::{Answer, Call, Failure, Get, Outcome, Put, Reply, Request};
use crate::protocol::types::NodeId;
use crate::wire::call::{BATCH_BYTES_MAX, request_bytes};

impl Client {
    /// Reads many keys. Each stands alone: the results are in the order of the keys, some may be errors.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> Vec<Result<Entry>> {
        let keys: Vec<Result<Key>> = keys.into_iter().map(make_key).collect();
        let get = |key: &Key| Request::Get(Get { key: key.clone(), terms: Terms::default() });
        let replies = self.ask_many(keys.iter().flatten().map(get).collect()).await;
        let entry = |key: Key, reply| match reply {
            Reply::Found(found) => Ok(Entry::new(key, found)),
            other => Err(Error::unexpected("a get", &other)),
        };
        zip(keys, replies, entry)
    }

    /// Writes many keys as [`Client::put`] does. Each stands alone: the results are in the order of the pairs, some
    /// may be errors while the others are written.
    pub async fn put_many<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Vec<Result<Written>> {
        let make = |(key, value)| Ok((make_key(key)?, make_value(value)?));
        let pairs: Vec<Result<(Key, Value)>> = pairs.into_iter().map(make).collect();
        let put = |(key, value): &(Key, Value)| {
            self.named(Request::Put(Put {
                key: key.clone(),
                value: value.clone(),
                causality: Causality::Blind,
                operation: None,
                terms: Terms::default(),
            }))
        };
        let replies = self.ask_many(pairs.iter().flatten().map(put).collect()).await;
        let written = |_, reply| match reply {
            Reply::Written(written) => Ok(written),
            other => Err(Error::unexpected("a put", &other)),
        };
        zip(pairs, replies, written)
    }

    /// A reply for each request, in their order. Each owner is sent its part, all at the same time.
    async fn ask_many(&self, requests: Vec<Request>) -> Vec<Result<Reply>> {
        let asked = requests.len();
        let mut parts = self.parts(requests);
        if parts.len() <= 1 {
            let part = parts.pop_first().map(|(_, part)| part).unwrap_or_default();
            return self.ask_part(part.into_iter().map(|(_, request)| request).collect()).await;
        }
        let mut asking = JoinSet::new();
        for part in parts.into_values() {
            let (places, requests): (Vec<usize>, Vec<Request>) = part.into_iter().unzip();
            let client = self.clone();
            asking.spawn(async move { places.into_iter().zip(client.ask_part(requests).await).collect::<Vec<_>>() });
        }
        let mut replies: Vec<Option<Result<Reply>>> = vec![None; asked];
        for (place, reply) in asking.join_all().await.into_iter().flatten() {
            replies[place] = Some(reply);
        }
        replies.into_iter().map(|reply| reply.expect("each request is in one part")).collect()
    }

    /// The requests with their places, by the owner that they go to.
    fn parts(&self, requests: Vec<Request>) -> BTreeMap<Option<NodeId>, Vec<(usize, Request)>> {
        let links = Arc::clone(&self.shared.links.borrow());
        let mut parts: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (place, request) in requests.into_iter().enumerate() {
            let owner = request.key().and_then(|key| links.owner(key));
            parts.entry(owner).or_default().push((place, request));
        }
        parts
    }

    /// A reply for each request of one owner, in their order.
    async fn ask_part(&self, requests: Vec<Request>) -> Vec<Result<Reply>> {
        let mut replies = Vec::with_capacity(requests.len());
        for batch in batches(requests) {
            match self.ask_batch(batch.clone()).await {
                Ok(outcomes) => {
                    for (request, outcome) in batch.into_iter().zip(outcomes) {
                        replies.push(self.settle(request, outcome).await);
                    }
                }
                Err(error) => replies.extend(batch.iter().map(|_| Err(error.clone()))),
            }
        }
        replies
    }

    async fn ask_batch(&self, batch: Vec<Request>) -> Result<Vec<Outcome>> {
        let asked = batch.len();
        match self.call(Call::Many(batch)).await? {
            Answer::Many(outcomes) if outcomes.len() == asked => Ok(outcomes),
            Answer::One(Err(failure)) => Err(failure.into()),
            other => Err(Error::unexpected("a batch", &other)),
        }
    }

    /// Asks alone for what only the company of others kept from being served.
    async fn settle(&self, request: Request, outcome: Outcome) -> Result<Reply> {
        match outcome {
            Err(Failure::Overloaded { .. } | Failure::Stopping) => self.ask(request).await,
            Err(Failure::ReplyTooLarge { .. }) if !request.is_write() => self.ask(request).await,
            outcome => Ok(outcome?),
        }
    }
}

/// Cuts requests into batches that a frame holds.
fn batches(requests: Vec<Request>) -> Vec<Vec<Request>> {
    let mut batches: Vec<Vec<Request>> = Vec::new();
    let mut room = 0;
    for request in requests {
        let bytes = request_bytes(&request);
        match batches.last_mut() {
            Some(batch) if bytes <= room && batch.len() < BATCH_KEYS_MAX => batch.push(request),
            _ => {
                room = BATCH_BYTES_MAX;
                batches.push(vec![request]);
            }
        }
        room = room.saturating_sub(bytes);
    }
    batches
}

/// Puts replies beside what they were asked for; what could not be asked keeps its error.
fn zip<S, T>(
    subjects: Vec<Result<S>>,
    replies: Vec<Result<Reply>>,
    mut make: impl FnMut(S, Reply) -> Result<T>,
) -> Vec<Result<T>> {
    let mut replies = replies.into_iter();
    let mut next = || replies.next().expect("one reply for each request");
    subjects
        .into_iter()
        .map(|subject| {
            let subject = subject?;
            make(subject, next()?)
        })
        .collect()
}
