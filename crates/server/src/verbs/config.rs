//! `config`: the block list. The server's own settings are its operator's.

use postern_proto::verb::ConfigRequest;
use postern_proto::{AtSign, ErrorCode, Metadata, ProtocolError, Record, Reply};
use postern_store::{Batch, LogAs};
use serde_json::Value as Json;

use super::{Call, Plan, Planned, blocks};
use crate::limits::BLOCKED;

pub(super) fn plan(call: &Call<'_>, config: &ConfigRequest) -> Planned {
    let me = call.owner()?;
    if !me.is_full() {
        let text = "Connection is not authorized to look at or change the block list";
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text).into());
    }
    let mut list = blocks::list(call, me.owner())?;
    match config {
        ConfigRequest::Setting(_) => return Plan::reply(Reply::Data("testing mode disabled by default".into())),
        ConfigRequest::ShowBlocked if list.is_empty() => return Plan::reply(Reply::Null),
        ConfigRequest::ShowBlocked => return Plan::reply(Reply::json(&json(&list))),
        ConfigRequest::Block(names) => list.extend(names.iter().filter(|name| *name != me.owner()).cloned()),
        ConfigRequest::Unblock(names) => list.retain(|name| !names.contains(name)),
    }
    list.sort();
    list.dedup();
    if list.len() > BLOCKED {
        let text = format!("a block list has at most {BLOCKED} atSigns");
        return Err(ProtocolError::new(ErrorCode::IllegalArguments, text).into());
    }
    let text = json(&list).to_string();
    let key = blocks::key(me.owner());
    let batch = call.write(Batch::new(call.now), me.owner(), &key, LogAs::Nothing, |old| match old {
        Some(old) => old.next(text, Metadata::default(), call.now),
        None => Record::new(text, Metadata::default(), call.now),
    })?;
    Plan::change(batch, Reply::success())
}

fn json(list: &[AtSign]) -> Json {
    list.iter().map(AtSign::as_str).collect()
}
