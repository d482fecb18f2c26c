//! The device's own list of who may come in, some of them until a time. Read anew when its file changes or SIGHUP comes;
//! sessions of those who are no longer on it end.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use jiff::Timestamp;
use postern_client::trust::now_ms;
use postern_net::signals::Hangups;
use postern_observe::journal::{Entry, Event};
use postern_proto::AtSign;
use postern_session::Guest;

use crate::config_file;
use crate::daemon::Daemon;
use crate::limits::LIST_LOOKS;

/// Somebody who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manager {
    pub(crate) at_sign: AtSign,
    /// The end of it.
    pub(crate) until: Option<Timestamp>,
}

/// The list, and the file that it is from.
pub(crate) struct Managers {
    list: Vec<Manager>,
    /// `None`: it was typed.
    file: Option<Watched>,
    looked: Instant,
}

struct Watched {
    path: PathBuf,
    mark: Option<Mark>,
}

/// What changes when a file is written or replaced.
type Mark = (SystemTime, u64, u64);

impl Manager {
    /// Reads `@bob` or `@bob until 2026-12-01T18:00Z`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let named = |name: &str| AtSign::parse(name).map_err(|error| format!("{text:?}: {error}"));
        match words[..] {
            [name] => Ok(Self { at_sign: named(name)?, until: None }),
            [name, "until", time] => {
                let until = Timestamp::from_str(time);
                let until = until.map_err(|_| format!("{text:?}: write the time as 2026-12-01T18:00Z"))?;
                Ok(Self { at_sign: named(name)?, until: Some(until) })
            }
            _ => Err(format!("{text:?}: write an atSign, or an atSign and a time: @bob until 2026-12-01T18:00Z")),
        }
    }

    fn is_in(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl Managers {
    /// `file`: where the list was read; `None`: it was typed, and stays as it is.
    pub(crate) fn new(list: Vec<Manager>, file: Option<PathBuf>) -> Self {
        let file = file.map(|path| Watched { mark: mark(&path), path });
        Self { list, file, looked: Instant::now() }
    }

    fn at(&self, now: Timestamp) -> Vec<AtSign> {
        self.list.iter().filter(|manager| manager.is_in(now)).map(|manager| manager.at_sign.clone()).collect()
    }

    /// Why somebody who was a manager is none now; `None`: it is one.
    fn why_not(&self, who: &AtSign, now: Timestamp) -> Option<String> {
        let mut theirs = self.list.iter().filter(|manager| manager.at_sign == *who).peekable();
        if theirs.peek().is_none() {
            return Some(format!("{who} is no manager of this device any more"));
        }
        let last = theirs.clone().filter_map(|manager| manager.until).max();
        let over = theirs.all(|manager| !manager.is_in(now));
        over.then(|| last.map_or_else(String::new, |until| format!("the access of {who} ended at {until}")))
    }

    /// Reads the file if it is another one than before; `None`: the list stays as it is.
    fn read(&mut self, force: bool) -> Option<Vec<Manager>> {
        let file = self.file.as_mut()?;
        let found = mark(&file.path);
        if found == file.mark && !force {
            return None;
        }
        file.mark = found;
        let path = file.path.display();
        let list = config_file::managers(&file.path).and_then(|names| {
            let named = names.iter().filter(|name| !name.trim().is_empty());
            named.map(|name| Manager::parse(name)).collect::<Result<Vec<_>, _>>()
        });
        match list {
            Ok(list) => (list != self.list).then_some(list),
            Err(why) => {
                tracing::warn!(%path, why, "the list of managers stays as it was");
                None
            }
        }
    }
}

fn mark(path: &std::path::Path) -> Option<Mark> {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len(), found.ino()))
}

fn now() -> Timestamp {
    let now = i64::try_from(now_ms()).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    // A clock beyond the year 9999: nobody's access lasts so long.
    now.unwrap_or(Timestamp::MAX)
}

impl Daemon {
    /// Whether somebody may come in by the device's own list, as it is now.
    pub(crate) fn manager(self: &Arc<Self>, who: &AtSign) -> Option<Guest> {
        self.look_at_managers(false);
        Guest::manager(&self.managers_now(), who)
    }

    /// Who may come in by the list now.
    pub(crate) fn managers_now(&self) -> Vec<AtSign> {
        self.managers().at(now())
    }

    /// Keeps the list as it should be while sessions run, and whenever SIGHUP comes.
    pub(crate) async fn watch_managers(self: Arc<Self>, mut hangups: Hangups) {
        loop {
            let force = tokio::select! {
                biased;
                () = self.tasks.token().cancelled() => return,
                () = hangups.next() => {
                    self.twins.look();
                    true
                }
                () = async {
                    self.live.some().await;
                    tokio::time::sleep(LIST_LOOKS).await;
                } => false,
            };
            self.look_at_managers(force);
            self.end_what_is_over();
        }
    }

    /// A file that was just looked at is not looked at again: requests must not make the disk work.
    fn look_at_managers(self: &Arc<Self>, force: bool) {
        let (gone, all) = {
            let mut managers = self.managers();
            if !force && managers.looked.elapsed() < LIST_LOOKS / 2 {
                return;
            }
            managers.looked = Instant::now();
            let Some(list) = managers.read(force) else { return };
            let before = std::mem::replace(&mut managers.list, list);
            let gone = before.into_iter().map(|manager| manager.at_sign);
            (
                gone.filter(|who| !managers.list.iter().any(|m| m.at_sign == *who)).collect::<Vec<_>>(),
                managers.list.len(),
            )
        };
        tracing::info!(managers = all, gone = gone.len(), "the list of managers was read anew");
        self.journal.record(Entry {
            why: Some(format!("the list of managers was read anew: {all} now, {} gone", gone.len())),
            ..Entry::of(Event::Narrowed)
        });
        self.end_what_is_over();
        let daemon = Arc::clone(self);
        self.tasks.spawn(async move {
            for manager in &gone {
                daemon.take_back(manager).await;
            }
            daemon.publish().await;
        });
    }

    /// Ends the sessions of managers who are none any more.
    fn end_what_is_over(&self) {
        for who in self.live.clients(Guest::is_manager) {
            let why = self.managers().why_not(&who, now());
            if let Some(why) = why {
                self.live.end(&why, |client, session| *client == who && session.guest.is_manager());
            }
        }
    }

    /// The list is changed in single steps, so a poisoned lock is still good.
    fn managers(&self) -> MutexGuard<'_, Managers> {
        self.managers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn access_may_have_an_end() {
        let list = ["@alice", "@Bob until 2026-12-01T18:00Z", "@carol until 2026-12-01T18:00:30+01:00"];
        let list = list.map(|text| Manager::parse(text).unwrap());
        let managers = Managers::new(list.to_vec(), None);
        let names = |now| managers.at(at(now)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("2026-12-01T16:00:00Z"), ["@alice", "@bob", "@carol"]);
        assert_eq!(names("2026-12-01T17:59:59Z"), ["@alice", "@bob"]);
        assert_eq!(names("2026-12-01T18:00:00Z"), ["@alice"]);
        let bob = AtSign::parse("bob").unwrap();
        assert_eq!(managers.why_not(&bob, at("2026-12-01T17:59:59Z")), None);
        let over = managers.why_not(&bob, at("2026-12-01T18:00:00Z"));
        assert_eq!(over.as_deref(), Some("the access of @bob ended at 2026-12-01T18:00:00Z"));
        let dan = managers.why_not(&AtSign::parse("dan").unwrap(), at("2026-12-01T18:00:00Z"));
        assert_eq!(dan.as_deref(), Some("@dan is no manager of this device any more"));
        for bad in ["@a b", "@a until", "@a until tomorrow", "@a until 2026-12-01", "@a until 2026-12-01T18:00", ""] {
            assert!(Manager::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_read_when_it_changed_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sshnpd.yaml");
        let write = |list: &str| std::fs::write(&path, format!("access:\n  managers: [{list}]\n")).unwrap();
        write("\"@a\", \"@b\"");
        let list = ["@a", "@b"].map(|text| Manager::parse(text).unwrap()).to_vec();
        let mut managers = Managers::new(list, Some(path.clone()));
        assert_eq!(managers.read(false), None, "as it was");
        write("\"@a until 2026-12-01T18:00Z\"");
        assert_eq!(managers.read(false), Some(vec![Manager::parse("@a until 2026-12-01T18:00Z").unwrap()]));
        write("\"@a b\"");
        assert_eq!(managers.read(false), None, "nobody of that name");
        std::fs::write(&path, "access: [").unwrap();
        assert_eq!(managers.read(true), None, "no YAML");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(managers.read(true), None, "no file");
        write("");
        assert_eq!(managers.read(false), Some(Vec::new()), "nobody");
    }
}
