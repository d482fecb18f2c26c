//! The tests that every keeper of the promise must pass.
//!
//! A keeper's test writes `postern_store::battery!(open);` where `open` is a function
//! that returns a new, empty store in a [`Harness`]. Each case becomes one `#[test]`.
#![allow(clippy::unwrap_used, reason = "these are tests; a panic is how they fail")]

mod model;
mod notifications;
mod records;
mod samples;
mod together;

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::{Batch, Committed, Pending, Store, StoreError};

pub use model::agrees_with_the_model;
pub use notifications::*;
pub use records::*;
pub use together::*;

/// No write takes longer, even on a loaded machine with a slow disk.
const DEADLINE: Duration = Duration::from_secs(60);

/// A store under test. Dropping it removes what it left on disk.
pub trait Harness {
    /// The store as it is open now.
    fn store(&self) -> Arc<dyn Store>;

    /// Closes the store and opens it again. `false`: this keeper does not outlive the
    /// process, nothing was done.
    fn reopen(&mut self) -> bool;
}

/// Makes one `#[test]` of each case. The argument is a function or closure that
/// returns `Box<dyn Harness>`.
#[macro_export]
macro_rules! battery {
    ($open:expr) => {
        $crate::battery!(@each $open;
            accounts_come_and_go
            a_record_comes_back_as_it_went_in
            households_are_apart
            scan_shows_everything_in_key_order
            commit_ids_count_per_household
            the_log_keeps_the_latest_of_each_key
            asserts_decide
            a_failing_batch_leaves_nothing
            steps_see_the_steps_before
            removing_an_account_removes_everything
            received_are_ordered_and_bounded
            a_second_arrival_is_ignored
            outgoing_wait_until_delivered
            pairs_wait_apart
            a_notification_comes_back_as_it_went_in
            a_notification_is_forgotten_on_request
            the_latest_supersede
            notifications_are_found_and_counted
            one_batch_reaches_two_households
            sweep_drops_what_ended
            sweep_is_bounded
            absurd_bounds_are_harmless
            versions_keep_writers_apart
            an_acknowledged_write_is_seen
            reopening_keeps_everything
            agrees_with_the_model
        );
    };
    (@each $open:expr; $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                $crate::battery::$case(&$open);
            }
        )*
    };
}

/// Waits for a write without a runtime.
pub fn wait<T>(mut pending: Pending<T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Poll::Ready(value) = pending.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "a write did not end");
        thread::park_timeout(left);
    }
}

/// Commits and waits.
pub fn commit(store: &dyn Store, batch: Batch) -> Result<Committed, StoreError> {
    wait(store.commit(batch))
}
