//! One monitoring connection, as the hub sees it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use postern_dialogue::server::{Access, Rights};
use postern_proto::{AtSign, Millis, NotificationId};
use tokio::sync::Notify;

use super::lock;
use crate::limits::{QUEUED_PUSH_BYTES, QUEUED_PUSHES};
use crate::pattern::Pattern;

/// What a monitor wants, and what waits for it.
pub(crate) struct Subscription {
    pattern: Pattern,
    self_notifications: bool,
    /// Of the enrolment that monitors; `None`: no limits.
    rights: Option<Rights>,
    stats: bool,
    queue: Mutex<Queue>,
    /// Rung when something was put into the queue, or it was closed.
    pub(crate) bell: Notify,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    closed: bool,
}

/// A notification with everything that decides who hears it.
pub(crate) struct Push {
    pub(crate) at: Millis,
    pub(crate) from: AtSign,
    pub(crate) id: NotificationId,
    /// As sent.
    pub(super) key: String,
    /// Without recipient and sender, lower case.
    pub(super) name: String,
    pub(super) is_self: bool,
    /// With its end.
    pub(crate) line: String,
}

/// What waits for a monitor; shared by all that hear the same.
#[derive(Clone)]
pub(crate) enum Item {
    /// A notification.
    Push(Arc<Push>),
    /// The statistics line with its end.
    Stats(Arc<str>),
}

impl Subscription {
    pub(crate) fn new(pattern: Pattern, self_notifications: bool, rights: Option<Rights>, stats: bool) -> Self {
        Self { pattern, self_notifications, rights, stats, queue: Mutex::default(), bell: Notify::new() }
    }

    pub(crate) fn wants_stats(&self) -> bool {
        self.stats
    }

    /// Whether this monitor is to hear `push`.
    pub(crate) fn wants(&self, push: &Push) -> bool {
        let allowed = match &self.rights {
            None => true,
            Some(rights) if push.is_self => rights.manage(),
            Some(rights) => rights.reach(&push.name, Access::Read),
        };
        allowed
            && (self.self_notifications || !push.is_self)
            && (self.pattern.is_in(&push.key) || self.pattern.is_in(push.from.body()))
    }

    pub(super) fn offer(&self, push: &Arc<Push>) {
        if self.wants(push) {
            self.put(Item::Push(Arc::clone(push)));
        }
    }

    /// Statistics supersede each other: at most one waits.
    pub(super) fn offer_stats(&self, line: &Arc<str>) {
        let mut queue = lock(&self.queue);
        let waiting = queue.items.iter_mut().find(|item| matches!(item, Item::Stats(_)));
        if let Some(waiting) = waiting {
            *waiting = Item::Stats(Arc::clone(line));
            return;
        }
        drop(queue);
        self.put(Item::Stats(Arc::clone(line)));
    }

    fn put(&self, item: Item) {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return;
        }
        let bytes = queue.bytes.saturating_add(item.line().len());
        if !queue.items.is_empty() && (queue.items.len() >= QUEUED_PUSHES || bytes > QUEUED_PUSH_BYTES) {
            // A reader who never reads: it resumes by replay when it comes back.
            *queue = Queue { closed: true, ..Queue::default() };
        } else {
            queue.items.push_back(item);
            queue.bytes = bytes;
        }
        drop(queue);
        self.bell.notify_one();
    }

    /// The connection is to end.
    pub(crate) fn close(&self) {
        *lock(&self.queue) = Queue { closed: true, ..Queue::default() };
        self.bell.notify_one();
    }

    /// Everything that waits; `None` when the connection is to end.
    pub(crate) fn take(&self) -> Option<VecDeque<Item>> {
        let mut queue = lock(&self.queue);
        if queue.closed {
            return None;
        }
        Some(std::mem::take(&mut *queue).items)
    }
}

impl Item {
    /// With its end.
    pub(crate) fn line(&self) -> &str {
        match self {
            Self::Push(push) => &push.line,
            Self::Stats(line) => line,
        }
    }
}
