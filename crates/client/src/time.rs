//! Asking our atServer what time it is: it knows us, and its certificate was checked.

use std::time::{Duration, Instant};

use postern_net::clock::{self, Standing};
use postern_proto::verb::{Info, Llookup};
use postern_proto::{AtKey, Detail, Request, parse_wire_date};
use serde_json::Value as Json;

use crate::error::ClientError;
use crate::handle::Client;
use crate::limits::TIME_TRIP;
use crate::records::RecordOptions;

/// Life of the record by which a server of another make tells the time.
const RECORD_LIFE: Duration = Duration::from_secs(60);

impl Client {
    /// Asks what time it is and tells [`clock`]. A Postern says so itself; of another server the date of a record is
    /// taken that is written for it, under `name` (with namespace), and vanishes after a minute.
    ///
    /// # Errors
    /// No answer, one that took too long to be worth anything, or one without a time.
    pub async fn ask_time(&self, name: &str) -> Result<Standing, ClientError> {
        let asked = Instant::now();
        let text = self.request(Request::Info(Info { brief: true })).await?;
        if let Some(time) = json(&text).and_then(|json| json.get("currentTimeAsMillis")?.as_u64()) {
            return heard(time, asked);
        }
        let asked = Instant::now();
        self.put_own(name, "?", RecordOptions { life: Some(RECORD_LIFE), ..RecordOptions::default() }).await?;
        let key = AtKey::own(name, self.at_sign());
        let text = self.request(Request::Llookup(Llookup { detail: Detail::Meta, key })).await?;
        let date = json(&text).and_then(|json| parse_wire_date(json.get("updatedAt")?.as_str()?));
        let date = date.and_then(|date| u64::try_from(date).ok());
        heard(date.ok_or(ClientError::Malformed("the date of a record"))?, asked)
    }
}

fn heard(time: u64, asked: Instant) -> Result<Standing, ClientError> {
    let trip = asked.elapsed();
    if trip > TIME_TRIP {
        return Err(ClientError::TimedOut("the time"));
    }
    // It was said in the middle of the round trip, give or take.
    let half = u64::try_from(trip.as_millis() / 2).unwrap_or_default();
    Ok(clock::hear(time.saturating_add(half)))
}

fn json(text: &str) -> Option<Json> {
    serde_json::from_str(text).ok()
}
