//! The storage promise: read a view, commit a batch; a memory keeper and the battery of tests.
//!
//! A household is everything kept for one atSign of this server: its records, its
//! commit log, the notifications it received and those it sent. Reads are synchronous
//! and take microseconds. Writes are batches: one acknowledged [`Batch`] is one durable
//! transaction, all of it or nothing. The clock stays outside: `now` is a parameter.
//!
//! Nothing here bounds the size of values, batches or households; the caller does.

mod batch;
#[cfg(any(test, feature = "battery"))]
pub mod battery;
mod error;
pub mod limits;
mod memory;

use std::pin::Pin;

use postern_proto::{AtKey, AtSign, MessageType, Millis, Notification, NotificationId, Operation, Record};

pub use batch::{Assert, Batch, Committed, LogAs, Op};
pub use error::StoreError;
pub use memory::MemoryStore;

/// A write under way. It needs no particular runtime.
///
/// The write may happen even when the future is dropped before it resolves: a
/// caller that stops waiting does not learn the outcome.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Is shown key text, birth and end of a record.
pub type Visit<'a> = &'a mut dyn FnMut(&str, Option<Millis>, Option<Millis>);

/// What every keeper of data promises. Used as `Arc<dyn Store>`.
///
/// A read that starts after a commit was acknowledged sees it.
pub trait Store: Send + Sync + 'static {
    /// Every household, ordered by atSign.
    fn accounts(&self) -> Result<Vec<Account>, StoreError>;

    /// One record as stored. The caller hides the unborn and the expired
    /// ([`Record::is_active`]).
    fn get(&self, owner: &AtSign, key: &AtKey) -> Result<Option<Record>, StoreError>;

    /// Calls `each` with key text, birth and end of every record, unborn and
    /// expired ones included, in the byte order of the key text.
    ///
    /// Hazard: `each` must not call the store; a keeper may hold a lock meanwhile.
    fn scan(&self, owner: &AtSign, each: Visit<'_>) -> Result<(), StoreError>;

    /// The household's highest commit id; −1 when nothing was logged yet.
    fn last_commit(&self, owner: &AtSign) -> Result<i64, StoreError>;

    /// Log entries with a commit id above `after`, ascending, at most `limit`.
    /// Only the latest entry of each key exists. The record of a `Put` may be gone
    /// when it expired.
    fn log_since(&self, owner: &AtSign, after: i64, limit: usize) -> Result<Vec<LogEntry>, StoreError>;

    /// Notifications received by `owner` (its own server's messages included) with
    /// `at > after` and `expires_at > now`, ascending by `at`, then by arrival; at most `limit`.
    ///
    /// Hazard: a page that ends between two notifications of the same `at` loses the
    /// second when the next page starts after that `at`.
    fn received_since(
        &self,
        owner: &AtSign,
        after: Millis,
        now: Millis,
        limit: usize,
    ) -> Result<Vec<Notification>, StoreError>;

    /// Outgoing notifications of all households that wait for delivery and are not
    /// expired at `now`, oldest `at` first, then by arrival; at most `limit`.
    fn queued(&self, now: Millis, limit: usize) -> Result<Vec<Notification>, StoreError>;

    /// Sender and recipient of everything that waits for delivery, expired or not, each pair once, ordered; at most
    /// `limit` pairs.
    fn waiting_pairs(&self, limit: usize) -> Result<Vec<(AtSign, AtSign)>, StoreError>;

    /// What is to go from `from` to `to` before all else that waits for delivery, expired or not: the highest priority,
    /// then the smallest `at`, then the earliest arrival.
    fn next_waiting(&self, from: &AtSign, to: &AtSign) -> Result<Option<Notification>, StoreError>;

    /// How far the delivery of a notification sent by `owner` got; `None` when unknown or swept.
    fn outgoing_status(&self, owner: &AtSign, id: &NotificationId) -> Result<Option<Delivery>, StoreError>;

    /// Every notification with this id that `owner` sent or received, expired ones included: the one sent first, then
    /// those received in the order of `at`.
    fn notifications(&self, owner: &AtSign, id: &NotificationId) -> Result<Vec<Kept>, StoreError>;

    /// How much `owner` has here. Looks at everything the household has.
    fn usage(&self, owner: &AtSign) -> Result<Usage, StoreError>;

    /// Applies a batch in one transaction that is durable before the future resolves.
    ///
    /// Asserts are checked first, inside the transaction, against the state before the
    /// batch; then the operations run in order. Any failure undoes the whole batch.
    /// Two batches not awaited one after the other may run in either order.
    fn commit(&self, batch: Batch) -> Pending<Result<Committed, StoreError>>;

    /// Drops records and notifications with `expires_at <= now`, at most
    /// [`limits::SWEEP_ROWS`] of each kind. Nothing is logged: readers see the end coming
    /// in the record's own dates.
    fn sweep(&self, now: Millis) -> Pending<Result<Swept, StoreError>>;
}

/// A household of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Whose it is.
    pub at_sign: AtSign,
    /// The port of its own, when it does not share the common one.
    pub port: Option<u16>,
    /// Milliseconds since the epoch.
    pub created_at: Millis,
}

/// What happened to a key, as told to clients that synchronise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Counts from 0 in each household.
    pub commit: i64,
    /// The key's text.
    pub key: String,
    /// What happened.
    pub kind: Logged,
    /// The batch's time.
    pub at: Millis,
}

/// Kinds of log entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logged {
    /// Value and metadata were written.
    Put,
    /// Metadata alone was written.
    Meta,
    /// The key was removed, or was asked to be.
    Remove,
}

/// How far an outgoing notification got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Waits for delivery.
    Queued,
    /// The other server took it.
    Delivered,
    /// Given up.
    Errored,
    /// Its time ended before it was delivered.
    Expired,
}

/// A notification and which side of it this household is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// As stored.
    pub notification: Notification,
    /// How far it got; `None`: it was received.
    pub delivery: Option<Delivery>,
}

/// What a household has in the store, expired and not yet swept things included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Records.
    pub records: u64,
    /// Bytes of their names and values.
    pub bytes: u64,
    /// Notifications received.
    pub received: u64,
    /// Notifications sent that wait.
    pub queued: u64,
    /// Notifications sent that arrived.
    pub delivered: u64,
    /// Notifications sent that were given up.
    pub errored: u64,
    /// Notifications sent whose time ended first.
    pub expired: u64,
    /// Of all notifications, those that tell of a deletion.
    pub deletes: u64,
    /// Of all notifications, those that carry a text.
    pub texts: u64,
}

impl Usage {
    /// Notifications sent.
    pub fn sent(&self) -> u64 {
        self.queued + self.delivered + self.errored + self.expired
    }

    /// Counts `n` notifications of one kind; `delivery` of received ones is `None`.
    pub fn count(&mut self, delivery: Option<Delivery>, operation: Operation, message_type: MessageType, n: u64) {
        *match delivery {
            None => &mut self.received,
            Some(Delivery::Queued) => &mut self.queued,
            Some(Delivery::Delivered) => &mut self.delivered,
            Some(Delivery::Errored) => &mut self.errored,
            Some(Delivery::Expired) => &mut self.expired,
        } += n;
        if operation == Operation::Delete {
            self.deletes += n;
        }
        if message_type == MessageType::Text {
            self.texts += n;
        }
    }
}

/// What a sweep dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Expired records.
    pub records: usize,
    /// Expired notifications, received and sent.
    pub notifications: usize,
    /// The limit was reached for one kind; sweep again soon.
    pub more: bool,
}
