//! The only place that spawns: every task has an owner who can stop it and wait for it.

use std::future::Future;
use std::sync::Once;
use std::sync::atomic::Ordering;
use std::time::Duration;

use portable_atomic::AtomicU64;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks with one owner, one stop signal and one place to wait for them. Clones share all three.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    token: CancellationToken,
}

impl Tasks {
    /// Tasks that stop when [`Tasks::token`] is cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Tasks that stop when `parent` is cancelled, and can be stopped earlier without touching it.
    #[must_use]
    pub fn under(parent: &CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), token: parent.child_token() }
    }

    /// Runs `future` beside the others. It has to look at [`Tasks::token`] itself. A panic in it costs this task only: it is
    /// counted and logged by the hook of [`install_panic_hook`].
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(future)
    }

    /// The stop signal that the tasks look at.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Number of tasks that still run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// True when no task runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Says stop, then waits for the tasks, `limit` at most. False: some still ran when the time was over.
    pub async fn close_and_wait(&self, limit: Duration) -> bool {
        self.tracker.close();
        self.token.cancel();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

/// Runs computing that takes long beside the tasks that serve sockets.
///
/// # Panics
/// When `work` does.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // Nobody aborts it: it panicked, and so does whoever waits for it.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// A task of this crate that lives as long as the process and needs no owner.
pub(crate) fn spawn_for_life(future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future));
}

static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics since [`install_panic_hook`]. Anything above zero is a bug to report.
#[must_use]
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Counts each panic and logs it at ERROR, instead of the standard text on stderr. A second call changes nothing.
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            let message = panic
                .payload()
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str))
                .unwrap_or("(no text)");
            let location = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(%location, message, "panic: this is a bug in postern");
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn close_and_wait_stops_and_awaits() {
        let tasks = Tasks::new();
        let token = tasks.token().clone();
        let handle = tasks.spawn(async move {
            token.cancelled().await;
            7
        });
        assert_eq!(tasks.len(), 1);
        assert!(tasks.close_and_wait(Duration::from_secs(10)).await);
        assert_eq!(handle.await.unwrap(), 7);
        assert!(tasks.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_told() {
        let tasks = Tasks::new();
        let _deaf = tasks.spawn(std::future::pending::<()>());
        assert!(!tasks.close_and_wait(Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way() {
        let parent = CancellationToken::new();
        let (one, other) = (Tasks::under(&parent), Tasks::under(&parent));
        assert!(one.close_and_wait(Duration::from_secs(1)).await);
        assert!(!parent.is_cancelled() && !other.token().is_cancelled());
        parent.cancel();
        assert!(other.token().is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_is_counted_and_costs_its_task_only() {
        install_panic_hook();
        let before = panics();
        let tasks = Tasks::new();
        let broken = tasks.spawn(async { panic!("on purpose") });
        let whole = tasks.spawn(async { 1 });
        assert!(broken.await.is_err());
        assert_eq!(whole.await.unwrap(), 1);
        assert!(panics() > before);
        assert!(tasks.close_and_wait(Duration::from_secs(1)).await);
    }
}
