//! The control thread's one bounded door to the shards.
//!
//! HTTP must never cost the binary protocol anything: what is under way through the door is bounded, what finds no room
//! is refused at once, and no ask outlives its deadline, whether its core is slow, stuck or gone. Polled on the control
//! thread's tokio runtime only.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::mail::{Arrival, Knock, Line, Mail, Wish};
use super::pages;
use crate::protocol::config::DEADLINE_DEFAULT;
use crate::protocol::message::{Failure, Keys, Outcome, Reply, Request};
use crate::protocol::ring::{Cores, Ring, View};
use crate::protocol::types::{CoreId, Key};

/// Most asks under way. The control thread is one thread: more would only wait here instead of outside.
pub const KNOCKS_MAX: usize = 1_024;

/// What a core gets beyond a request's deadline to say itself how the request ended.
pub const GRACE: Duration = Duration::from_millis(250);

/// A checkpoint writes out up to an overlay of every core; beyond this the disk is not coming back soon.
const CHECKPOINT_MAX: Duration = Duration::from_secs(120);

/// The door. Clones share its bounds.
#[derive(Clone, Debug)]
pub struct Door {
    ring: Ring,
    cores: Cores,
    boxes: Arc<[flume::Sender<Mail>]>,
    permits: Arc<Semaphore>,
}

impl Door {
    /// A door to the cores behind these mailboxes, in their order.
    ///
    /// # Panics
    /// When there is not one mailbox for each core.
    pub fn new(ring: Ring, cores: Cores, boxes: Vec<flume::Sender<Mail>>) -> Door {
        assert_eq!(boxes.len(), usize::from(cores.count), "one mailbox a core");
        Door { ring, cores, boxes: boxes.into(), permits: Arc::new(Semaphore::new(KNOCKS_MAX)) }
    }

    /// Asks the core that owns the key; a listing asks every core and reads as one.
    ///
    /// # Errors
    /// What the core says; [`Failure::Overloaded`] without room; [`Failure::QuorumNotMet`] when the core does not
    /// answer before the deadline, and a write may still surface.
    pub async fn ask(&self, request: Request) -> Outcome {
        let _permit = self.permits.try_acquire().map_err(|_| Failure::overloaded())?;
        match &request {
            Request::Keys(keys) => self.list(keys.clone()).await,
            Request::Get(_) | Request::Put(_) | Request::Delete(_) | Request::Siblings(_) => {
                let key = request.key().expect("all but a listing have a key");
                self.ask_core(self.core(key), request).await
            }
        }
    }

    /// Brings everything that is durable now into the LSM tree of every core.
    ///
    /// # Errors
    /// The first failure of a core; [`Failure::Overloaded`] when a core takes no mail.
    pub async fn checkpoint(&self) -> Result<(), Failure> {
        let mut all = Vec::with_capacity(self.boxes.len());
        for core in self.every_core() {
            let (done, end) = oneshot::channel();
            self.knock(core, Knock::Checkpoint { done })?;
            all.push(end);
        }
        for end in all {
            answer_within(CHECKPOINT_MAX, end).await??;
        }
        Ok(())
    }

    /// Shows every core the cluster.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] when a core takes no mail: try again.
    pub fn show(&self, view: &Arc<View>) -> Result<(), Failure> {
        self.every_core().try_for_each(|core| self.knock(core, Knock::View(Arc::clone(view))))
    }

    /// Gives a connection to the core that its slot is on.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] when that core takes no mail; the connection is closed.
    pub fn hand_over(&self, arrival: Arrival) -> Result<(), Failure> {
        self.post(arrival.slot.core(), Mail::Connection(arrival))
    }

    /// Answers a wish of a core, with a connection or without.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] when that core takes no mail; the connection is closed.
    pub fn answer_wish(&self, wish: &Wish, line: Option<Line>) -> Result<(), Failure> {
        let Wish { from, attempt, node, core, .. } = *wish;
        self.post(from, Mail::Dialed { node, core, attempt, line })
    }

    /// The core that owns a key.
    pub fn core(&self, key: &Key) -> CoreId {
        self.cores.of(self.ring.partition(key))
    }

    async fn list(&self, keys: Keys) -> Outcome {
        let mut answers = Vec::with_capacity(self.boxes.len());
        for core in self.every_core() {
            answers.push(self.send(core, Request::Keys(keys.clone()))?);
        }
        let mut listed = Vec::with_capacity(answers.len());
        for answer in answers {
            match answer_within(DEADLINE_DEFAULT + GRACE, answer).await?? {
                Reply::Keys(page) => listed.push(page),
                other => unreachable!("a listing was answered by {other:?}"),
            }
        }
        Ok(Reply::Keys(pages::merge(self.ring, usize::from(keys.limit), listed)))
    }

    async fn ask_core(&self, core: CoreId, request: Request) -> Outcome {
        let patience = request.patience() + GRACE;
        answer_within(patience, self.send(core, request)?).await?
    }

    fn send(&self, core: CoreId, request: Request) -> Result<oneshot::Receiver<Outcome>, Failure> {
        let (answer, reply) = oneshot::channel();
        self.knock(core, Knock::Ask { request, answer })?;
        Ok(reply)
    }

    fn knock(&self, core: CoreId, knock: Knock) -> Result<(), Failure> {
        self.post(core, Mail::Knock(knock))
    }

    fn post(&self, core: CoreId, letter: Mail) -> Result<(), Failure> {
        self.boxes[core.index()].try_send(letter).map_err(|refused| match refused {
            flume::TrySendError::Full(_) => Failure::overloaded(),
            flume::TrySendError::Disconnected(_) => Failure::Stopping,
        })
    }

    fn every_core(&self) -> impl Iterator<Item = CoreId> + use<> {
        (0..self.cores.count).map(CoreId)
    }
}

/// A core that says nothing may have done it all the same: that is what an unmet quorum says.
async fn answer_within<T>(patience: Duration, answer: oneshot::Receiver<T>) -> Result<T, Failure> {
    match timeout(patience, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_gone)) => Err(Failure::QuorumNotMet { needed: 1, got: 0 }),
        Err(_late) => Err(Failure::QuorumNotMet { needed: 1, got: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{Get, Page, Terms};
    use bytes::Bytes;

    fn key(text: &'static str) -> Key {
        Key::new(text).unwrap()
    }

    fn get(deadline_ms: u32) -> Request {
        Request::Get(Get { key: key("a"), terms: Terms { deadline_ms, ..Terms::default() } })
    }

    fn door(cores: u16, box_max: usize) -> (Door, Vec<flume::Receiver<Mail>>) {
        let (senders, receivers) = (0..cores).map(|_| flume::bounded(box_max)).unzip();
        let door = Door::new(Ring::new(16), Cores { count: cores, salt: 1 }, senders);
        (door, receivers)
    }

    #[tokio::test]
    async fn an_ask_of_a_stuck_core_ends_after_its_deadline() {
        let (door, _never_read) = door(1, 8);
        let before = tokio::time::Instant::now();

        let outcome = door.ask(get(20)).await;

        assert_eq!(outcome, Err(Failure::QuorumNotMet { needed: 1, got: 0 }));
        assert!(before.elapsed() < DEADLINE_DEFAULT);
    }

    #[tokio::test]
    async fn an_ask_of_a_core_that_is_gone_says_so() {
        let (door, boxes) = door(1, 8);
        drop(boxes);
        assert_eq!(door.ask(get(20)).await, Err(Failure::Stopping));
    }

    #[tokio::test]
    async fn a_full_mailbox_refuses_at_once() {
        let (door, _never_read) = door(1, 1);
        let first = door.ask(get(20)).await;
        assert!(matches!(first, Err(Failure::QuorumNotMet { .. })), "it lies in the box");

        assert!(matches!(door.ask(get(20)).await, Err(Failure::Overloaded { .. })));
    }

    #[tokio::test]
    async fn a_listing_asks_every_core_and_reads_as_one() {
        let (door, boxes) = door(2, 8);
        let ring = door.ring;
        let keys = Keys { prefix: Bytes::new(), after: None, limit: 10 };
        let pages = [vec![key("a"), key("b")], vec![key("c")]];
        let answer = |mailbox: &flume::Receiver<Mail>, keys: Vec<Key>| {
            let Mail::Knock(Knock::Ask { answer, .. }) = mailbox.try_recv().unwrap() else {
                panic!("a core was told something else");
            };
            answer.send(Ok(Reply::Keys(Page { keys, more: false }))).unwrap();
        };

        let listing = door.ask(Request::Keys(keys));
        let answering = async {
            boxes.iter().zip(pages).for_each(|(mailbox, keys)| answer(mailbox, keys));
        };
        let (listed, ()) = tokio::join!(listing, answering);

        let Ok(Reply::Keys(page)) = listed else {
            panic!("{listed:?}");
        };
        let mut all = vec![key("a"), key("b"), key("c")];
        all.sort_by_key(|key| ring.partition(key));
        assert_eq!(page.keys, all);
    }
}
