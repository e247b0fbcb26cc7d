//! Ports: taken with SO_REUSEADDR and never with SO_REUSEPORT, so that two nodes cannot share one without a word.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Why a port could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error(
        "{address} is in use by another program, perhaps another sloop: stop that one, or choose another address \
         with --{setting}"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// `listen` or `http`.
        setting: &'static str,
    },
    /// Ordinary users get no ports below 1,024.
    #[error("no permission to listen on {address}: choose a port from 1024 on with --{setting}")]
    Denied {
        /// The address.
        address: SocketAddr,
        /// `listen` or `http`.
        setting: &'static str,
    },
    /// The address belongs to another machine.
    #[error("this machine has no address {}: choose one that it has with --{setting}", address.ip())]
    Elsewhere {
        /// The address.
        address: SocketAddr,
        /// `listen` or `http`.
        setting: &'static str,
    },
    /// Anything else.
    #[error("cannot listen on {address}: {cause}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        cause: io::Error,
    },
}

/// Connections that may wait to be accepted; the kernel allows `net.core.somaxconn` at most, which is 4,096 too. The
/// standard library asks for 128: when as many clients as a node takes come back at once, the others would wait for
/// seconds.
const QUEUE_MAX: i32 = 4_096;

/// Takes the port of `setting`. The standard library sets SO_REUSEADDR, so a restart need not wait for old connections.
///
/// # Errors
/// [`BindError`].
pub fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        rustix::net::listen(&listener, QUEUE_MAX)?;
        Ok(listener)
    });
    bound.map_err(|cause| refused(setting, address, cause))
}

/// Why the port of `setting` could not be taken.
pub(super) fn refused(setting: &'static str, address: SocketAddr, cause: io::Error) -> BindError {
    match cause.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { address, setting },
        io::ErrorKind::PermissionDenied => BindError::Denied { address, setting },
        io::ErrorKind::AddrNotAvailable => BindError::Elsewhere { address, setting },
        _ => BindError::Other { address, cause },
    }
}

/// Descriptors that are not connections of clients: the LSM tree's files, segments, rings, HTTP.
const DESCRIPTORS_ELSEWHERE: u64 = 1_500;

/// Raises the number of descriptors that this process may have to what it may be raised to. Many systems begin at
/// 1,024, which is less than the connections that are allowed. Says so in the log when it is still too few.
pub fn allow_descriptors(connections_max: u32) {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    let wanted = DESCRIPTORS_ELSEWHERE + u64::from(connections_max);
    if let Some(allowed) = allowed.filter(|&allowed| allowed < wanted) {
        tracing::warn!(
            allowed,
            wanted,
            "too few descriptors for connections_max: raise the limit (ulimit -n, LimitNOFILE) or lower the setting"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_not_shared_not_even_with_ourselves() {
        let first = bind("listen", ([127, 0, 0, 1], 0).into()).unwrap();
        let address = first.local_addr().unwrap();

        let refused = bind("listen", address).unwrap_err();

        assert!(refused.to_string().starts_with(&format!("{address} is in use by another program")), "{refused}");
        drop(first);
        assert!(bind("listen", address).is_ok());
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let refused = bind("http", ([192, 0, 2, 1], 0).into()).unwrap_err();
        assert_eq!(refused.to_string(), "this machine has no address 192.0.2.1: choose one that it has with --http");
    }
}
