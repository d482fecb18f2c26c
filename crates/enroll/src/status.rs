//! `at_activate status`: directory, atServer, public key.

use std::time::Duration;

use postern_client::{ClientError, Wire, find_server};
use postern_proto::verb::Lookup;
use postern_proto::{AtSign, Detail, ErrorCode, Request};
use tokio::time::timeout;

use crate::cli::Target;

/// What scripts read from the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Activated = 0,
    NoPublicKey = 1,
    ServerUnreachable = 2,
    NotInDirectory = 3,
    DirectoryUnreachable = 4,
}

/// Each step may take this long.
const STEP: Duration = Duration::from_secs(10);

/// The state and a sentence about it.
pub(crate) async fn run(target: Target) -> (Status, String) {
    let (settings, who) = (&target.settings, &target.at_sign);
    let address = match find_server(settings, who, STEP).await {
        Ok(address) => address,
        Err(error @ ClientError::NotInDirectory(..)) => return (Status::NotInDirectory, error.to_string()),
        Err(error) => return (Status::DirectoryUnreachable, error.to_string()),
    };
    let unreachable = |why: &dyn std::fmt::Display| {
        (Status::ServerUnreachable, format!("the atServer of {who} at {address} cannot be reached: {why}"))
    };
    let mut wire = match Wire::dial(settings, &address, STEP).await {
        Ok(wire) => wire,
        Err(error) => return unreachable(&error),
    };
    match timeout(STEP, wire.ask(&public_key_of(who))).await {
        Ok(Ok(key)) if key != "null" => (Status::Activated, format!("{who} is activated")),
        Ok(Ok(_)) => (Status::NoPublicKey, format!("{who} is not activated")),
        Ok(Err(ClientError::Server(error))) if error.code == Some(ErrorCode::KeyNotFound) => {
            (Status::NoPublicKey, format!("{who} is not activated"))
        }
        Ok(Err(error)) => unreachable(&error),
        Err(_) => unreachable(&"no answer in time"),
    }
}

/// An unauthenticated question for the published key.
pub(crate) fn public_key_of(who: &AtSign) -> Request {
    Request::Lookup(Lookup { bypass_cache: false, detail: Detail::Value, name: "publickey".into(), owner: who.clone() })
}
