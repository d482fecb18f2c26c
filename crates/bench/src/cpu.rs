//! CPU time by role, children and exited children included.
//!
//! Three keepers, the best that the machine lets us use:
//! 1. a `cpuacct` control group (v1): nanoseconds, nothing escapes it;
//! 2. a cgroup v2 with `cpu.stat`: microseconds, nothing escapes it;
//! 3. `/proc/PID/stat` of the started processes and their descendants: clock
//!    ticks, and a grandchild that exits unreaped by a listed parent is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::host::left_behind;
use crate::limits::{CPU_SHARES, GROUP_EMPTY_DEADLINE, POLL_PAUSE};

/// Clock ticks per second that `/proc/PID/stat` counts in (`USER_HZ`; 100 on
/// every Linux this bench runs on).
const USER_HZ: u64 = 100;

/// Whose processes are charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    /// What runs where the user sits.
    Client,
    /// What stands in the middle.
    Relay,
    /// What runs on the machine without an open port, its sshd included.
    Device,
}

impl Role {
    /// Name used in tables and group names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Relay => "relay",
            Self::Device => "device",
        }
    }
}

/// Where accounts are opened; one for the run.
#[derive(Debug)]
pub(crate) struct Accounts {
    kind: Kind,
    /// The group all of this run's processes share the processor from, when
    /// there is one: see [`Accounts::open`].
    priority: Option<Priority>,
    serial: Mutex<u32>,
}

#[derive(Debug)]
enum Kind {
    V1(PathBuf),
    V2(PathBuf),
    Proc,
}

impl Accounts {
    /// Finds the best keeper and makes this run's parent group. With `priority`
    /// the whole run also moves into a `cpu` group that is served before other
    /// work on the machine, so that a neighbour's compile does not become a
    /// figure of ours.
    pub(crate) fn open(priority: bool) -> Self {
        let prefix = "postern-bench-";
        let name = format!("{prefix}{}", std::process::id());
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        for root in [v1_root(&mounts, "cpuacct"), v1_root(&mounts, "cpu"), v2_root(&mounts)].into_iter().flatten() {
            for old in left_behind(&root, prefix) {
                remove_groups(&root.join(old));
            }
        }
        let kind = v1_root(&mounts, "cpuacct")
            .map(|root| root.join(&name))
            .filter(|dir| fs::create_dir(dir).is_ok())
            .map(Kind::V1)
            .or_else(|| {
                v2_root(&mounts).map(|root| root.join(&name)).filter(|dir| fs::create_dir(dir).is_ok()).map(Kind::V2)
            })
            .unwrap_or(Kind::Proc);
        let priority = priority.then(|| Priority::take(&v1_root(&mounts, "cpu")?, &name)).flatten();
        Self { kind, priority, serial: Mutex::new(0) }
    }

    /// How CPU time is kept, for the report.
    pub(crate) fn describe(&self) -> String {
        let kept = match self.kind {
            Kind::V1(_) => "cpuacct control group",
            Kind::V2(_) => "cgroup v2 cpu.stat",
            Kind::Proc => "/proc/PID/stat over descendants (10 ms ticks)",
        };
        let served = if self.priority.is_some() { ", served before other work" } else { "" };
        format!("{kept}{served}")
    }

    /// Opens an account for one role of one tunnel.
    pub(crate) fn account(&self, role: Role) -> Account {
        let serial = {
            let mut serial = self.serial.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *serial += 1;
            *serial
        };
        let group = |dir: &Path| {
            let dir = dir.join(format!("{}-{serial}", role.name()));
            fs::create_dir(&dir).is_ok().then_some(dir)
        };
        let keeper = match &self.kind {
            Kind::V1(dir) => group(dir).map(|dir| Keeper::Group { dir, file: "cpuacct.usage" }),
            Kind::V2(dir) => group(dir).map(|dir| Keeper::Group { dir, file: "cpu.stat" }),
            Kind::Proc => None,
        };
        Account { role, keeper: keeper.unwrap_or_else(|| Keeper::Tree(Mutex::default())) }
    }
}

impl Drop for Accounts {
    fn drop(&mut self) {
        if let Kind::V1(dir) | Kind::V2(dir) = &self.kind {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// One role's account. Processes enter it when they start.
/// Dropping it ends whatever is left inside: all of it was started by this run.
#[derive(Debug)]
pub(crate) struct Account {
    role: Role,
    keeper: Keeper,
}

#[derive(Debug)]
enum Keeper {
    Group { dir: PathBuf, file: &'static str },
    Tree(Mutex<BTreeSet<u32>>),
}

impl Account {
    /// Whose account this is.
    pub(crate) fn role(&self) -> Role {
        self.role
    }

    /// The `cgroup.procs` file a process writes itself into before it becomes
    /// the program under test; `None` when kept by `/proc`.
    pub(crate) fn entrance(&self) -> Option<PathBuf> {
        match &self.keeper {
            Keeper::Group { dir, .. } => Some(dir.join("cgroup.procs")),
            Keeper::Tree(_) => None,
        }
    }

    /// Notes a process that was started for this account.
    pub(crate) fn started(&self, pid: u32) {
        if let Keeper::Tree(roots) = &self.keeper {
            roots.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(pid);
        }
    }

    /// CPU time used so far by everything in the account.
    pub(crate) fn used(&self) -> Duration {
        match &self.keeper {
            Keeper::Group { dir, file } => {
                fs::read_to_string(dir.join(file)).ok().and_then(|text| parse_usage(&text)).unwrap_or_default()
            }
            Keeper::Tree(roots) => {
                let roots = roots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                tree_usage(&roots)
            }
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Keeper::Group { dir, .. } = &self.keeper else {
            return;
        };
        let deadline = Instant::now() + GROUP_EMPTY_DEADLINE;
        loop {
            let was_empty = !kill_members(dir);
            if was_empty && fs::remove_dir(dir).is_ok() || Instant::now() > deadline {
                return;
            }
            std::thread::sleep(POLL_PAUSE);
        }
    }
}

/// The run's own place in the `cpu` controller; leaves it on drop.
#[derive(Debug)]
struct Priority {
    root: PathBuf,
    dir: PathBuf,
}

impl Priority {
    fn take(root: &Path, name: &str) -> Option<Self> {
        let dir = root.join(name);
        fs::create_dir(&dir).ok()?;
        let priority = Self { root: root.to_owned(), dir };
        fs::write(priority.dir.join("cpu.shares"), CPU_SHARES).ok()?;
        fs::write(priority.dir.join("cgroup.procs"), std::process::id().to_string()).ok()?;
        Some(priority)
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        let _ = fs::write(self.root.join("cgroup.procs"), std::process::id().to_string());
        let _ = fs::remove_dir(&self.dir);
    }
}

/// Ends what a dead run left in its groups, a connection over a line that is
/// gone for instance, and removes them. Members of a group with the bench's
/// name were started by the bench: nothing else enters it.
fn remove_groups(dir: &Path) {
    let children = || fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let deadline = Instant::now() + GROUP_EMPTY_DEADLINE;
    while fs::remove_dir(dir).is_err() && dir.exists() && Instant::now() < deadline {
        for group in children().filter(|path| path.is_dir()) {
            kill_members(&group);
            let _ = fs::remove_dir(group);
        }
        std::thread::sleep(POLL_PAUSE);
    }
}

/// Kills everything in a group; tells whether there was anything.
fn kill_members(group: &Path) -> bool {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let members: Vec<i32> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    for pid in members.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    !members.is_empty()
}

/// Mount point of a v1 controller, joined with the group this process is in.
fn v1_root(mounts: &str, controller: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, at, kind, options) = (words.next()?, words.next()?, words.next()?, words.next()?);
        (kind == "cgroup" && options.split(',').any(|option| option == controller)).then_some(at)
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    })?;
    Some(Path::new(mount).join(path.trim_start_matches('/')))
}

fn v2_root(mounts: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup2").then_some(at)
    })?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(Path::new(mount).join(path.trim_start_matches('/')))
}

/// Reads `cpuacct.usage` (a number of nanoseconds) or `cpu.stat`
/// (`usage_usec N` among other lines).
fn parse_usage(text: &str) -> Option<Duration> {
    if let Ok(nanos) = text.trim().parse() {
        return Some(Duration::from_nanos(nanos));
    }
    let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    micros.trim().parse().ok().map(Duration::from_micros)
}

struct Stat {
    parent: u32,
    ticks: u64,
}

/// Reads what we need of `/proc/PID/stat`: parent, and user and system time
/// of the process and of its reaped children.
fn parse_stat(text: &str) -> Option<Stat> {
    // The command name may hold spaces and parentheses; fields count from its last ')'.
    let rest = text.get(text.rfind(')')? + 2..)?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent, ticks })
}

fn tree_usage(roots: &BTreeSet<u32>) -> Duration {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some(stat) = fs::read_to_string(entry.path().join("stat")).ok().and_then(|text| parse_stat(&text)) {
            all.insert(pid, stat);
        }
    }
    let within = |mut pid: u32| loop {
        if roots.contains(&pid) {
            return true;
        }
        match all.get(&pid) {
            Some(stat) if stat.parent > 1 => pid = stat.parent,
            _ => return false,
        }
    };
    let ticks: u64 = all.iter().filter(|(pid, _)| within(**pid)).map(|(_, stat)| stat.ticks).sum();
    Duration::from_millis(ticks * 1000 / USER_HZ)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_group_formats_are_read() {
        assert_eq!(parse_usage("1500\n"), Some(Duration::from_nanos(1500)));
        assert_eq!(parse_usage("usage_usec 12\nuser_usec 7\n"), Some(Duration::from_micros(12)));
        assert_eq!(parse_usage("nothing"), None);
    }

    #[test]
    fn stat_survives_a_strange_command_name() {
        let stat = parse_stat("7 (a) (b c) S 3 7 7 0 -1 4 0 0 0 0 10 20 30 40 20 0 1").unwrap();
        assert_eq!((stat.parent, stat.ticks), (3, 100));
    }
}
