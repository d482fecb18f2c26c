//! How a device that stays connected keeps its way open: how often it gives a sign of life, how it comes back, when it
//! sleeps.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postern_dialogue::comeback::Pace;
use postern_dialogue::heartbeat::{Learnt, Plan};

use crate::limits::{
    AUTO_FIRST, AUTO_LEAST, METERED_FIRST, METERED_LEAST, NETWORKS, QUIET_LONGEST, SLEEPY_AWAKE, WIRED_SILENCE,
};

/// What a link costs its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Bytes are free: a sign of life every minute.
    Wired,
    /// Few bytes: from five minutes up to 25, as the network bears; as [`Profile::Metered`] where the way out is a modem.
    #[default]
    Auto,
    /// Hardly any: from fifteen minutes up to 25.
    Metered,
    /// Connected for minutes, then away for hours.
    Sleepy {
        /// Time between two connections.
        every: Duration,
    },
    /// Always this silence, and always a question.
    Every(Duration),
}

/// Which kind of way out a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// A modem: `wwan*`, `ppp*`, `usb*`.
    Mobile,
    /// `wl*`.
    Wireless,
    /// Anything else.
    Wired,
}

/// How a device behaves; clones share what was learnt.
#[derive(Clone)]
pub struct Habits {
    /// As it was asked for.
    pub profile: Profile,
    /// For measurements: heartbeats, and what else happens by the clock, come so many times as often.
    pub hastened: u32,
    notes: Arc<Notes>,
}

#[derive(Default)]
struct Notes {
    learnt: Mutex<BTreeMap<Network, Learnt>>,
    busy: AtomicBool,
}

/// The habits on one network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manners {
    pub(crate) plan: Plan,
    pub(crate) pace: Pace,
    pub(crate) sleep: Option<Sleep>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleep {
    pub(crate) every: Duration,
    pub(crate) awake: Duration,
}

impl Network {
    /// That of the default route with the lowest metric; `None`: there is none, or this system does not say.
    #[must_use]
    pub fn of_default_route() -> Option<Self> {
        default_interface(&std::fs::read_to_string("/proc/net/route").ok()?).map(|name| Self::of(&name))
    }

    fn of(interface: &str) -> Self {
        let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| interface.starts_with(prefix));
        if is(&["wwan", "wwp", "ppp", "usb", "rmnet", "cdc"]) {
            Self::Mobile
        } else if is(&["wl"]) {
            Self::Wireless
        } else {
            Self::Wired
        }
    }
}

/// The interface of the default route in the kernel's table.
fn default_interface(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (name, to, mask) = (fields.first()?, fields.get(1)?, fields.get(7)?);
        let metric: u32 = fields.get(6)?.parse().ok()?;
        (*to == "00000000" && *mask == "00000000").then(|| (metric, (*name).to_owned()))
    });
    routes.min().map(|(_, name)| name)
}

impl Habits {
    /// Nothing is learnt yet.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self { profile, hastened: 1, notes: Arc::default() }
    }

    /// The profile that counts on this network.
    #[must_use]
    pub fn profile_on(&self, network: Option<Network>) -> Profile {
        match (self.profile, network) {
            (Profile::Auto, Some(Network::Mobile)) => Profile::Metered,
            (profile, _) => profile,
        }
    }

    pub(crate) fn on(&self, network: Option<Network>) -> Manners {
        let profile = self.profile_on(network);
        let plan = match profile {
            Profile::Wired => Plan::adaptive(WIRED_SILENCE, WIRED_SILENCE, WIRED_SILENCE),
            Profile::Auto => Plan::adaptive(AUTO_FIRST, QUIET_LONGEST, AUTO_LEAST),
            Profile::Metered | Profile::Sleepy { .. } => Plan::adaptive(METERED_FIRST, QUIET_LONGEST, METERED_LEAST),
            Profile::Every(silence) => Plan::fixed(silence),
        };
        let sparing = matches!(profile, Profile::Metered | Profile::Sleepy { .. });
        let hastened = self.hastened.max(1);
        let sleep = match profile {
            Profile::Sleepy { every } => Some(Sleep { every: every / hastened, awake: SLEEPY_AWAKE / hastened }),
            _ => None,
        };
        let pace = if sparing { Pace::SPARING } else { Pace::PATIENT };
        // In a time that runs faster an hour has as many connections.
        let pace = if hastened > 1 { Pace { per_hour: None, ..pace } } else { pace };
        Manners { plan: plan.hastened(hastened), pace, sleep }
    }

    /// Something goes on for which a sleepy device stays connected.
    pub fn set_busy(&self, busy: bool) {
        self.notes.busy.store(busy, Ordering::Relaxed);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.notes.busy.load(Ordering::Relaxed)
    }

    pub(crate) fn learnt(&self, network: Option<Network>) -> Option<Learnt> {
        self.notes().get(&network?).copied()
    }

    pub(crate) fn learn(&self, network: Option<Network>, learnt: Learnt) {
        if let Some(network) = network {
            self.notes().insert(network, learnt);
        }
    }

    /// What was learnt of networks, a line each, to be kept over a restart.
    #[must_use]
    pub fn to_lines(&self) -> Vec<String> {
        let seconds = |time: Duration| time.as_secs().to_string();
        let line = |(network, learnt): (&Network, &Learnt)| {
            let bad = learnt.bad.map_or_else(|| "-".to_owned(), seconds);
            format!("{network} {} {} {bad}", seconds(learnt.interval), seconds(learnt.good))
        };
        self.notes().iter().map(line).collect()
    }

    /// Takes such lines back; what is not one of them is passed over.
    pub fn take_lines<'a>(&self, lines: impl IntoIterator<Item = &'a str>) {
        for line in lines.into_iter().take(NETWORKS) {
            if let Some((network, learnt)) = parse_line(line) {
                self.notes().insert(network, learnt);
            }
        }
    }

    /// The map is changed in single steps, so a poisoned lock is still good.
    fn notes(&self) -> MutexGuard<'_, BTreeMap<Network, Learnt>> {
        self.notes.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse_line(line: &str) -> Option<(Network, Learnt)> {
    let mut words = line.split(' ');
    let network = words.next()?.parse().ok()?;
    let mut seconds = || words.next().filter(|word| *word != "-")?.parse().ok().map(Duration::from_secs);
    let (interval, good) = (seconds()?, seconds()?);
    Some((network, Learnt { interval, good, bad: seconds() }))
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mobile => "mobile",
            Self::Wireless => "wireless",
            Self::Wired => "wired",
        })
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "mobile" => Ok(Self::Mobile),
            "wireless" => Ok(Self::Wireless),
            "wired" => Ok(Self::Wired),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wired => f.write_str("wired"),
            Self::Auto => f.write_str("auto"),
            Self::Metered => f.write_str("metered"),
            Self::Sleepy { .. } => f.write_str("sleepy"),
            Self::Every(silence) => write!(f, "every {silence:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0100A8C0\t0003\t0\t0\t700\t00000000\t0\t0\t0\n\
        wwan0\t00000000\t01000A0A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        eth0\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn the_default_route_of_the_lowest_metric_counts() {
        assert_eq!(default_interface(TABLE).as_deref(), Some("wwan0"));
        assert_eq!(default_interface("Iface\n"), None);
        for (name, network) in [("ppp0", Network::Mobile), ("usb0", Network::Mobile), ("wlan0", Network::Wireless)] {
            assert_eq!(Network::of(name), network);
        }
        assert_eq!([Network::of("eth0"), Network::of("br-lan")], [Network::Wired; 2]);
    }

    #[test]
    fn auto_is_metered_on_a_modem_and_nothing_else_changes() {
        let on = |profile, network| Habits::new(profile).profile_on(network);
        assert_eq!(on(Profile::Auto, Some(Network::Mobile)), Profile::Metered);
        assert_eq!(on(Profile::Auto, Some(Network::Wired)), Profile::Auto);
        assert_eq!(on(Profile::Auto, None), Profile::Auto);
        assert_eq!(on(Profile::Wired, Some(Network::Mobile)), Profile::Wired);
    }

    #[test]
    fn what_was_learnt_survives_a_restart() {
        let habits = Habits::new(Profile::Auto);
        let learnt = Learnt { interval: Duration::from_secs(375), good: Duration::from_secs(300), bad: None };
        let bad = Learnt { bad: Some(Duration::from_secs(468)), ..learnt };
        habits.learn(Some(Network::Mobile), bad);
        habits.learn(Some(Network::Wired), learnt);
        habits.learn(None, learnt);
        let lines = habits.to_lines();
        assert_eq!(lines, ["mobile 375 300 468", "wired 375 300 -"]);
        let other = Habits::new(Profile::Auto);
        other.take_lines(lines.iter().map(String::as_str).chain(["", "mars 1 2 3", "wired x", "wireless 1"]));
        assert_eq!(other.to_lines(), lines);
    }
}
