//! Which sockets of a core are ready.
//!
//! glommio polls a socket anew for every read: an entry of the ring, a completion and a task woken for each request.
//! A core with many connections spends more on that than on the requests (docs/RESULTS.md, the profile). So its
//! sockets stand in one epoll set, edge-triggered and registered once, and glommio waits for the set as a whole: one
//! look a turn tells of all that came in.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_lite::AsyncRead;
use glommio::net::TcpStream;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};

use super::signal::Signal;

/// Most events that one look tells of. What is beyond it is told at the next.
const EVENTS_MAX: usize = 512;

const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What has happened to a socket since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// What the socket was added as.
    pub token: u64,
    /// Bytes came in, or the end of them, or an error.
    pub readable: bool,
    /// There is room for more to be sent.
    pub writable: bool,
    /// The other end sends nothing more, or the connection has broken.
    pub hung_up: bool,
}

/// The sockets of one core. A socket leaves the set when it is closed.
pub struct Poller {
    set: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// A set of no sockets.
    ///
    /// # Errors
    /// What the kernel says; the limit of open files, as a rule.
    pub fn new() -> io::Result<Poller> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Poller { set, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Something that waits until the set has something to tell.
    ///
    /// # Errors
    /// What the kernel says; the limit of open files, as a rule.
    pub fn watch(&self) -> io::Result<Watch> {
        let always = eventfd(1, EventfdFlags::CLOEXEC)?;
        Ok(Watch { set: self.set.try_clone()?, always, armed: None })
    }

    /// Adds a socket. What is ready already is told at the next look.
    ///
    /// # Errors
    /// What the kernel says; the limit of watches, as a rule.
    pub fn add(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.set, socket, EventData::new_u64(token), wanted)?)
    }

    /// What has happened since the last look. Does not wait.
    pub fn look(&mut self) -> impl Iterator<Item = Readiness> {
        self.events.clear();
        if let Err(error) = epoll::wait(&self.set, rustix::buffer::spare_capacity(&mut self.events), Some(&AT_ONCE)) {
            // A signal came in between; the events are told next time.
            tracing::trace!(%error, "epoll");
        }
        self.events.iter().map(|event| {
            let flags = event.flags;
            let hung_up = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
            Readiness {
                token: event.data.u64(),
                readable: hung_up || flags.contains(EventFlags::IN),
                writable: flags.contains(EventFlags::OUT),
                hung_up,
            }
        })
    }
}

/// Waits for a [`Poller`] on the ring of its executor.
#[derive(Debug)]
pub struct Watch {
    set: OwnedFd,
    /// Never read, so always readable.
    always: OwnedFd,
    armed: Option<TcpStream>,
}

impl Watch {
    /// Waits until the set has something to tell, or `nudge` is raised. Says whether it was the set.
    ///
    /// # Errors
    /// What the kernel says; the limit of open files, as a rule.
    pub async fn ready(&mut self, nudge: &Signal) -> io::Result<bool> {
        let mut armed = match self.armed.take() {
            Some(armed) => armed,
            None => poll_of(&self.set)?,
        };
        let told = poll_fn(|context| match (is_over(&mut armed, context), nudge.poll_raised(context)) {
            (true, _) => Poll::Ready(true),
            (false, true) => Poll::Ready(false),
            (false, false) => Poll::Pending,
        });
        let told = told.await;
        if !told {
            self.armed = Some(armed);
        }
        Ok(told)
    }

    /// Gives way until the executor has looked after its own completions, which it does only while no task is ready.
    ///
    /// # Errors
    /// What the kernel says; the limit of open files, as a rule.
    pub async fn give_way(&self) -> io::Result<()> {
        let mut armed = poll_of(&self.always)?;
        poll_fn(|context| if is_over(&mut armed, context) { Poll::Ready(()) } else { Poll::Pending }).await;
        Ok(())
    }
}

/// glommio has no wait for a bare descriptor, but its streams begin with one, before anything is read.
fn poll_of(descriptor: &OwnedFd) -> io::Result<TcpStream> {
    let stream = std::net::TcpStream::from(descriptor.try_clone()?);
    Ok(TcpStream::from(socket2::Socket::from(stream)))
}

/// Whether the poll is over. What it was of is no socket and cannot be read: from then on a read fails at once.
fn is_over(armed: &mut TcpStream, context: &mut Context) -> bool {
    Pin::new(armed).poll_read(context, &mut []).is_ready()
}
