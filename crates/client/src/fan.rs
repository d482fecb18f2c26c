//! One connection's notifications for many listeners.

use std::sync::{Arc, Mutex, PoisonError};

use postern_net::tasks::Tasks;
use postern_proto::Notification;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::handle::Inbox;
use crate::limits::INBOX;

/// Gives each of many sessions of one login an [`Inbox`] of its own.
#[derive(Clone)]
pub struct Fan {
    listeners: Listeners,
}

type Listeners = Arc<Mutex<Vec<(mpsc::Sender<Notification>, CancellationToken)>>>;

impl Inbox {
    /// From now on everything that arrives goes to all that listen at the moment.
    #[must_use]
    pub fn fan_out(mut self, tasks: &Tasks) -> Fan {
        let fan = Fan { listeners: Arc::default() };
        let (listeners, stop) = (Arc::clone(&fan.listeners), tasks.token().clone());
        tasks.spawn(async move {
            loop {
                let push = tokio::select! {
                    biased; // stopping first
                    () = stop.cancelled() => return,
                    push = self.next() => push,
                };
                // When the client has stopped its listeners hear it by their channels' end.
                let Some(push) = push else {
                    lock(&listeners).clear();
                    return;
                };
                // A listener that is full misses one, as its own connection would have; one that is gone is forgotten.
                lock(&listeners).retain(|(listener, until)| {
                    !until.is_cancelled()
                        && match listener.try_send(push.clone()) {
                            Ok(()) => true,
                            Err(mpsc::error::TrySendError::Full(_)) => {
                                tracing::debug!("inbox full: a notification was dropped");
                                true
                            }
                            Err(mpsc::error::TrySendError::Closed(_)) => false,
                        }
                });
            }
        });
        fan
    }
}

impl Fan {
    /// Listens from now on, until it is dropped or `until` is cancelled.
    #[must_use]
    pub fn inbox(&self, until: CancellationToken) -> Inbox {
        let (sender, pushes) = mpsc::channel(INBOX);
        let mut listeners = lock(&self.listeners);
        listeners.retain(|(listener, until)| !listener.is_closed() && !until.is_cancelled());
        listeners.push((sender, until));
        Inbox { pushes }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
