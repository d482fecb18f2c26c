//! `delete`: removing a record. Removing what is not there is answered the same.

use postern_dialogue::server::Access;
use postern_proto::verb::Delete;
use postern_proto::{AtKey, AtSign, ErrorCode, Metadata, Millis, Operation, ProtocolError, Record, Visibility};
use postern_store::{Assert, Batch, LogAs};

use super::update::{log_as, tell};
use super::{Call, Plan, Planned, is_managed};

/// Names that an identity rests on. Keys are folded when they are read, so no spelling slips by.
const PROTECTED: [&str; 4] = ["signing_publickey", "signing_privatekey", "publickey", "at_pkam_publickey"];

pub(super) fn plan(call: &Call<'_>, delete: &Delete) -> Planned {
    let me = call.owner()?;
    let key = delete.key.clone().or_owned_by(me.owner());
    check_kind(me.owner(), &key)?;
    me.check("delete", &key, Access::Write)?;
    if *key.visibility() == Visibility::PrivateKey {
        return forget_secret(call, me.owner(), &key);
    }
    let batch = Batch::new(call.now);
    let batch = match call.store.get(me.owner(), &key)? {
        // A copy of somebody else's record may always go.
        Some(old) if is_immutable(&old, call.now) && !delete.force && !key.is_cached() => {
            let text = format!("Immutable records may not be deleted without the force flag : {key} is immutable");
            return Err(ProtocolError::new(ErrorCode::Unauthorized, text).into());
        }
        Some(old) => batch.assert(Assert::KeyVersion(me.owner().clone(), key.clone(), old.version)),
        None => batch,
    };
    let batch = match log_as(&key, LogAs::Put) {
        LogAs::Nothing => batch.remove_unlogged(me.owner(), &key),
        LogAs::Put | LogAs::Meta => batch.remove(me.owner(), &key),
    };
    let batch = tell(call, batch, me.owner(), &key, Operation::Delete, None, Metadata::default())?;
    Plan::logged(batch, 0)
}

/// The activation secret; the mark keeps it from ever being made again.
fn forget_secret(call: &Call<'_>, me: &AtSign, key: &AtKey) -> Planned {
    let mark = AtKey::private_key("at_secret_deleted");
    let record = Record::new("true", Metadata::default(), call.now);
    let batch = Batch::new(call.now).remove_unlogged(me, key).put(me, &mark, record, LogAs::Nothing);
    Plan::logged(batch, 0)
}

fn is_immutable(record: &Record, now: Millis) -> bool {
    record.metadata.immutable == Some(true) && record.expires_at.is_none_or(|end| now < end)
}

fn check_kind(me: &AtSign, key: &AtKey) -> Result<(), ProtocolError> {
    let protected = match key.visibility() {
        _ if key.is_cached() => return Ok(()),
        Visibility::PrivateKey => key.name() != "at_secret",
        Visibility::Private | Visibility::Local => true,
        _ => is_managed(key) || PROTECTED.contains(&key.name()),
    };
    if let Some(owner) = key.owner().filter(|owner| *owner != me) {
        let text = format!("Invalid delete command - {owner} is not the current atsign {me}");
        return Err(ProtocolError::new(ErrorCode::InvalidKey, text));
    }
    if protected {
        let text = format!("Cannot delete protected key: '{key}'");
        return Err(ProtocolError::new(ErrorCode::Unauthorized, text));
    }
    Ok(())
}
