//! Which way of authentication a socket takes: what the client chooses, and how a relay finds out.

use std::fmt;
use std::time::{Duration, Instant};

use crate::request::AuthMode;

/// What the user of the client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModeWish {
    /// Challenge and response rather than the signed line.
    pub escr: bool,
    /// The user has said so; it is not the default.
    pub explicit: bool,
    /// Everything goes through one port of the relay.
    pub only_443: bool,
}

impl Default for ModeWish {
    /// Challenge and response where both can.
    fn default() -> Self {
        Self { escr: true, explicit: false, only_443: false }
    }
}

/// Why no socket should even be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModeRefused {
    /// One port for all needs challenge and response, which the device cannot do.
    SinglePort,
    /// The user wants challenge and response, the relay cannot tell the sides apart, and the device cannot do it.
    Explicit,
    /// Our own signing key could not be published.
    OwnKey,
}

impl ModeWish {
    /// The mode of one end. `can`: this end can answer challenges. `relay_detects`: the relay finds out by itself.
    /// Source: the client's rules of NoPorts 6.16.
    #[must_use]
    pub fn of_end(self, can: bool, relay_detects: bool) -> AuthMode {
        let escr = if self.only_443 {
            true
        } else if self.explicit {
            self.escr && can
        } else {
            relay_detects && self.escr && can
        };
        if escr { AuthMode::Escr } else { AuthMode::Payload }
    }

    /// The mode to ask the relay for, before its answer tells what it can.
    #[must_use]
    pub fn of_request(self, can: bool) -> AuthMode {
        self.of_end(can, false)
    }

    /// Refuses what cannot work, as soon as relay and device have said what they can.
    ///
    /// # Errors
    /// See [`ModeRefused`].
    pub fn check_device(self, authenticates: bool, can: bool, relay_detects: bool) -> Result<(), ModeRefused> {
        if !authenticates || can {
            return Ok(());
        }
        if self.only_443 {
            return Err(ModeRefused::SinglePort);
        }
        if self.explicit && self.escr && !relay_detects {
            return Err(ModeRefused::Explicit);
        }
        Ok(())
    }
}

impl fmt::Display for ModeRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SinglePort => {
                "a session over one port (--443) needs the 'escr' relay auth mode, and this device daemon does not support it; leave out --443, or update the daemon"
            }
            Self::Explicit => {
                "this device daemon does not support the 'escr' relay auth mode, and this relay takes one mode for both ends; leave out --relay-auth-mode escr, use a newer relay, or update the daemon"
            }
            Self::OwnKey => {
                "the 'escr' relay auth mode needs our signing key to be published, and the atServer did not take it; use --relay-auth-mode payload, or ask for an enrolment that may write it"
            }
        })
    }
}

impl std::error::Error for ModeRefused {}

/// How a relay begins with a socket of which it does not know what it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detection {
    until: Instant,
}

/// What to do with it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It speaks first: read its signed line.
    Line,
    /// Send a challenge.
    Challenge,
    /// Wait for its first byte, for a hint, or for this moment.
    Wait(Instant),
    /// It has said what nobody says.
    Nonsense,
}

impl Detection {
    /// A socket arrived; it has this long to speak first.
    #[must_use]
    pub fn new(window: Duration, now: Instant) -> Self {
        Self { until: now + window }
    }

    /// `first`: the first byte it has sent. `hint`: what is known of its side meanwhile.
    #[must_use]
    pub fn opening(&self, first: Option<u8>, hint: Option<&AuthMode>, now: Instant) -> Opening {
        match (first, hint) {
            (Some(b'{'), _) | (None, Some(AuthMode::Payload)) => Opening::Line,
            (Some(_), _) => Opening::Nonsense,
            (None, Some(AuthMode::Escr)) => Opening::Challenge,
            (None, _) if now >= self.until => Opening::Challenge,
            (None, _) => Opening::Wait(self.until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: ModeWish = ModeWish { escr: true, explicit: false, only_443: false };
    const ESCR: ModeWish = ModeWish { escr: true, explicit: true, only_443: false };
    const PAYLOAD: ModeWish = ModeWish { escr: false, explicit: true, only_443: false };
    const ONLY_443: ModeWish = ModeWish { escr: true, explicit: false, only_443: true };

    #[test]
    fn the_table_of_modes() {
        use AuthMode::{Escr, Payload};
        for (wish, can, detects, mode) in [
            (DEFAULT, true, true, Escr),
            (DEFAULT, false, true, Payload),
            (DEFAULT, true, false, Payload),
            (DEFAULT, false, false, Payload),
            (ESCR, true, false, Escr),
            (ESCR, false, true, Payload),
            (PAYLOAD, true, true, Payload),
            (ONLY_443, true, false, Escr),
            (ONLY_443, false, false, Escr),
        ] {
            assert_eq!(wish.of_end(can, detects), mode, "{wish:?} {can} {detects}");
        }
        assert_eq!(DEFAULT.of_request(true), Payload, "an old relay takes it for both ends");
        assert_eq!(ESCR.of_request(true), Escr);
    }

    #[test]
    fn refused_before_anybody_connects() {
        assert_eq!(ONLY_443.check_device(true, false, true), Err(ModeRefused::SinglePort));
        assert_eq!(ESCR.check_device(true, false, false), Err(ModeRefused::Explicit));
        assert_eq!(ESCR.check_device(true, false, true), Ok(()), "the relay takes both");
        assert_eq!(ESCR.check_device(false, false, false), Ok(()), "the device proves nothing");
        assert_eq!(DEFAULT.check_device(true, false, false), Ok(()));
        assert_eq!(ONLY_443.check_device(true, true, false), Ok(()));
    }

    #[expect(clippy::disallowed_methods, reason = "a base for virtual time; only differences matter")]
    #[test]
    fn who_speaks_first_is_of_2024_and_who_waits_is_asked() {
        let start = Instant::now();
        let detection = Detection::new(Duration::from_millis(500), start);
        let end = start + Duration::from_millis(500);
        assert_eq!(detection.opening(None, None, start), Opening::Wait(end));
        assert_eq!(detection.opening(Some(b'{'), None, start), Opening::Line);
        assert_eq!(detection.opening(Some(b'{'), Some(&AuthMode::Escr), end), Opening::Line);
        assert_eq!(detection.opening(Some(b'G'), None, start), Opening::Nonsense);
        assert_eq!(detection.opening(None, None, end), Opening::Challenge);
        assert_eq!(detection.opening(None, Some(&AuthMode::Escr), start), Opening::Challenge);
        assert_eq!(detection.opening(None, Some(&AuthMode::Payload), end), Opening::Line, "it may be slow");
        let unknown = AuthMode::Unknown("x".into());
        assert_eq!(detection.opening(None, Some(&unknown), start), Opening::Wait(end));
    }
}
