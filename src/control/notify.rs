//! What systemd is told: that the node is ready, that it turns, that it stops (`Type=notify`, sd_notify(3)).

use std::env::var;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::heartbeat::Heartbeats;

/// The way to the service manager, if one waits for word.
#[derive(Debug)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// The manager restarts a node that it has not heard of for this long.
    patience: Option<Duration>,
}

impl Notify {
    /// As the environment says: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` for the watchdog.
    pub fn here() -> Notify {
        let micros = var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        Notify::to(var("NOTIFY_SOCKET").ok().as_deref(), micros.map(Duration::from_micros))
    }

    fn to(path: Option<&str>, patience: Option<Duration>) -> Notify {
        let socket = path.and_then(|path| match connected(path) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(path, %error, "the service manager cannot be told anything");
                None
            }
        });
        Notify { socket, patience }
    }

    /// The node serves.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The node was told to stop, and does.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Tells the watchdog that the node lives for as long as every core turns: a node that hangs is started again.
    /// Polled on the control thread, until dropped.
    pub async fn watch(&self, hearts: Arc<Heartbeats>) {
        let Some(patience) = self.patience.filter(|patience| !patience.is_zero()) else {
            return std::future::pending().await;
        };
        let mut period = tokio::time::interval(patience / 3);
        loop {
            period.tick().await;
            match hearts.live() {
                Ok(()) => self.tell("WATCHDOG=1"),
                Err(ailment) => tracing::error!(%ailment, "the watchdog is not told that the node lives"),
            }
        }
    }

    fn tell(&self, word: &str) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(word.as_bytes())) {
            tracing::warn!(word, %error, "the service manager could not be told");
        }
    }
}

/// A path, or an abstract name behind an `@`.
fn connected(path: &str) -> std::io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold the control thread up.
    socket.set_nonblocking(true)?;
    match path.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(path)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::CoreId;

    fn heard(manager: &UnixDatagram) -> String {
        let mut word = [0; 64];
        let length = manager.recv(&mut word).unwrap();
        String::from_utf8(word[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_hears_that_the_node_is_ready_and_that_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();

        let notify = Notify::to(path.to_str(), None);
        notify.ready();
        notify.stopping();

        assert_eq!((heard(&manager).as_str(), heard(&manager).as_str()), ("READY=1", "STOPPING=1"));
    }

    #[tokio::test]
    async fn the_watchdog_hears_of_a_node_that_turns() {
        let name = format!("sloop-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let hearts = Arc::new(Heartbeats::new(1));
        hearts.beat(CoreId(0));

        let notify = Notify::to(Some(&format!("@{name}")), Some(Duration::from_millis(30)));
        let watching = tokio::time::timeout(Duration::from_millis(100), notify.watch(hearts)).await;

        assert!(watching.is_err(), "it watches until it is dropped");
        assert_eq!(heard(&manager), "WATCHDOG=1");
    }

    #[test]
    fn without_a_manager_nothing_is_said() {
        let notify = Notify::to(None, None);
        notify.ready();
        Notify::to(Some("/nowhere/notify"), None).ready();
    }
}
