//! A change: what must hold, and what is then done.

use postern_proto::{AtKey, AtSign, Millis, Notification, NotificationId, Record};

use crate::{Account, Delivery, Logged};

/// One change, applied whole or not at all. It may touch several households: a
/// notification between two atSigns of one server is sent at one and received at
/// the other in the same batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The time that log entries carry, milliseconds since the epoch.
    pub at: Millis,
    /// Checked before anything is done.
    pub asserts: Vec<Assert>,
    /// Done in order.
    pub ops: Vec<Op>,
}

/// What must hold before the batch. Records count as stored: an expired record
/// that was not swept yet is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assert {
    /// No such record.
    KeyAbsent(AtSign, AtKey),
    /// The record exists in this version.
    KeyVersion(AtSign, AtKey, u64),
    /// The record exists.
    KeyPresent(AtSign, AtKey),
    /// No such household.
    AccountAbsent(AtSign),
}

/// How a written record enters the household's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAs {
    /// Not at all: private, hidden and enrolment records.
    Nothing,
    /// As [`Logged::Put`].
    Put,
    /// As [`Logged::Meta`].
    Meta,
}

/// One step of a batch. Every step but [`Op::AddAccount`] needs the household to
/// exist; where it does not, the batch fails with `Conflict`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a record as given, in place of an earlier one.
    Put {
        /// Whose.
        owner: AtSign,
        /// Its name.
        key: AtKey,
        /// Value, metadata, dates, version.
        record: Record,
        /// Whether and how it is logged.
        log: LogAs,
    },
    /// Removes a record. Removing what is not there is logged all the same.
    Remove {
        /// Whose.
        owner: AtSign,
        /// Its name.
        key: AtKey,
        /// Whether it is logged.
        log: bool,
    },
    /// Adds a household; `Conflict` when it exists.
    AddAccount(Account),
    /// Changes a household's own port.
    SetPort {
        /// Whose.
        at_sign: AtSign,
        /// `None`: the common port.
        port: Option<u16>,
    },
    /// Removes a household and all its data.
    RemoveAccount(AtSign),
    /// Stores a notification for its `to`. A second one of the same `from` and `id`
    /// is ignored and told in [`Committed::fresh`].
    Receive(Notification),
    /// Stores a notification of its `from`, queued for delivery. A second one of the
    /// same `id` is ignored and told in [`Committed::fresh`].
    Send(Notification),
    /// Notes how far an outgoing notification got; nothing happens when it is unknown.
    Deliver {
        /// The sender.
        owner: AtSign,
        /// Which.
        id: NotificationId,
        /// How far.
        delivery: Delivery,
    },
    /// Of the notifications of `owner` to `to` that wait for delivery, are of strategy `latest` and come from
    /// `notifier`, only the newest `keep` go on waiting; the others have expired.
    Supersede {
        /// The sender.
        owner: AtSign,
        /// The recipient.
        to: AtSign,
        /// The sender's program, as stored.
        notifier: Option<String>,
        /// How many stay.
        keep: u32,
    },
    /// Forgets every notification with this id that `owner` received or sent.
    RemoveNotification {
        /// Whose.
        owner: AtSign,
        /// Which.
        id: NotificationId,
    },
}

/// What a batch did; both lists have one entry per step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The commit id of each logged `Put` and `Remove`.
    pub commits: Vec<Option<i64>>,
    /// `false` for a `Receive` or `Send` of a notification that was stored before.
    pub fresh: Vec<bool>,
}

impl Batch {
    /// An empty batch at `now`.
    pub fn new(now: Millis) -> Self {
        Self { at: now, asserts: Vec::new(), ops: Vec::new() }
    }

    /// Adds a condition.
    #[must_use]
    pub fn assert(mut self, assert: Assert) -> Self {
        self.asserts.push(assert);
        self
    }

    /// Adds a step.
    #[must_use]
    pub fn op(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Writes a record.
    #[must_use]
    pub fn put(self, owner: &AtSign, key: &AtKey, record: Record, log: LogAs) -> Self {
        self.op(Op::Put { owner: owner.clone(), key: key.clone(), record, log })
    }

    /// Removes a record and logs it.
    #[must_use]
    pub fn remove(self, owner: &AtSign, key: &AtKey) -> Self {
        self.op(Op::Remove { owner: owner.clone(), key: key.clone(), log: true })
    }

    /// Removes a record without a log entry.
    #[must_use]
    pub fn remove_unlogged(self, owner: &AtSign, key: &AtKey) -> Self {
        self.op(Op::Remove { owner: owner.clone(), key: key.clone(), log: false })
    }

    /// Adds a household.
    #[must_use]
    pub fn add_account(self, account: Account) -> Self {
        self.op(Op::AddAccount(account))
    }

    /// Stores an arrived notification.
    #[must_use]
    pub fn receive(self, notification: Notification) -> Self {
        self.op(Op::Receive(notification))
    }

    /// Queues an outgoing notification.
    #[must_use]
    pub fn send(self, notification: Notification) -> Self {
        self.op(Op::Send(notification))
    }

    /// Notes how far an outgoing notification got.
    #[must_use]
    pub fn deliver(self, owner: &AtSign, id: &NotificationId, delivery: Delivery) -> Self {
        self.op(Op::Deliver { owner: owner.clone(), id: id.clone(), delivery })
    }
}

impl LogAs {
    /// The kind of entry to write, if any.
    pub fn kind(self) -> Option<Logged> {
        match self {
            Self::Nothing => None,
            Self::Put => Some(Logged::Put),
            Self::Meta => Some(Logged::Meta),
        }
    }
}

impl Op {
    /// The household that must exist for this step; `None` for the one that makes it.
    pub fn household(&self) -> Option<&AtSign> {
        match self {
            Self::Put { owner, .. }
            | Self::Remove { owner, .. }
            | Self::Deliver { owner, .. }
            | Self::Supersede { owner, .. }
            | Self::RemoveNotification { owner, .. } => Some(owner),
            Self::SetPort { at_sign, .. } | Self::RemoveAccount(at_sign) => Some(at_sign),
            Self::Receive(n) => Some(&n.to),
            Self::Send(n) => Some(&n.from),
            Self::AddAccount(_) => None,
        }
    }
}
