//! Names and things that the cases use, and a view of a whole store to compare.

use std::collections::BTreeMap;

use postern_proto::{
    AtKey, AtSign, MessageType, Metadata, Millis, Notification, NotificationId, Operation, Record, Routing,
};

use super::commit;
use crate::{Account, Batch, Delivery, Kept, LogAs, LogEntry, Op, Store, Usage};

pub(super) fn at(name: &str) -> AtSign {
    AtSign::parse(name).unwrap()
}

pub(super) fn key(name: &str, owner: &AtSign) -> AtKey {
    AtKey::own(name, owner)
}

pub(super) fn id(text: &str) -> NotificationId {
    NotificationId::parse(text).unwrap()
}

pub(super) fn account(name: &str) -> Account {
    Account { at_sign: at(name), port: None, created_at: 1 }
}

/// Adds the households `names`.
pub(super) fn settle(store: &dyn Store, names: &[&str]) {
    let batch = names.iter().fold(Batch::new(0), |batch, name| batch.add_account(account(name)));
    commit(store, batch).unwrap();
}

pub(super) fn record(value: &str) -> Record {
    Record::new(value, Metadata::default(), 10)
}

/// A logged write of `name` by `owner`.
pub(super) fn put(owner: &AtSign, name: &str, value: &str) -> Op {
    Op::Put { owner: owner.clone(), key: key(name, owner), record: record(value), log: LogAs::Put }
}

/// From `from` to `to`, at 10, until 1000.
pub(super) fn note(name: &str, from: &str, to: &str) -> Notification {
    Notification {
        id: id(name),
        from: at(from),
        to: at(to),
        key: format!("@{to}:Ping.dev1.sshnp@{from}"),
        value: None,
        operation: Operation::Update,
        message_type: MessageType::Key,
        at: 10,
        expires_at: 1000,
        is_encrypted: false,
        is_self: false,
        metadata: Metadata::default(),
        routing: Routing::default(),
    }
}

/// Everything set, nothing plain.
pub(super) fn rich_metadata() -> Metadata {
    let text = |t: &str| Some(t.to_owned());
    Metadata {
        ttl: Some(i64::MAX),
        ttb: Some(0),
        ttr: Some(-1),
        ccd: Some(false),
        data_signature: text("a:b=="),
        shared_key_status: text(""),
        is_binary: Some(true),
        is_encrypted: Some(true),
        shared_key_enc: text("\"quoted\" \\ 'and' so on"),
        pub_key_cs: text("null"),
        pub_key_hash: text("00ff"),
        hashing_algo: text("sha512"),
        encoding: text("base64"),
        enc_key_name: text("schlüssel 🗝"),
        enc_algo: text("AES/CTR"),
        iv_nonce: text("a\0b"),
        ske_enc_key_name: text("{}"),
        ske_enc_algo: text("\u{1}\n"),
        immutable: Some(true),
        app_metadata: text("e30="),
    }
}

/// Everything that the reads of the promise show, at three moments.
#[derive(Debug, PartialEq)]
pub(super) struct View {
    pub(super) accounts: Vec<Account>,
    pub(super) records: BTreeMap<AtSign, Vec<(String, Record)>>,
    pub(super) last_commit: BTreeMap<AtSign, i64>,
    pub(super) log: BTreeMap<AtSign, Vec<LogEntry>>,
    pub(super) received: BTreeMap<AtSign, Vec<Vec<Notification>>>,
    pub(super) queued: Vec<Vec<Notification>>,
    pub(super) status: BTreeMap<(AtSign, NotificationId), Option<Delivery>>,
    pub(super) kept: BTreeMap<(AtSign, NotificationId), Vec<Kept>>,
    pub(super) usage: BTreeMap<AtSign, Usage>,
}

/// The moments at which a view looks at notifications: (after, now).
pub(super) const MOMENTS: [(Millis, Millis); 3] = [(Millis::MIN, Millis::MIN), (3, 5), (8, 15)];

impl View {
    pub(super) fn of(store: &dyn Store, owners: &[AtSign], ids: &[NotificationId]) -> Self {
        let each = |owner: &AtSign| {
            let mut found = Vec::new();
            store.scan(owner, &mut |key, born, end| found.push((key.to_owned(), born, end))).unwrap();
            let records = found.into_iter().map(|(key, born, end)| {
                let record = store.get(owner, &AtKey::parse(&key).unwrap()).unwrap().unwrap();
                assert_eq!((born, end), (record.available_at, record.expires_at), "scan and get differ on {key}");
                (key, record)
            });
            records.collect::<Vec<_>>()
        };
        let received = |owner: &AtSign| {
            MOMENTS.map(|(after, now)| store.received_since(owner, after, now, usize::MAX).unwrap()).to_vec()
        };
        Self {
            accounts: store.accounts().unwrap(),
            records: owners.iter().map(|o| (o.clone(), each(o))).collect(),
            last_commit: owners.iter().map(|o| (o.clone(), store.last_commit(o).unwrap())).collect(),
            log: owners.iter().map(|o| (o.clone(), store.log_since(o, -1, usize::MAX).unwrap())).collect(),
            received: owners.iter().map(|o| (o.clone(), received(o))).collect(),
            queued: MOMENTS.map(|(_, now)| store.queued(now, usize::MAX).unwrap()).to_vec(),
            status: owners
                .iter()
                .flat_map(|o| ids.iter().map(move |i| (o.clone(), i.clone())))
                .map(|(o, i)| ((o.clone(), i.clone()), store.outgoing_status(&o, &i).unwrap()))
                .collect(),
            kept: owners
                .iter()
                .flat_map(|o| ids.iter().map(move |i| (o.clone(), i.clone())))
                .map(|(o, i)| ((o.clone(), i.clone()), store.notifications(&o, &i).unwrap()))
                .collect(),
            usage: owners.iter().map(|o| (o.clone(), store.usage(o).unwrap())).collect(),
        }
    }
}
