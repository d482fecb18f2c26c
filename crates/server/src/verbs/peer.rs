//! What a server of another operator may do here, once it has proved whom it speaks for: read what is shared with that
//! atSign, see its names, deliver its notifications. Nothing in anybody else's name.

use postern_dialogue::server::Peer;
use postern_proto::verb::{Lookup, Notify, Scan, Target};
use postern_proto::{AtKey, AtSign, ErrorCode, MessageType, Notification, ProtocolError, Reply, Request};
use postern_store::Batch;

use super::lookup::{Reader, read};
use super::notify::{arrive, full_key, life};
use super::{Call, Plan, Planned, Refusal, blocks, scan};
use crate::pattern::Pattern;

pub(super) fn plan(call: &Call<'_>, peer: &Peer, request: &Request) -> Planned {
    match request {
        Request::Lookup(wanted) => lookup(call, peer, wanted),
        Request::Scan(wanted) => names(call, peer, wanted),
        Request::Notify(notify) => receive(call, peer, notify),
        Request::Info(info) => super::info::plan(call, *info),
        _ => Err(ProtocolError::needs_auth().into()),
    }
}

fn lookup(call: &Call<'_>, peer: &Peer, wanted: &Lookup) -> Planned {
    call.hosted(&wanted.owner)?;
    welcome(call, &wanted.owner, peer)?;
    let key = AtKey::shared(peer.at_sign(), &wanted.name, &wanted.owner);
    read(call, Reader::Peer(peer.at_sign()), &wanted.owner, &key, wanted.detail)
}

fn names(call: &Call<'_>, peer: &Peer, wanted: &Scan) -> Planned {
    let pattern = Pattern::parse(wanted.regex.as_deref())?;
    let household = call.household.ok_or_else(ProtocolError::invalid_command)?;
    welcome(call, household, peer)?;
    let prefix = format!("{}:", peer.at_sign());
    scan::list(call, household, &pattern, |key| key.strip_prefix(prefix.as_str()))
}

/// `AT0013` to those whom the owner blocks.
fn welcome(call: &Call<'_>, household: &AtSign, peer: &Peer) -> Result<(), Refusal> {
    if blocks::is_blocked(call, household, peer.at_sign())? { Err(blocks::refused().into()) } else { Ok(()) }
}

fn receive(call: &Call<'_>, peer: &Peer, notify: &Notify) -> Planned {
    let from = peer.at_sign();
    if let Some(named) = notify.from.as_ref().filter(|named| *named != from) {
        let text = format!("{from} is not authorized to send notification as {named}");
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text).into());
    }
    let Target::AtSign(to) = &notify.target else {
        return Err(ProtocolError::new(ErrorCode::InvalidSyntax, "a notification needs a recipient").into());
    };
    call.hosted(to)?;
    welcome(call, to, peer)?;
    let metadata = notify.metadata.set.clone();
    let key = full_key(notify, to, from)?;
    let is_encrypted = match notify.message_type {
        MessageType::Text => metadata.is_encrypted == Some(true),
        MessageType::Key => !key.starts_with("public:") && metadata.is_encrypted != Some(false),
    };
    let notification = Notification {
        id: notify.id.clone().unwrap_or_else(|| call.uuid().into()),
        from: from.clone(),
        to: to.clone(),
        key,
        value: notify.value.clone(),
        operation: notify.operation,
        message_type: notify.message_type,
        at: call.now,
        expires_at: call.now.saturating_add(life(notify.ttln)),
        is_encrypted,
        is_self: false,
        metadata,
        routing: notify.routing.clone(),
    };
    Plan::change(arrive(call, Batch::new(call.now), notification)?, Reply::success())
}
