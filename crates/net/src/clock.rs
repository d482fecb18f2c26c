//! What time it is, on machines whose clock may be years off: a gateway without a battery starts in 1970, or where it was
//! switched off, and its network may keep the time from it.
//!
//! Three things are known besides the system's clock: this program was not there before it was made; it was so late already
//! when clock and atServer last agreed; and what our atServer said since, over a connection whose certificate was checked.
//! The argument why nobody gains by it: docs/threat-model.md, "A wrong clock". The system's clock is never set.
//!
//! [`Clock`] is the rule, without a clock of its own; the functions ask the one of this process.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::limits::{CLOCK_BELIEVED_FOR, CLOCKS_AGREE, RELEASED};

/// Decides what time it is. Times are milliseconds since 1970; `now` never jumps.
#[derive(Clone, Debug)]
pub struct Clock {
    /// It cannot be earlier.
    earliest: u64,
    told: Option<Told>,
}

/// What our atServer said last.
#[derive(Clone, Copy, Debug)]
struct Told {
    time: u64,
    at: Instant,
}

/// What is to be said of the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody was asked, and it may be right.
    Unknown,
    /// The atServer's shows the same.
    Agrees,
    /// It cannot be right, and nobody has said what time it is.
    Impossible,
    /// The atServer's time counts: ours is so far behind.
    Behind(Duration),
    /// The atServer's time counts: ours is so far ahead that it cannot be right.
    FarAhead(Duration),
    /// Ours counts, though it is ahead: whoever could set us back could bring back what is over.
    Ahead(Duration),
}

impl Standing {
    /// The system's clock does not do.
    #[must_use]
    pub const fn is_wrong(self) -> bool {
        !matches!(self, Self::Unknown | Self::Agrees)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = "until it is set, the atServer's time counts";
        match self {
            Self::Unknown => f.write_str("the clock may be right; nobody was asked"),
            Self::Agrees => f.write_str("the clock shows what the atServer's shows"),
            Self::Impossible => {
                f.write_str("the clock cannot be right, and nobody has said what time it is: set it (NTP)")
            }
            Self::Behind(by) => write!(f, "the clock is {} behind the atServer's; {server}", Span(*by)),
            Self::FarAhead(by) => write!(f, "the clock is {} ahead of the atServer's; {server}", Span(*by)),
            Self::Ahead(by) => write!(
                f,
                "the clock is {} ahead of the atServer's, and requests are too old by it: set it (NTP)",
                Span(*by)
            ),
        }
    }
}

/// In its largest unit, rounded.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (length, unit) = match seconds {
            0..120 => (1, "seconds"),
            120..7200 => (60, "minutes"),
            7200..172_800 => (3600, "hours"),
            172_800..63_072_000 => (86_400, "days"),
            _ => (31_556_952, "years"),
        };
        write!(f, "{} {unit}", (seconds + length / 2) / length)
    }
}

impl Clock {
    /// It cannot be earlier than `earliest`.
    #[must_use]
    pub const fn new(earliest: u64) -> Self {
        Self { earliest, told: None }
    }

    /// It was so late already, as is known for sure.
    pub fn not_before(&mut self, time: u64) {
        self.earliest = self.earliest.max(time);
    }

    /// Our atServer said at `now` that it is `time`. One that is behind what is known has no say.
    pub fn hear(&mut self, time: u64, now: Instant) {
        if time >= self.earliest {
            self.told = Some(Told { time, at: now });
        }
    }

    /// Looks at the system's clock, now and then: one that still agrees is what the next look begins with, for the clock that
    /// never jumps may be a little fast or slow, and stands still while the machine is suspended.
    pub fn look(&mut self, system: u64, now: Instant) -> Standing {
        let (_, standing) = self.read(system, now);
        if standing == Standing::Agrees {
            self.hear(system, now);
        }
        standing
    }

    /// Whether the system's clock may be right: no earlier than what is known, and not years later.
    #[must_use]
    pub fn is_possible(&self, system: u64) -> bool {
        (self.earliest..self.earliest.saturating_add(ms(CLOCK_BELIEVED_FOR))).contains(&system)
    }

    /// What time it is for requests, vouchers and tickets, and what that says of the system's clock.
    #[must_use]
    pub fn read(&self, system: u64, now: Instant) -> (u64, Standing) {
        let told = self.told.map(|told| told.time.saturating_add(ms(now.saturating_duration_since(told.at))));
        let Some(told) = told else {
            return if self.is_possible(system) {
                (system, Standing::Unknown)
            } else {
                (self.earliest, Standing::Impossible)
            };
        };
        let off = Duration::from_millis(system.abs_diff(told));
        if off <= CLOCKS_AGREE {
            (system.max(self.earliest), Standing::Agrees)
        } else if system < told {
            (told, Standing::Behind(off))
        } else if self.is_possible(system) {
            (system, Standing::Ahead(off))
        } else {
            (told, Standing::FarAhead(off))
        }
    }

    /// The time by which certificates are judged: what the atServer said does not count, for the next one may say better.
    #[must_use]
    pub fn for_certificates(&self, system: u64) -> u64 {
        if self.is_possible(system) { system } else { self.earliest }
    }
}

static OURS: Mutex<Clock> = Mutex::new(Clock::new(RELEASED));

fn ours() -> MutexGuard<'static, Clock> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time in milliseconds since 1970: the system's, or what is better known.
#[must_use]
pub fn now_ms() -> u64 {
    ours().read(system_ms(), Instant::now()).0
}

/// What is to be said of the system's clock; to be looked at a few times an hour.
#[must_use]
pub fn look() -> Standing {
    ours().look(system_ms(), Instant::now())
}

/// It was so late already, in milliseconds since 1970: the machine remembers.
pub fn not_before(time: u64) {
    ours().not_before(time);
}

/// Our atServer, whose certificate was checked and which knows us, said just now that it is `time`, in milliseconds since
/// 1970.
pub fn hear(time: u64) -> Standing {
    let (system, now) = (system_ms(), Instant::now());
    let mut ours = ours();
    ours.hear(time, now);
    ours.read(system, now).1
}

pub(crate) fn for_certificates(system: Duration) -> Duration {
    Duration::from_millis(ours().for_certificates(ms(system)))
}

/// The system's clock, in milliseconds since 1970; before that, 0.
#[must_use]
pub fn system_ms() -> u64 {
    ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR: u64 = 31_556_952_000;
    /// Some time after the release.
    const TRUE: u64 = RELEASED + YEAR;

    fn told(time: u64, at: Instant) -> Clock {
        let mut clock = Clock::new(RELEASED);
        clock.hear(time, at);
        clock
    }

    #[test]
    fn a_clock_of_1970_goes_by_the_at_server() {
        let start = Instant::now();
        let clock = told(TRUE, start);
        let later = start + Duration::from_secs(3600);
        assert_eq!(clock.read(86_400_000, start), (TRUE, Standing::Behind(Duration::from_millis(TRUE - 86_400_000))));
        assert_eq!(clock.read(90_000_000, later).0, TRUE + 3_600_000);
        // The network has set it meanwhile.
        assert_eq!(clock.read(TRUE + 3_600_000, later), (TRUE + 3_600_000, Standing::Agrees));
    }

    #[test]
    fn without_a_word_it_is_no_earlier_than_what_is_known() {
        let mut clock = Clock::new(RELEASED);
        assert_eq!(clock.read(0, Instant::now()), (RELEASED, Standing::Impossible));
        assert_eq!(clock.read(RELEASED + 10 * YEAR, Instant::now()), (RELEASED, Standing::Impossible));
        assert_eq!(clock.read(TRUE, Instant::now()), (TRUE, Standing::Unknown));
        clock.not_before(TRUE);
        assert_eq!(clock.read(RELEASED, Instant::now()), (TRUE, Standing::Impossible));
        assert_eq!(clock.read(TRUE + 1, Instant::now()), (TRUE + 1, Standing::Unknown));
    }

    #[test]
    fn a_clock_that_may_be_right_is_put_forward_and_never_back() {
        let now = Instant::now();
        let hour = Duration::from_secs(3600);
        assert_eq!(told(TRUE + 3_600_000, now).read(TRUE, now), (TRUE + 3_600_000, Standing::Behind(hour)));
        assert_eq!(told(TRUE - 3_600_000, now).read(TRUE, now), (TRUE, Standing::Ahead(hour)));
        // Ten years ahead is no clock any more.
        let off = Duration::from_millis(10 * YEAR);
        assert_eq!(told(TRUE, now).read(TRUE + 10 * YEAR, now), (TRUE, Standing::FarAhead(off)));
    }

    #[test]
    fn a_server_that_is_behind_what_is_known_has_no_say() {
        let now = Instant::now();
        assert_eq!(told(RELEASED - 1, now).read(0, now), (RELEASED, Standing::Impossible));
        assert_eq!(told(0, now).read(TRUE, now), (TRUE, Standing::Unknown));
    }

    #[test]
    fn a_clock_that_agrees_is_followed() {
        let start = Instant::now();
        let mut clock = told(TRUE, start);
        // A slow crystal, and a network that corrects it, a second each hour for a year.
        for hour in 1..8760 {
            let now = start + Duration::from_secs(3599 * hour);
            assert_eq!(clock.look(TRUE + 3_600_000 * hour, now), Standing::Agrees);
        }
        let now = start + Duration::from_secs(3599 * 8759 + 1);
        assert!(matches!(clock.look(86_400_000, now), Standing::Behind(_)));
        assert!(clock.read(86_400_000, now).0 > TRUE + 3_600_000 * 8759);
    }

    #[test]
    fn texts() {
        let days = Duration::from_secs(400 * 86_400);
        assert_eq!(
            Standing::Behind(days).to_string(),
            "the clock is 400 days behind the atServer's; until it is set, the atServer's time counts"
        );
        assert!(Standing::FarAhead(days * 9).to_string().starts_with("the clock is 10 years ahead of the atServer's"));
    }

    proptest! {
        /// Whatever a server says, it is never earlier than what is known, nor than a clock that may be right; and a server
        /// cannot move certificates' time at all.
        #[test]
        fn nobody_sets_us_back(
            remembered in 0..TRUE + YEAR,
            system in 0..TRUE + 20 * YEAR,
            said in proptest::collection::vec((any::<u64>(), 0..10_000_000_u64), 0..4),
            after in 0..10_000_000_u64,
        ) {
            let start = Instant::now();
            let mut clock = Clock::new(RELEASED);
            clock.not_before(remembered);
            let silent = clock.clone();
            let mut at = start;
            for (time, pause) in said {
                at += Duration::from_millis(pause);
                clock.hear(time, at);
            }
            at += Duration::from_millis(after);
            let (now, standing) = clock.read(system, at);
            prop_assert!(now >= RELEASED.max(remembered));
            if clock.is_possible(system) {
                prop_assert!(now >= system);
            }
            prop_assert_eq!(clock.for_certificates(system), silent.for_certificates(system));
            prop_assert!(clock.for_certificates(system) >= RELEASED);
            // It goes on.
            let later = clock.read(system + 1000, at + Duration::from_millis(1000)).0;
            prop_assert!(later >= now || standing == Standing::Unknown || standing == Standing::Agrees, "{} {}", now, later);
        }
    }
}
