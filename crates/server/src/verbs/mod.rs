//! One file per verb: read, plan, and what to answer when the plan is committed.
//!
//! Every `plan` is a function of the request, the store as it is, the authority and the
//! time. What it returns is committed whole, then answered.

mod blocks;
mod cache;
mod config;
mod delete;
mod enroll;
mod info;
mod keys;
mod lookup;
mod monitor;
mod notifications;
mod notify;
mod otp;
mod peer;
mod scan;
mod stats;
mod sync;
mod update;

use std::time::Duration;

use postern_dialogue::server::{Authority, Enrollment, Peer};
use postern_proto::{AtKey, AtSign, ErrorCode, Millis, ProtocolError, Record, Reply, Request, Uuid};
use postern_store::{Assert, Batch, Committed, Store, StoreError};

use crate::accounts::Accounts;
use crate::hub::Figures;

pub(crate) use blocks::check_visitor;
pub(crate) use cache::retire_shared_key;
pub(crate) use lookup::print;
pub(crate) use monitor::subscription;

/// Everything a plan may look at.
pub(crate) struct Call<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) accounts: &'a Accounts,
    /// What the connection proved.
    pub(crate) who: Option<&'a Authority>,
    /// The atSign elsewhere that it proved to speak for.
    pub(crate) peer: Option<&'a Peer>,
    /// Whether notifications to atSigns elsewhere are delivered.
    pub(crate) abroad: bool,
    /// Whose server a stranger means when the request does not say.
    pub(crate) household: Option<&'a AtSign>,
    /// Milliseconds since the epoch.
    pub(crate) now: Millis,
    /// Never repeats, cannot be guessed.
    pub(crate) random: [u8; 32],
    /// How long the server runs.
    pub(crate) uptime: Duration,
    /// What is known of the household in memory.
    pub(crate) house: Option<Figures>,
}

/// What is to happen, all or nothing.
pub(crate) struct Plan {
    /// Empty for pure reads.
    pub(crate) batch: Option<Batch>,
    answer: Answer,
    /// The connection goes on as this enrolment.
    pub(crate) adopt: Option<Enrollment>,
    /// Connections of this household may have lost their rights.
    pub(crate) ends_rights: Option<AtSign>,
    /// The answer is the last word on this connection.
    pub(crate) close: bool,
}

enum Answer {
    Reply(Reply),
    /// The commit id of this step; −1 when it is not logged.
    CommitOf(usize),
}

/// Why there is no plan.
pub(crate) enum Refusal {
    /// The protocol's error.
    Protocol(ProtocolError),
    /// The store's.
    Store(StoreError),
    /// A stranger's passcode for an enrolment: such guesses are counted.
    WrongPasscode,
}

impl From<ProtocolError> for Refusal {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

pub(crate) type Planned = Result<Plan, Refusal>;

/// Plans any request that needs nothing of the connection itself.
pub(crate) fn plan(call: &Call<'_>, request: &Request) -> Planned {
    if let Some(peer) = call.peer {
        return peer::plan(call, peer, request);
    }
    match request {
        Request::Lookup(lookup) => lookup::lookup(call, lookup),
        Request::Plookup(lookup) => lookup::plookup(call, lookup),
        Request::Llookup(lookup) => lookup::llookup(call, lookup),
        Request::Update(update) => update::plan(call, update),
        Request::UpdateMeta(update) => update::meta(call, update),
        Request::Delete(delete) => delete::plan(call, delete),
        Request::Scan(scan) => scan::plan(call, scan),
        Request::Notify(notify) => notify::plan(call, notify),
        Request::NotifyAll(all) => notify::all(call, all),
        Request::NotifyStatus(status) => notifications::status(call, status),
        Request::NotifyList(list) => notifications::list(call, list),
        Request::NotifyFetch(fetch) => notifications::fetch(call, fetch),
        Request::NotifyRemove(remove) => notifications::remove(call, remove),
        Request::Sync(sync) => sync::plan(call, sync),
        Request::Stats(stats) => stats::plan(call, stats),
        Request::Config(config) => config::plan(call, config),
        Request::Info(info) => info::plan(call, *info),
        Request::Enroll(enroll) => enroll::plan(call, enroll),
        Request::Otp(otp) => otp::plan(call, otp),
        Request::Keys(keys) => keys::plan(call, keys),
        // The connection answers these itself, and newer verbs are not ours yet.
        _ => Err(ProtocolError::invalid_command().into()),
    }
}

/// Batches are for writing: what reads could make one answer of a hundred long ones.
pub(crate) fn may_be_in_a_batch(request: &Request) -> bool {
    matches!(
        request,
        Request::Update(_)
            | Request::UpdateMeta(_)
            | Request::Delete(_)
            | Request::Notify(_)
            | Request::NotifyAll(_)
            | Request::NotifyRemove(_)
    )
}

impl Call<'_> {
    /// The witness that verbs on an owner's data want.
    fn owner(&self) -> Result<&Authority, ProtocolError> {
        self.who.ok_or_else(ProtocolError::needs_auth)
    }

    /// A fresh UUID of this call.
    fn uuid(&self) -> Uuid {
        self.nth_uuid(0)
    }

    /// Several that differ from each other.
    fn nth_uuid(&self, n: usize) -> Uuid {
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(self.random) {
            *to = from;
        }
        for (to, from) in bytes.iter_mut().zip(n.to_le_bytes()) {
            *to ^= from;
        }
        Uuid::from_random(bytes)
    }

    /// The other atSign, when it lives on this server too.
    fn hosted(&self, at_sign: &AtSign) -> Result<(), ProtocolError> {
        if self.accounts.hosts(at_sign) { Ok(()) } else { Err(not_hosted(at_sign)) }
    }

    /// A record that is there now.
    fn active(&self, owner: &AtSign, key: &AtKey) -> Result<Option<Record>, StoreError> {
        Ok(self.store.get(owner, key)?.filter(|record| record.is_active(self.now)))
    }

    /// Adds a write of `key` that builds on what is stored now: `make` gets the earlier
    /// version, if there is an unexpired one.
    fn write(
        &self,
        batch: Batch,
        owner: &AtSign,
        key: &AtKey,
        log: postern_store::LogAs,
        make: impl FnOnce(Option<&Record>) -> Record,
    ) -> Result<Batch, StoreError> {
        let stored = self.store.get(owner, key)?;
        let assert = match &stored {
            Some(record) => Assert::KeyVersion(owner.clone(), key.clone(), record.version),
            None => Assert::KeyAbsent(owner.clone(), key.clone()),
        };
        let living = stored.filter(|record| record.expires_at.is_none_or(|end| self.now < end));
        Ok(batch.assert(assert).put(owner, key, make(living.as_ref()), log))
    }
}

/// `AT0007`: nobody of that name on this server.
pub(crate) fn not_hosted(at_sign: &AtSign) -> ProtocolError {
    ProtocolError::new(ErrorCode::SecondaryNotFound, format!("{at_sign} is not hosted on this server"))
}

impl Plan {
    /// An answer that changes nothing.
    fn reply(reply: Reply) -> Planned {
        Ok(Self::made(None, Answer::Reply(reply)))
    }

    /// A change with a fixed answer.
    fn change(batch: Batch, reply: Reply) -> Planned {
        Ok(Self::made(Some(batch), Answer::Reply(reply)))
    }

    /// A change answered with the commit id of one of its steps.
    fn logged(batch: Batch, step: usize) -> Planned {
        Ok(Self::made(Some(batch), Answer::CommitOf(step)))
    }

    fn made(batch: Option<Batch>, answer: Answer) -> Self {
        Self { batch, answer, adopt: None, ends_rights: None, close: false }
    }

    /// What to say now that it is done.
    pub(crate) fn answer(self, committed: &Committed) -> Reply {
        match self.answer {
            Answer::Reply(reply) => reply,
            Answer::CommitOf(step) => {
                let commit = committed.commits.get(step).copied().flatten().unwrap_or(-1);
                Reply::Data(commit.to_string())
            }
        }
    }

    /// Takes the batch out; what is left knows the answer.
    pub(crate) fn take_batch(&mut self) -> Option<Batch> {
        self.batch.take()
    }
}

/// In the namespace of the server's own records.
fn is_managed(key: &AtKey) -> bool {
    key.is_in_namespace("__manage")
}
