//! The one place where a data core reads the clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::protocol::types::{Instant, Now, WallTime};

/// Both clocks of one process. Copies agree, so deadlines may cross from core to core.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: std::time::Instant,
}

impl Clock {
    /// A clock that starts at zero now.
    #[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
    pub fn start() -> Clock {
        Clock { started: std::time::Instant::now() }
    }

    /// The monotonic time.
    pub fn instant(&self) -> Instant {
        Instant(u64::try_from(self.started.elapsed().as_micros()).expect("584 thousand years fit"))
    }

    /// Both times.
    #[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
    pub fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let wall = WallTime(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX));
        Now { instant: self.instant(), wall }
    }
}
