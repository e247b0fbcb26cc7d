//! One task wakes another on the same core.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// A flag that one task waits for. Raising it twice before the wait is raising it once.
#[derive(Debug, Default)]
pub struct Signal {
    raised: Cell<bool>,
    waiter: RefCell<Option<Waker>>,
}

impl Signal {
    /// Raises the flag, wakes whoever waits, and says whether anyone did.
    pub fn raise(&self) -> bool {
        self.raised.set(true);
        let waiter = self.waiter.borrow_mut().take();
        waiter.map(Waker::wake).is_some()
    }

    /// Lowers the flag.
    pub fn lower(&self) {
        self.raised.set(false);
    }

    /// Waits for the flag and lowers it.
    pub async fn wait(&self) {
        poll_fn(|context| if self.poll_raised(context) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Lowers the flag and says whether it was raised; if not, the task is woken once it is.
    pub fn poll_raised(&self, context: &Context) -> bool {
        let raised = self.raised.take();
        if !raised {
            *self.waiter.borrow_mut() = Some(context.waker().clone());
        }
        raised
    }
}
