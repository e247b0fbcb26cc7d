//! Where a node and its proxy listen.

use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the node behind a proxy listens, for all that knows the protocol and for HTTP, and where its proxy does.
const NODE_PORT: u16 = 7600;
const HTTP_PORT: u16 = 7601;
const PROXY_PORT: u16 = 7700;

/// Addresses of one process: the last byte, from 1 on.
const ADDRESSES: u32 = 254;

/// Addresses of the loopback network that nobody else has: no other place of this process, nor other processes that
/// run now. Any user may listen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Ipv4Addr);

impl Place {
    /// The next one that is free.
    ///
    /// # Errors
    /// What the system says of the last one when none is.
    pub fn find() -> Result<Place> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let process = std::process::id();
        let byte = |number: u32, first: u32| u8::try_from(first + number).expect("below 256");
        let mut last = Error::from(ErrorKind::AddrInUse);
        for _ in 0..ADDRESSES {
            let own = LAST.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
            let (high, low) = (byte(process / 200 % 200, 16), byte(process % 200, 0));
            let place = Place(Ipv4Addr::new(127, high, low, byte(own, 1)));
            match place.try_all() {
                Ok(()) => return Ok(place),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn try_all(self) -> Result<()> {
        for address in [self.node(), self.proxy()] {
            TcpListener::bind(address)?;
            UdpSocket::bind(address)?;
        }
        TcpListener::bind(self.http()).map(drop)
    }

    /// Where the node listens: clients go there, and gossip comes from there.
    pub fn node(self) -> SocketAddr {
        SocketAddr::from((self.0, NODE_PORT))
    }

    /// Where the node speaks HTTP.
    pub fn http(self) -> SocketAddr {
        SocketAddr::from((self.0, HTTP_PORT))
    }

    /// Where the proxy of the node listens: other nodes go there.
    pub fn proxy(self) -> SocketAddr {
        SocketAddr::from((self.0, PROXY_PORT))
    }

    /// An address of its own to send from, with a port that the system chooses.
    pub(super) fn any(self) -> SocketAddr {
        SocketAddr::from((self.0, 0))
    }
}
