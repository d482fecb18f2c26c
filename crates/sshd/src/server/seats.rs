//! The channels of a connection, and how far each has come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::server::Msg;
use russh::{ChannelId, ChannelWriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::input::Input;
use crate::limits::CHANNELS;
use crate::program::Order;
use crate::terminal::Wanted;

/// The channels of a connection. The library asks in one task, and channels end in others.
#[derive(Default)]
pub(super) struct Seats(Mutex<HashMap<ChannelId, Seat>>);

/// A channel.
pub(super) struct Seat {
    pub(super) input: Arc<Input>,
    pub(super) over: CancellationToken,
    pub(super) stage: Stage,
}

pub(super) enum Stage {
    /// What the program will be is not known yet.
    Waits(Box<Wishes>),
    Runs(mpsc::Sender<Order>),
    /// A forwarded port.
    Carries,
}

pub(super) struct Wishes {
    pub(super) channel: ChannelWriteHalf<Msg>,
    pub(super) terminal: Option<Wanted>,
    pub(super) variables: Vec<(String, String)>,
}

impl Seats {
    /// False: there are enough.
    pub(super) fn take(&self, id: ChannelId, seat: Seat) -> bool {
        let mut seats = self.lock();
        let has_room = seats.len() < CHANNELS;
        if has_room {
            seats.insert(id, seat);
        }
        has_room
    }

    /// A seat that was taken, for the task that gives it back.
    pub(super) fn place(self: &Arc<Self>, id: ChannelId) -> Place {
        Place { seats: Arc::clone(self), id }
    }

    /// Entries are changed in single steps, so a poisoned lock is still good.
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A seat, given back when the task of its channel is over.
pub(super) struct Place {
    seats: Arc<Seats>,
    id: ChannelId,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seats.lock().remove(&self.id);
    }
}
