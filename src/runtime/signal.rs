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
    /// Raises the flag and wakes whoever waits.
    pub fn raise(&self) {
        self.raised.set(true);
        if let Some(waiter) = self.waiter.borrow_mut().take() {
            waiter.wake();
        }
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
