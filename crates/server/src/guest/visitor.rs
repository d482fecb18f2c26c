//! Servers of other operators: those who come here, and what our owners ask of them.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use postern_dialogue::server::{Access, Authority};
use postern_proto::verb::{From, Lookup, Scan};
use postern_proto::{AtKey, AtSign, Detail, ErrorCode, ProtocolError, Reply, Request};
use postern_store::{Batch, StoreError};
use serde_json::{Value as Json, json};

use super::{Flow, Guest};
use crate::abroad::copies::{self, Fetched};
use crate::abroad::{PeerError, Purpose};
use crate::limits::{ANONYMOUS_LINE_BYTES, OWNER_LINE_BYTES};
use crate::serve::{Shared, now_ms};
use crate::verbs::{Refusal, check_visitor, print};

/// Something that an owner of ours wants to know of another server.
pub(super) enum Errand {
    /// A record: shared with the owner, or public.
    Record { lookup: Lookup, key: AtKey },
    /// Names of keys shared with the owner.
    Names { of: AtSign, scan: Scan },
}

impl Guest {
    /// A claim of somebody who lives elsewhere.
    pub(super) async fn on_peer_from(&mut self, from: &From) -> io::Result<Flow> {
        // On a port of its own it is clear whom the visit is for.
        if let Some(household) = &self.port_of
            && let Err(refusal) = check_visitor(self.shared.store.as_ref(), household, &from.at_sign)
        {
            self.refuse(refusal).await?;
            return Ok(Flow::Close);
        }
        let reply = self.connection.on_peer_from(from, postern_crypto::random(), Instant::now());
        self.reply(&reply).await
    }

    /// The proof of such a claim is where it can be read.
    pub(super) async fn on_pol(&mut self) -> io::Result<Flow> {
        let shared = Arc::clone(&self.shared);
        let Some(abroad) = &shared.abroad else {
            return self.reply(&Reply::Error(ProtocolError::invalid_command())).await;
        };
        if self.connection.is_monitoring() {
            return self.reply(&Reply::Error(super::stranger::on_monitor())).await;
        }
        self.reader.set_limit(ANONYMOUS_LINE_BYTES);
        let verification = match self.connection.on_pol(Instant::now()) {
            Ok(verification) => verification,
            Err(error) => {
                self.reply(&Reply::Error(error)).await?;
                return Ok(Flow::Close);
            }
        };
        let shown = self.stream.peer_certificates();
        let checking = Box::pin(abroad.verify(verification, shown, self.address));
        let outcome = tokio::select! {
            biased; // leaving wins over being believed
            () = shared.tasks.token().cancelled() => return Ok(Flow::Close),
            () = super::asked_to_leave(&self.seat) => return Ok(Flow::Close),
            outcome = checking => outcome,
        };
        let peer = match outcome {
            Ok(peer) => peer,
            Err(error) => {
                self.reply(&Reply::Error(error)).await?;
                return Ok(if self.connection.has_failed_too_often() { Flow::Close } else { Flow::GoOn });
            }
        };
        let Some((house, place)) = abroad.sit(peer.at_sign()) else { return self.no_room().await };
        if !self.sit_down(house) {
            return self.no_room().await;
        }
        self.visit = Some(place);
        self.connection.admit_peer(peer);
        self.reader.set_limit(OWNER_LINE_BYTES);
        self.reply(&Reply::PromptOnly).await
    }

    async fn no_room(&mut self) -> io::Result<Flow> {
        let error = ProtocolError::new(ErrorCode::InboundLimit, "Inbound connection limit exceeded : try later");
        self.reply(&Reply::Error(error)).await?;
        Ok(Flow::Close)
    }

    /// What has to be asked of another server, if we ask any.
    pub(super) fn errand(&self, request: &Request) -> Option<Errand> {
        self.shared.abroad.as_ref()?;
        let me = self.connection.authority()?.owner();
        let elsewhere = |who: &AtSign| who != me && !self.shared.accounts.hosts(who);
        match request {
            Request::Lookup(lookup) if elsewhere(&lookup.owner) => {
                let key = AtKey::shared(me, &lookup.name, &lookup.owner);
                Some(Errand::Record { lookup: lookup.clone(), key })
            }
            Request::Plookup(lookup) if elsewhere(&lookup.owner) => {
                let key = AtKey::public(&lookup.name, &lookup.owner);
                Some(Errand::Record { lookup: lookup.clone(), key })
            }
            Request::Scan(scan) => {
                let of = scan.other.clone().filter(|of| elsewhere(of))?;
                Some(Errand::Names { of, scan: scan.clone() })
            }
            _ => None,
        }
    }

    pub(super) async fn on_errand(&mut self, errand: Errand) -> io::Result<Flow> {
        if let Err(error) = self.renew() {
            return self.dismiss(error).await;
        }
        let Some(who) = self.connection.authority().cloned() else {
            return self.reply(&Reply::Error(ProtocolError::needs_auth())).await;
        };
        let shared = Arc::clone(&self.shared);
        // A task of its own: when this connection ends, what was asked is still answered and kept.
        let work = self.shared.tasks.spawn(async move { run(&shared, &who, errand).await });
        match self.while_pushing(work).await? {
            Ok(Ok(reply)) => self.reply(&reply).await,
            Ok(Err(refusal)) => self.refuse(refusal).await,
            Err(_) => {
                self.reply(&Reply::Error(ProtocolError::new(ErrorCode::Internal, "the request : broke off"))).await
            }
        }
    }
}

async fn run(shared: &Shared, who: &Authority, errand: Errand) -> Result<Reply, Refusal> {
    match errand {
        Errand::Record { lookup, key } => record(shared, who, &lookup, &key).await,
        Errand::Names { of, scan } => names(shared, who, &of, &scan).await,
    }
}

/// A record of another server: from the copy while it counts, else from there.
async fn record(shared: &Shared, who: &Authority, lookup: &Lookup, key: &AtKey) -> Result<Reply, Refusal> {
    let me = who.owner();
    let is_public = key.shared_with().is_none();
    who.check(if is_public { "plookup" } else { "lookup" }, key, Access::Read)?;
    let copy_key = key.clone().cached();
    let copy = shared.store.get(me, &copy_key)?.filter(|copy| copy.is_active(now_ms()));
    if let Some(copy) = copy.as_ref().filter(|copy| !lookup.bypass_cache && copies::is_fresh(copy, key, now_ms())) {
        return Ok(print(&copy_key, Some(copy.value.clone()), copy, lookup.detail));
    }
    match fetch(shared, me, lookup, is_public).await {
        Ok(Some(fetched)) => {
            store_copy(shared, || copies::keep(shared.store.as_ref(), me, key, &fetched, now_ms())).await?;
            Ok(show_fetched(key, fetched, lookup.detail))
        }
        Ok(None) => {
            store_copy(shared, || copies::drop_copy(shared.store.as_ref(), me, key, now_ms())).await?;
            Err(ProtocolError::no_such_key(key).into())
        }
        Err(error) => match copy {
            // Better an old public key than none; its change is noticed with the next claim.
            Some(copy) if key.is_public_key() && !lookup.bypass_cache && error.is_dead() => {
                Ok(print(&copy_key, Some(copy.value.clone()), &copy, lookup.detail))
            }
            _ => Err(error.into_protocol().into()),
        },
    }
}

/// `None`: its owner's server has no such record.
async fn fetch(shared: &Shared, me: &AtSign, lookup: &Lookup, is_public: bool) -> Result<Option<Fetched>, PeerError> {
    let abroad = shared.abroad.as_ref().ok_or_else(|| PeerError::NotFound(lookup.owner.clone()))?;
    let _turn = abroad.enter(me)?;
    let line = Request::Lookup(Lookup::all(&lookup.name, &lookup.owner)).to_string();
    let answer = if is_public {
        abroad.ask_as_nobody(&lookup.owner, &line).await
    } else {
        abroad.ask(me, &lookup.owner, Purpose::Ask, &line).await
    };
    match answer {
        Ok(text) => Fetched::parse(&text).map_err(|()| PeerError::Nonsense),
        Err(PeerError::Refused(error)) if error.code == Some(ErrorCode::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A copy that others write meanwhile is as good.
async fn store_copy(
    shared: &Shared,
    plan: impl FnOnce() -> Result<Option<Batch>, StoreError>,
) -> Result<(), StoreError> {
    let Some(batch) = plan()? else { return Ok(()) };
    match shared.store.commit(batch).await {
        Ok(_) | Err(StoreError::Conflict) => Ok(()),
        Err(error) => Err(error),
    }
}

fn show_fetched(key: &AtKey, fetched: Fetched, detail: Detail) -> Reply {
    match detail {
        Detail::Value => Reply::Data(fetched.value),
        Detail::Meta => Reply::json(&fetched.shown.into()),
        Detail::All => {
            let all = json!({"key": key.to_string(), "data": fetched.value, "metaData": fetched.shown});
            Reply::json(&all)
        }
    }
}

/// Names of keys that `of` shares with the caller.
async fn names(shared: &Shared, who: &Authority, of: &AtSign, scan: &Scan) -> Result<Reply, Refusal> {
    let not_found = || PeerError::NotFound(of.clone()).into_protocol();
    let abroad = shared.abroad.as_ref().ok_or_else(not_found)?;
    let _turn = abroad.enter(who.owner()).map_err(PeerError::into_protocol)?;
    let there = Scan { show_hidden: false, other: None, regex: scan.regex.clone() };
    let line = Request::Scan(there).to_string();
    let answer = abroad.ask(who.owner(), of, Purpose::Ask, &line).await.map_err(PeerError::into_protocol)?;
    let nonsense = || PeerError::Nonsense.into_protocol();
    let Ok(names) = serde_json::from_str::<Vec<String>>(&answer) else {
        return if answer == "null" { Ok(Reply::json(&json!([]))) } else { Err(nonsense().into()) };
    };
    let reaches = |name: &String| match AtKey::parse(&format!("{}:{name}", who.owner())) {
        Ok(key) => who.check("scan", &key, Access::Read).is_ok(),
        Err(_) => who.limits().is_none(),
    };
    let reached: Vec<Json> = names.into_iter().filter(reaches).map(Json::from).collect();
    Ok(Reply::json(&Json::Array(reached)))
}
