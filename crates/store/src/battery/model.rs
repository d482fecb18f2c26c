//! Random histories, compared with a model too simple to be wrong.

use std::collections::BTreeMap;

use postern_proto::{AtKey, AtSign, MessageType, Metadata, Notification, NotificationId, Operation, Record, Routing};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::samples::{MOMENTS, View, at, id, note};
use super::{Harness, commit, wait};
use crate::{Account, Assert, Batch, Committed, Delivery, Kept, LogAs, LogEntry, Logged, Op, StoreError, Usage};

const OWNERS: [&str; 3] = ["alice", "bob", "carol"];
const IDS: [&str; 3] = ["n1", "n2", "n3"];
/// Histories per run. One of 25 steps costs SQLite about 20 ms.
const HISTORIES: u32 = 64;

/// Any history of batches, sweeps and restarts shows what the model shows, after each step.
pub fn agrees_with_the_model(open: &dyn Fn() -> Box<dyn Harness>) {
    let config = Config { cases: HISTORIES, failure_persistence: None, ..Config::default() };
    let histories = prop::collection::vec(event(), 1..25);
    let (owners, ids) = (OWNERS.map(at), IDS.map(id));
    let result = TestRunner::new(config).run(&histories, |history| {
        let mut home = open();
        let mut model = Model::default();
        for event in history {
            match event {
                Event::Commit(batch) => {
                    let did = commit(&*home.store(), batch.clone());
                    prop_assert_eq!(did, model.commit(batch));
                }
                Event::Sweep(now) => {
                    wait(home.store().sweep(now)).unwrap();
                    model.sweep(now);
                }
                Event::Reopen => {
                    home.reopen();
                }
            }
            prop_assert_eq!(View::of(&*home.store(), &owners, &ids), model.view(&owners, &ids));
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[derive(Clone, Debug)]
enum Event {
    Commit(Batch),
    Sweep(i64),
    Reopen,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        // Households first, or nothing else gets anywhere.
        3 => owner().prop_map(|o| Event::Commit(Batch::new(0).add_account(household(o)))),
        12 => batch().prop_map(Event::Commit),
        2 => (0..30i64).prop_map(Event::Sweep),
        1 => Just(Event::Reopen),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    let asserts = prop::collection::vec(assert(), 0..2);
    (0..20i64, asserts, prop::collection::vec(op(), 0..6)).prop_map(|(at, asserts, ops)| Batch { at, asserts, ops })
}

fn owner() -> impl Strategy<Value = AtSign> {
    prop::sample::select(OWNERS.to_vec()).prop_map(at)
}

fn household(at_sign: AtSign) -> Account {
    Account { at_sign, port: None, created_at: 3 }
}

fn owned_key() -> impl Strategy<Value = (AtSign, AtKey)> {
    (owner(), prop::sample::select(vec!["a", "b", "public:a", "@bob:a", "cached:public:a"])).prop_map(
        |(owner, name)| {
            let key = AtKey::parse(name).unwrap().or_owned_by(&owner);
            (owner, key)
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let time = || prop::option::of(0..30i64);
    (any::<String>(), metadata(), 0..3u64, time(), time()).prop_map(|(value, metadata, version, born, end)| Record {
        available_at: born,
        expires_at: end,
        version,
        ..Record::new(value, metadata, 4)
    })
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let ttr = prop::option::of(-1..i64::MAX);
    (ttr, any::<Option<bool>>(), any::<Option<String>>()).prop_map(|(ttr, is_encrypted, iv_nonce)| Metadata {
        ttr,
        is_encrypted,
        iv_nonce,
        ..Metadata::default()
    })
}

fn notification() -> impl Strategy<Value = Notification> {
    let people = (prop::sample::select(OWNERS.to_vec()), prop::sample::select(OWNERS.to_vec()));
    let text = (any::<String>(), any::<Option<String>>());
    let kinds = (
        prop::sample::select(vec![Operation::Update, Operation::Delete]),
        prop::sample::select(vec![MessageType::Key, MessageType::Text]),
        routing(),
    );
    let times = (0..20i64, 0..30i64);
    (people, notification_id(), text, times, any::<(bool, bool)>(), metadata(), kinds).prop_map(
        |((from, to), id, (key, value), (at, expires_at), (is_encrypted, is_self), metadata, kinds)| Notification {
            operation: kinds.0,
            message_type: kinds.1,
            routing: kinds.2,
            id,
            key,
            value,
            at,
            expires_at,
            is_encrypted,
            is_self,
            metadata,
            ..note("any", from, to)
        },
    )
}

fn routing() -> impl Strategy<Value = Routing> {
    let latest = prop::option::of(1..3u32);
    (notifier(), latest).prop_map(|(notifier, latest)| Routing { notifier, latest, ..Routing::default() })
}

fn notifier() -> impl Strategy<Value = Option<String>> {
    prop::option::of(Just("app".to_owned()))
}

fn notification_id() -> impl Strategy<Value = NotificationId> {
    prop::sample::select(IDS.to_vec()).prop_map(id)
}

fn delivery() -> impl Strategy<Value = Delivery> {
    prop::sample::select(vec![Delivery::Queued, Delivery::Delivered, Delivery::Errored, Delivery::Expired])
}

fn assert() -> impl Strategy<Value = Assert> {
    prop_oneof![
        owned_key().prop_map(|(o, k)| Assert::KeyAbsent(o, k)),
        owned_key().prop_map(|(o, k)| Assert::KeyPresent(o, k)),
        (owned_key(), 0..3u64).prop_map(|((o, k), v)| Assert::KeyVersion(o, k, v)),
        owner().prop_map(Assert::AccountAbsent),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let log_as = prop::sample::select(vec![LogAs::Nothing, LogAs::Put, LogAs::Meta]);
    prop_oneof![
        8 => (owned_key(), record(), log_as).prop_map(|((owner, key), record, log)| Op::Put { owner, key, record, log }),
        4 => (owned_key(), any::<bool>()).prop_map(|((owner, key), log)| Op::Remove { owner, key, log }),
        1 => owner().prop_map(|o| Op::AddAccount(household(o))),
        1 => (owner(), any::<Option<u16>>()).prop_map(|(at_sign, port)| Op::SetPort { at_sign, port }),
        1 => owner().prop_map(Op::RemoveAccount),
        6 => notification().prop_map(Op::Receive),
        6 => notification().prop_map(Op::Send),
        3 => (owner(), notification_id(), delivery())
            .prop_map(|(owner, id, delivery)| Op::Deliver { owner, id, delivery }),
        1 => (owner(), notification_id()).prop_map(|(owner, id)| Op::RemoveNotification { owner, id }),
        2 => (owner(), owner(), notifier(), 0..3u32)
            .prop_map(|(owner, to, notifier, keep)| Op::Supersede { owner, to, notifier, keep }),
    ]
}

/// Whole histories in lists; every question is answered by looking through all of it.
#[derive(Clone, Default)]
struct Model {
    accounts: BTreeMap<AtSign, Account>,
    records: BTreeMap<(AtSign, String), Record>,
    log: Vec<(AtSign, LogEntry)>,
    received: Vec<Notification>,
    sent: Vec<(Notification, Delivery)>,
}

impl Model {
    fn commit(&mut self, batch: Batch) -> Result<Committed, StoreError> {
        let stored = |o: &AtSign, k: &AtKey| self.records.get(&(o.clone(), k.to_string()));
        for assert in &batch.asserts {
            let holds = match assert {
                Assert::KeyAbsent(o, k) => stored(o, k).is_none(),
                Assert::KeyPresent(o, k) => stored(o, k).is_some(),
                Assert::KeyVersion(o, k, v) => stored(o, k).map(|r| r.version) == Some(*v),
                Assert::AccountAbsent(o) => !self.accounts.contains_key(o),
            };
            if !holds {
                return Err(StoreError::Conflict);
            }
        }
        let mut after = self.clone();
        let mut committed = Committed::default();
        for op in batch.ops {
            if op.household().is_some_and(|h| !after.accounts.contains_key(h)) {
                return Err(StoreError::Conflict);
            }
            let (commit, fresh) = after.step(op, batch.at)?;
            committed.commits.push(commit);
            committed.fresh.push(fresh);
        }
        *self = after;
        Ok(committed)
    }

    fn step(&mut self, op: Op, at: i64) -> Result<(Option<i64>, bool), StoreError> {
        let mut commit = None;
        let mut fresh = true;
        match op {
            Op::Put { owner, key, record, log } => {
                commit = log.kind().map(|kind| self.note(&owner, &key, kind, at));
                self.records.insert((owner, key.to_string()), record);
            }
            Op::Remove { owner, key, log } => {
                commit = log.then(|| self.note(&owner, &key, Logged::Remove, at));
                self.records.remove(&(owner, key.to_string()));
            }
            Op::AddAccount(account) => {
                if self.accounts.insert(account.at_sign.clone(), account).is_some() {
                    return Err(StoreError::Conflict);
                }
            }
            Op::SetPort { at_sign, port } => self.accounts.get_mut(&at_sign).unwrap().port = port,
            Op::RemoveAccount(gone) => {
                self.accounts.remove(&gone);
                self.records.retain(|(owner, _), _| *owner != gone);
                self.log.retain(|(owner, _)| *owner != gone);
                self.received.retain(|n| n.to != gone);
                self.sent.retain(|(n, _)| n.from != gone);
            }
            Op::Receive(n) => {
                fresh = !self.received.iter().any(|old| (&old.to, &old.from, &old.id) == (&n.to, &n.from, &n.id));
                self.received.extend(fresh.then_some(n));
            }
            Op::Send(n) => {
                fresh = !self.sent.iter().any(|(old, _)| (&old.from, &old.id) == (&n.from, &n.id));
                self.sent.extend(fresh.then_some((n, Delivery::Queued)));
            }
            Op::Deliver { owner, id, delivery } => {
                let found = self.sent.iter_mut().find(|(n, _)| (&n.from, &n.id) == (&owner, &id));
                if let Some((_, now)) = found {
                    *now = delivery;
                }
            }
            Op::Supersede { owner, to, notifier, keep } => {
                let alike = |(n, d): &&mut (Notification, Delivery)| {
                    let routing = (&n.routing.notifier, n.routing.latest.is_some());
                    (&n.from, &n.to, *d) == (&owner, &to, Delivery::Queued) && routing == (&notifier, true)
                };
                let mut waiting: Vec<_> = self.sent.iter_mut().filter(alike).collect();
                waiting.sort_by_key(|(n, _)| n.at); // stable: then by arrival
                let old = waiting.len().saturating_sub(usize::try_from(keep).unwrap());
                waiting.into_iter().take(old).for_each(|(_, delivery)| *delivery = Delivery::Expired);
            }
            Op::RemoveNotification { owner, id } => {
                self.received.retain(|n| (&n.to, &n.id) != (&owner, &id));
                self.sent.retain(|(n, _)| (&n.from, &n.id) != (&owner, &id));
            }
        }
        Ok((commit, fresh))
    }

    fn note(&mut self, owner: &AtSign, key: &AtKey, kind: Logged, at: i64) -> i64 {
        let commit = self.last_commit(owner) + 1;
        self.log.push((owner.clone(), LogEntry { commit, key: key.to_string(), kind, at }));
        commit
    }

    fn last_commit(&self, owner: &AtSign) -> i64 {
        self.history(owner).map(|e| e.commit).max().unwrap_or(-1)
    }

    fn history<'a>(&'a self, owner: &AtSign) -> impl Iterator<Item = &'a LogEntry> {
        let owner = owner.clone();
        self.log.iter().filter(move |(o, _)| *o == owner).map(|(_, e)| e)
    }

    fn sweep(&mut self, now: i64) {
        self.records.retain(|_, r| r.expires_at.is_none_or(|end| end > now));
        self.received.retain(|n| n.expires_at > now);
        self.sent.retain(|(n, _)| n.expires_at > now);
    }

    fn view(&self, owners: &[AtSign], ids: &[NotificationId]) -> View {
        let records = |owner: &AtSign| {
            let own = self.records.iter().filter(|((o, _), _)| o == owner);
            own.map(|((_, key), record)| (key.clone(), record.clone())).collect()
        };
        let log = |owner: &AtSign| {
            let latest = |e: &&LogEntry| !self.history(owner).any(|l| l.key == e.key && l.commit > e.commit);
            self.history(owner).filter(latest).cloned().collect()
        };
        let received = |owner: &AtSign| {
            MOMENTS.map(|(after, now)| {
                let seen = |n: &&Notification| n.to == *owner && n.at > after && n.expires_at > now;
                by_time(self.received.iter().filter(seen).cloned().collect())
            })
        };
        let queued = MOMENTS.map(|(_, now)| {
            let waits = |(n, d): &&(Notification, Delivery)| *d == Delivery::Queued && n.expires_at > now;
            by_time(self.sent.iter().filter(waits).map(|(n, _)| n.clone()).collect())
        });
        let status = |owner: &AtSign, id: &NotificationId| {
            self.sent.iter().find(|(n, _)| (&n.from, &n.id) == (owner, id)).map(|(_, d)| *d)
        };
        View {
            accounts: self.accounts.values().cloned().collect(),
            records: owners.iter().map(|o| (o.clone(), records(o))).collect(),
            last_commit: owners.iter().map(|o| (o.clone(), self.last_commit(o))).collect(),
            log: owners.iter().map(|o| (o.clone(), log(o))).collect(),
            received: owners.iter().map(|o| (o.clone(), received(o).to_vec())).collect(),
            queued: queued.to_vec(),
            status: owners
                .iter()
                .flat_map(|o| ids.iter().map(move |i| ((o.clone(), i.clone()), status(o, i))))
                .collect(),
            kept: owners
                .iter()
                .flat_map(|o| ids.iter().map(move |i| ((o.clone(), i.clone()), self.kept(o, i))))
                .collect(),
            usage: owners.iter().map(|o| (o.clone(), self.usage(o))).collect(),
        }
    }
}

impl Model {
    fn kept(&self, owner: &AtSign, id: &NotificationId) -> Vec<Kept> {
        let sent = self.sent.iter().filter(|(n, _)| (&n.from, &n.id) == (owner, id));
        let received = self.received.iter().filter(|n| (&n.to, &n.id) == (owner, id)).cloned().collect();
        let sent = sent.map(|(n, d)| Kept { notification: n.clone(), delivery: Some(*d) });
        sent.chain(by_time(received).into_iter().map(|notification| Kept { notification, delivery: None })).collect()
    }

    fn usage(&self, owner: &AtSign) -> Usage {
        let mut usage = Usage::default();
        for ((_, key), record) in self.records.iter().filter(|((o, _), _)| o == owner) {
            usage.records += 1;
            usage.bytes += u64::try_from(key.len() + record.value.len()).unwrap();
        }
        let received = self.received.iter().filter(|n| n.to == *owner).map(|n| (n, None));
        let sent = self.sent.iter().filter(|(n, _)| n.from == *owner).map(|(n, d)| (n, Some(*d)));
        received.chain(sent).for_each(|(n, d)| usage.count(d, n.operation, n.message_type, 1));
        usage
    }
}

/// Stable: those of the same millisecond stay in the order of arrival.
fn by_time(mut list: Vec<Notification>) -> Vec<Notification> {
    list.sort_by_key(|n| n.at);
    list
}
