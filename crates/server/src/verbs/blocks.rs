//! The block list: atSigns that a household wants nothing to do with.

use postern_proto::{AtKey, AtSign, ErrorCode, ProtocolError};
use postern_store::{Store, StoreError};
use serde_json::Value as Json;

use super::{Call, Refusal};

/// Where the list lies.
pub(super) fn key(household: &AtSign) -> AtKey {
    AtKey::private("blocklist", household)
}

/// Everybody on the list, in the order of their names.
pub(super) fn list(call: &Call<'_>, household: &AtSign) -> Result<Vec<AtSign>, StoreError> {
    stored(call.store, household)
}

fn stored(store: &dyn Store, household: &AtSign) -> Result<Vec<AtSign>, StoreError> {
    let Some(record) = store.get(household, &key(household))? else { return Ok(Vec::new()) };
    let corrupt = || StoreError::Corrupt("block list".into());
    let names: Vec<Json> = serde_json::from_str(&record.value).map_err(|_| corrupt())?;
    let read = |name: &Json| name.as_str().and_then(|name| AtSign::parse(name).ok()).ok_or_else(corrupt);
    names.iter().map(read).collect()
}

/// Whether `household` has blocked `who`.
pub(super) fn is_blocked(call: &Call<'_>, household: &AtSign, who: &AtSign) -> Result<bool, StoreError> {
    Ok(list(call, household)?.contains(who))
}

/// The same before there is a request: somebody claims to be `who` on the port of `household`.
///
/// # Errors
/// `AT0013`, or the store failed.
pub(crate) fn check_visitor(store: &dyn Store, household: &AtSign, who: &AtSign) -> Result<(), Refusal> {
    if stored(store, household)?.contains(who) { Err(refused().into()) } else { Ok(()) }
}

/// `AT0013`: what a blocked atSign is told, and no more.
pub(super) fn refused() -> ProtocolError {
    ProtocolError::new(ErrorCode::Connection, "Unable to connect")
}
