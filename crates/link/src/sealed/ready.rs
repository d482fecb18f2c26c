//! Which of many local ends has something to do, without asking all of them.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use postern_streams::StreamId;

/// Streams whose local end was woken since the last look.
#[derive(Default)]
pub(crate) struct ReadyList(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    woken: Vec<StreamId>,
    driver: Option<Waker>,
}

impl ReadyList {
    /// A waker for the local end of `stream`.
    pub(crate) fn waker(self: &Arc<Self>, stream: StreamId) -> Waker {
        Waker::from(Arc::new(StreamWaker { stream, list: Arc::clone(self) }))
    }

    /// Who was woken; later ones wake the driver's task.
    pub(crate) fn look(&self, cx: &Context<'_>, woken: &mut Vec<StreamId>) {
        let mut inner = lock(&self.0);
        if !inner.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            inner.driver = Some(cx.waker().clone());
        }
        mem::swap(&mut inner.woken, woken);
    }
}

struct StreamWaker {
    stream: StreamId,
    list: Arc<ReadyList>,
}

impl Wake for StreamWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let driver = {
            let mut inner = lock(&self.list.0);
            inner.woken.push(self.stream);
            inner.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
