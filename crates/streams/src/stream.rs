//! One stream as one end sees it.

use std::time::Duration;

use crate::limits::{FIRST_WINDOW, LARGEST_WINDOW};

/// How far an opening has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// We asked; the other end has not answered.
    Asked,
    /// The other end asked; we have not answered.
    Knocked,
    /// Both ends want it.
    Open,
}

pub(crate) struct Stream {
    pub(crate) opening: Opening,
    /// Bytes that we may send.
    pub(crate) credit: u64,
    /// We have sent END.
    pub(crate) ended: bool,
    /// The other end has sent END.
    pub(crate) over: bool,
    /// There is something to send, as far as we know.
    pub(crate) wants: bool,
    /// The last turn was used to the full.
    pub(crate) bursts: bool,
    /// It stands in the queue for a turn.
    pub(crate) queued: bool,
    /// What the other end may send.
    pub(crate) window: Window,
}

/// What the other end may send: how much, and whether it should be more.
pub(crate) struct Window {
    /// Bytes granted and not come yet.
    granted: usize,
    /// Bytes that came and are not handed out.
    held: usize,
    size: u32,
    /// Handed out since `since`.
    handed: usize,
    since: Option<Duration>,
}

impl Stream {
    pub(crate) fn new(opening: Opening, credit: u32, window: u32) -> Self {
        Self {
            opening,
            credit: u64::from(credit),
            ended: false,
            over: false,
            wants: false,
            bursts: false,
            queued: false,
            window: Window::new(window),
        }
    }

    /// Bytes it may send now, if its turn came.
    pub(crate) fn sendable(&self) -> u64 {
        if self.ended || self.opening == Opening::Knocked { 0 } else { self.credit }
    }
}

impl Window {
    fn new(size: u32) -> Self {
        Self { granted: size as usize, held: 0, size, handed: 0, since: None }
    }

    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// Bytes came. False: more than were granted.
    pub(crate) fn take(&mut self, bytes: usize, now: Duration) -> bool {
        let Some(left) = self.granted.checked_sub(bytes) else { return false };
        self.granted = left;
        self.held += bytes;
        self.since.get_or_insert(now);
        true
    }

    /// Bytes were handed out. `spare`: how much the windows of the session may still grow. Returns the bytes to grant.
    pub(crate) fn hand_out(
        &mut self,
        bytes: usize,
        spare: usize,
        round_trip: Option<Duration>,
        now: Duration,
    ) -> Option<u32> {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        self.handed += bytes;
        let size = self.size as usize;
        if self.handed >= size {
            let quick = match (self.since, round_trip) {
                (Some(since), Some(round_trip)) => now.saturating_sub(since) <= 2 * round_trip,
                _ => false,
            };
            if quick && self.size < LARGEST_WINDOW && spare >= size {
                self.size = self.size.saturating_mul(2).min(LARGEST_WINDOW);
            }
            self.handed = 0;
            // The time begins anew with the next byte, or now when some are here.
            self.since = (self.held > 0).then_some(now);
        }
        self.grant()
    }

    /// What is to be granted so that the window is whole again, once that is half of it.
    fn grant(&mut self) -> Option<u32> {
        let more = (self.size as usize).saturating_sub(self.granted + self.held);
        if more < (self.size / 2) as usize {
            return None;
        }
        self.granted += more;
        u32::try_from(more).ok()
    }

    /// Raises a first window to `size`, before anything came by it.
    pub(crate) fn raise(&mut self, size: u32) {
        let more = size.max(FIRST_WINDOW).saturating_sub(self.size);
        self.granted += more as usize;
        self.size += more;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIP: Option<Duration> = Some(Duration::from_millis(100));

    #[test]
    fn a_window_doubles_when_it_goes_through_in_two_round_trips_and_not_else() {
        let mut quick = Window::new(FIRST_WINDOW);
        assert!(quick.take(65_536, Duration::ZERO));
        assert_eq!(quick.hand_out(65_536, usize::MAX, TRIP, Duration::from_millis(150)), Some(131_072));
        let mut slow = Window::new(FIRST_WINDOW);
        assert!(slow.take(65_536, Duration::ZERO));
        assert_eq!(slow.hand_out(65_536, usize::MAX, TRIP, Duration::from_millis(250)), Some(65_536));
        let mut poor = Window::new(FIRST_WINDOW);
        assert!(poor.take(65_536, Duration::ZERO));
        assert_eq!(poor.hand_out(65_536, 65_535, TRIP, Duration::ZERO), Some(65_536), "the session has no more");
    }

    #[test]
    fn what_is_granted_and_held_is_never_more_than_the_window() {
        let mut window = Window::new(FIRST_WINDOW);
        assert!(!window.take(65_537, Duration::ZERO));
        assert!(window.take(40_000, Duration::ZERO));
        assert_eq!(window.hand_out(30_000, 0, None, Duration::ZERO), None, "less than half");
        assert_eq!(window.hand_out(10_000, 0, None, Duration::ZERO), Some(40_000));
        assert!(!window.take(65_537, Duration::ZERO));
        assert_eq!(window.hand_out(1_000_000, 0, None, Duration::ZERO), None, "nobody hands out what never came");
    }
}
