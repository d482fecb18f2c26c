//! What owners do: verbs on their data, and listening.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use postern_proto::verb::{BatchRequest, Monitor, Noop};
use postern_proto::{AtKey, AtSign, ErrorCode, Millis, NotificationId, ProtocolError, Reply, Request};
use postern_store::{Batch, Committed, StoreError};
use serde_json::{Value as Json, json};
use tokio::sync::OwnedSemaphorePermit;

use super::{Flow, Guest, Place, ring};
use crate::abroad::left_waiting;
use crate::enrollments;
use crate::hub::{Figures, Item, Push, Submitted, Subscribed};
use crate::limits::{FREE_LINE_BYTES, PLAN_ATTEMPTS, REPLAY_OVERLAP_MS, REPLAY_PAGE};
use crate::serve::now_ms;
use crate::verbs::{self, Call, Plan, Planned, Refusal, not_hosted};
use crate::wire;

/// A connection that listens.
pub(super) struct Monitoring {
    pub(super) subscribed: Subscribed,
    since: Millis,
    /// Replayed so lately that they may be pushed again.
    replayed: HashSet<(AtSign, NotificationId)>,
}

/// How a request ended.
enum Done {
    /// Nothing was changed.
    Answered(Reply),
    /// Something was.
    Changed(Reply),
    /// The same, and the connection is to end.
    LastWord(Reply),
    Refused(Refusal),
    /// The connection has lost its rights.
    Dismissed(ProtocolError),
}

/// One response of a batch.
fn response(reply: &Reply) -> Json {
    match reply {
        Reply::Data(text) => json!({"data": text}),
        Reply::Error(error) => failure(error),
        _ => json!({"data": null}),
    }
}

fn failure(error: &ProtocolError) -> Json {
    let message = format!("{} : {}", error.code.description(), error.message);
    json!({"error_code": error.code.code(), "error_message": message})
}

impl Guest {
    /// Any verb that is read, plan, commit, reply.
    pub(super) async fn perform(&mut self, request: &Request) -> io::Result<Flow> {
        match self.carry_out(request).await? {
            Done::Answered(reply) => self.answer(reply).await,
            Done::Changed(reply) => self.reply(&reply).await,
            Done::LastWord(reply) => {
                self.reply(&reply).await?;
                Ok(Flow::Close)
            }
            Done::Refused(refusal) => self.refuse(refusal).await,
            Done::Dismissed(error) => self.dismiss(error).await,
        }
    }

    /// Commands one after the other, each a transaction of its own; what fails does not hold up the next.
    pub(super) async fn on_batch(&mut self, batch: &BatchRequest) -> io::Result<Flow> {
        if self.connection.authority().is_none() {
            return self.reply(&Reply::Error(ProtocolError::needs_auth())).await;
        }
        let mut responses = Vec::with_capacity(batch.commands.len());
        for command in &batch.commands {
            let response = match Request::parse(command.line.as_bytes()) {
                Ok(request) if verbs::may_be_in_a_batch(&request) => match self.carry_out(&request).await? {
                    Done::Answered(reply) | Done::Changed(reply) | Done::LastWord(reply) => response(&reply),
                    Done::Refused(refusal) => failure(&self.error_of(refusal)),
                    Done::Dismissed(error) => return self.dismiss(error).await,
                },
                Ok(_) => failure(&ProtocolError::invalid_command()),
                Err(error) => failure(&error),
            };
            responses.push(json!({"id": command.id, "response": response}));
        }
        self.reply(&Reply::json(&Json::Array(responses))).await
    }

    async fn carry_out(&mut self, request: &Request) -> io::Result<Done> {
        if let Err(error) = self.renew() {
            return Ok(Done::Dismissed(error));
        }
        let mut turn = None;
        for attempt in 0..PLAN_ATTEMPTS {
            let mut plan = match self.plan(request) {
                Ok(plan) => plan,
                Err(refusal) => return Ok(Done::Refused(refusal)),
            };
            if let (None, Request::Lookup(lookup)) = (self.connection.authority(), request) {
                // A device that wants to be enrolled reads the public key first, and then does not say whose server
                // it means.
                self.asked_about = Some(lookup.owner.clone());
            }
            let Some(batch) = plan.take_batch() else {
                return Ok(Done::Answered(plan.answer(&Committed::default())));
            };
            if turn.is_none() && self.must_wait(attempt) {
                // What was planned may be old by then.
                turn = self.wait_for_turn().await?;
                continue;
            }
            match self.commit(batch, plan.ends_rights.take()).await? {
                Ok(committed) => return Ok(self.done(plan, &committed)),
                // Somebody wrote the same record meanwhile: look again.
                Err(StoreError::Conflict) => {}
                Err(error) => return Ok(Done::Refused(error.into())),
            }
        }
        Ok(Done::Refused(StoreError::Conflict.into()))
    }

    /// After a conflict, or while others sort out theirs.
    fn must_wait(&self, attempt: u32) -> bool {
        let Place::Settled { house, .. } = &self.seat else { return false };
        attempt > 0 || house.0.turn.available_permits() == 0
    }

    /// The household's turn: nobody writes to it from now on but those already on their way.
    async fn wait_for_turn(&mut self) -> io::Result<Option<OwnedSemaphorePermit>> {
        let Place::Settled { house, .. } = &self.seat else { return Ok(None) };
        let turn = Box::pin(Arc::clone(&house.0.turn).acquire_owned());
        Ok(self.while_pushing(turn).await?.ok())
    }

    pub(super) fn plan(&self, request: &Request) -> Planned {
        let only = self.shared.accounts.only();
        let household = self.household().or(only.as_ref());
        let call = Call {
            store: self.shared.store.as_ref(),
            accounts: &self.shared.accounts,
            who: self.connection.authority(),
            peer: self.connection.peer(),
            abroad: self.shared.abroad.is_some(),
            household,
            now: now_ms(),
            random: postern_crypto::random(),
            uptime: self.shared.started.elapsed(),
            house: self.figures(request),
        };
        verbs::plan(&call, request)
    }

    /// Of the owner's household; what takes counting, for `stats` alone.
    fn figures(&self, request: &Request) -> Option<Figures> {
        let (Some(who), Place::Settled { house, .. }) = (self.connection.authority(), &self.seat) else { return None };
        let mut figures = house.0.figures();
        if let (Request::Stats(_), Some(abroad)) = (request, &self.shared.abroad) {
            figures.outbound = abroad.connections_of(who.owner());
        }
        Some(figures)
    }

    /// Whose server a stranger means: the atSign it claimed to be, the one whose port this is, or the one it asked
    /// about before.
    pub(super) fn household(&self) -> Option<&AtSign> {
        // Servers of others claim names that do not live here.
        let claimed = self.connection.claimed().filter(|claimed| self.shared.accounts.hosts(claimed));
        claimed.or(self.port_of.as_ref()).or(self.asked_about.as_ref())
    }

    /// Commits, and delivers what was committed even when this connection ends meanwhile.
    /// Pushes go out while the disk is busy.
    async fn commit(&mut self, batch: Batch, ends_rights: Option<AtSign>) -> io::Result<Result<Committed, StoreError>> {
        let shared = Arc::clone(&self.shared);
        let waiting = if self.shared.abroad.is_some() { left_waiting(&batch) } else { Vec::new() };
        let work = self.shared.tasks.spawn(async move {
            let _place = shared.commits.acquire().await; // never closed
            let Submitted { pending, tickets } = shared.hub.submit(shared.store.as_ref(), batch);
            let outcome = pending.await;
            tickets.settle(&shared.hub, outcome.as_ref().ok());
            if let Some(household) = ends_rights.filter(|_| outcome.is_ok()) {
                shared.hub.house(&household).rights.send_replace(());
            }
            if let (Ok(_), Some(abroad)) = (&outcome, &shared.abroad) {
                abroad.wake(waiting);
            }
            outcome
        });
        let outcome = self.while_pushing(work).await?;
        Ok(outcome.unwrap_or_else(|_| Err(StoreError::Io("the commit was abandoned".into()))))
    }

    fn done(&mut self, mut plan: Plan, committed: &Committed) -> Done {
        if let Some(enrollment) = plan.adopt.take() {
            self.connection.adopt(enrollment);
        }
        let close = plan.close;
        let reply = plan.answer(committed);
        if close { Done::LastWord(reply) } else { Done::Changed(reply) }
    }

    /// Long answers to strangers have an account: they are read from memory that somebody else pays for.
    async fn answer(&mut self, reply: Reply) -> io::Result<Flow> {
        let long = match &reply {
            Reply::Data(text) if self.connection.authority().is_none() => text.len().saturating_sub(FREE_LINE_BYTES),
            _ => 0,
        };
        let permits = u32::try_from(long).unwrap_or(u32::MAX);
        let shared = Arc::clone(&self.shared);
        match shared.long_answers.try_acquire_many(permits) {
            Ok(_permit) => self.reply(&reply).await,
            Err(_) => {
                let error = ProtocolError::new(ErrorCode::InternalException, "too busy for a long answer : try later");
                self.reply(&Reply::Error(error)).await
            }
        }
    }

    pub(super) async fn on_noop(&mut self, noop: Noop) -> io::Result<Flow> {
        if noop.ms > 0 {
            let wait = Box::pin(tokio::time::sleep(Duration::from_millis(noop.ms.into())));
            self.while_pushing(wait).await?;
        }
        self.reply(&Reply::Data("ok".into())).await
    }

    /// From now on this connection hears notifications; first those kept since the time it names.
    pub(super) async fn on_monitor(&mut self, monitor: &Monitor) -> io::Result<Flow> {
        if let Err(error) = self.renew() {
            return self.dismiss(error).await;
        }
        let (Some(who), Place::Settled { house, .. }) = (self.connection.authority(), &self.seat) else {
            return self.reply(&Reply::Error(ProtocolError::needs_auth())).await;
        };
        let owner = who.owner().clone();
        let subscription = match verbs::subscription(who, monitor, self.stream.speaks_postern()) {
            Ok(subscription) => subscription,
            Err(error) => return self.reply(&Reply::Error(error)).await,
        };
        // Subscribed first, replayed then: what arrives between is heard twice and told once.
        let subscribed = house.0.subscribe(subscription);
        self.monitor = Some(Box::new(Monitoring { subscribed, since: now_ms(), replayed: HashSet::new() }));
        self.connection.start_monitoring();
        if let Some(since) = monitor.since
            && let Err(error) = self.replay(&owner, since).await?
        {
            return self.refuse(error.into()).await;
        }
        Ok(Flow::GoOn)
    }

    async fn replay(&mut self, owner: &AtSign, since: Millis) -> io::Result<Result<(), StoreError>> {
        let mut after = since;
        loop {
            let page = match self.shared.store.received_since(owner, after, now_ms(), REPLAY_PAGE) {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            for notification in &page {
                after = notification.at;
                let Some(monitor) = &mut self.monitor else { return Ok(Ok(())) };
                let push = Push::replayed(notification);
                if monitor.subscribed.subscription.wants(&push) {
                    if push.at >= monitor.since - REPLAY_OVERLAP_MS {
                        monitor.replayed.insert((push.from.clone(), push.id.clone()));
                    }
                    wire::write(&mut self.stream, push.line.as_bytes()).await?;
                }
            }
            if page.len() < REPLAY_PAGE {
                return Ok(Ok(()));
            }
        }
    }

    /// Sends what waits, one record for each line. An error when the reader was too slow.
    pub(super) async fn push_waiting(&mut self) -> io::Result<()> {
        if matches!(&self.seat, Place::Settled { rights, .. } if rights.has_changed().unwrap_or(true))
            && self.renew().is_err()
        {
            return Err(io::Error::other("the monitor has lost its rights"));
        }
        let Some(monitor) = &mut self.monitor else { return Ok(()) };
        let Some(items) = monitor.subscribed.subscription.take() else {
            return Err(io::Error::other("the monitor was closed: it reads too slowly, or its household is gone"));
        };
        for item in items {
            if let Item::Push(push) = &item
                && !monitor.replayed.is_empty()
            {
                if push.at > monitor.since + REPLAY_OVERLAP_MS {
                    monitor.replayed = HashSet::new();
                } else if monitor.replayed.contains(&(push.from.clone(), push.id.clone())) {
                    continue;
                }
            }
            wire::write(&mut self.stream, item.line().as_bytes()).await?;
        }
        Ok(())
    }

    /// Awaits `work` without leaving pushes lying about.
    pub(super) async fn while_pushing<F: Future + Unpin>(&mut self, mut work: F) -> io::Result<F::Output> {
        loop {
            tokio::select! {
                biased; // the reply is older than the pushes
                output = &mut work => return Ok(output),
                () = ring(self.monitor.as_deref()) => self.push_waiting().await?,
            }
        }
    }

    /// Rights may have changed since the proof.
    pub(super) fn renew(&mut self) -> Result<(), ProtocolError> {
        let Some(who) = self.connection.authority() else { return Ok(()) };
        if !self.shared.accounts.hosts(who.owner()) {
            return Err(not_hosted(who.owner()));
        }
        let Some(id) = who.enrollment_id() else { return Ok(()) };
        match enrollments::find(self.shared.store.as_ref(), who.owner(), id, now_ms()) {
            Ok(enrollment) => self.connection.renew(enrollment),
            Err(error) => {
                self.shared.store_failed(&error);
                Err(ProtocolError::new(ErrorCode::DataStore, super::store_text(&error)))
            }
        }
    }

    /// Looks again at what this connection proved: an enrolment, or the key of the legacy form.
    pub(super) async fn recheck(&mut self) -> io::Result<Flow> {
        if let Err(error) = self.renew() {
            return self.dismiss(error).await;
        }
        let Some(who) = self.connection.authority().filter(|who| who.is_legacy()) else { return Ok(Flow::GoOn) };
        let key = AtKey::private_key("at_pkam_publickey");
        match self.shared.store.get(who.owner(), &key) {
            Ok(Some(_)) => Ok(Flow::GoOn),
            Ok(None) => self.dismiss(ProtocolError::no_such_key(key)).await,
            Err(error) => {
                self.shared.store_failed(&error);
                self.dismiss(ProtocolError::new(ErrorCode::DataStore, super::store_text(&error))).await
            }
        }
    }

    /// The last word to a connection that has lost its rights.
    pub(super) async fn dismiss(&mut self, error: ProtocolError) -> io::Result<Flow> {
        self.monitor = None;
        self.reply(&Reply::Error(error)).await?;
        Ok(Flow::Close)
    }
}
