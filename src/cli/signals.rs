//! Ctrl-C and SIGTERM: the first asks for a clean end, the second for an end at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals that mean stop, from when this is made: before, they end the process.
#[derive(Debug)]
pub(super) struct Stop {
    signals: [Signal; 2],
    /// How many came, of those that were waited for.
    heard: u32,
}

impl Stop {
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// What the system says when it refuses to hand signals over.
    pub(super) fn here() -> io::Result<Stop> {
        Stop::by([SignalKind::interrupt(), SignalKind::terminate()])
    }

    fn by(kinds: [SignalKind; 2]) -> io::Result<Stop> {
        let [one, other] = kinds.map(signal);
        Ok(Stop { signals: [one?, other?], heard: 0 })
    }

    /// The next of them.
    pub(super) async fn comes(&mut self) {
        let [one, other] = &mut self.signals;
        tokio::select! {
            _ = one.recv() => {}
            _ = other.recv() => {}
        }
        self.heard += 1;
    }

    /// The second of all. To what ends by itself, the first says nothing new.
    pub(super) async fn insists(&mut self) {
        while self.heard < 2 {
            self.comes().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Number, getpid, kill_process};
    use tokio::time::{Duration, timeout};

    use super::*;

    /// No test of this process uses them otherwise.
    fn stop() -> Stop {
        Stop::by([SignalKind::user_defined1(), SignalKind::user_defined2()]).unwrap()
    }

    /// Once this is over, everybody in the process who listens was told.
    async fn raise(number: Number, kind: SignalKind) {
        let mut witness = signal(kind).unwrap();
        kill_process(getpid(), number).unwrap();
        timeout(Duration::from_secs(10), witness.recv()).await.unwrap();
    }

    async fn is_insisted(stop: &mut Stop) -> bool {
        tokio::select! {
            biased;
            () = stop.insists() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn a_signal_to_what_ends_by_itself_is_not_a_second_one() {
        let mut stop = stop();
        assert!(!is_insisted(&mut stop).await);
        raise(Number::USR1, SignalKind::user_defined1()).await;
        assert!(!is_insisted(&mut stop).await);
        raise(Number::USR2, SignalKind::user_defined2()).await;
        assert!(is_insisted(&mut stop).await);
    }
}
