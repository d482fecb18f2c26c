//! Another machine with our keys: the copy of an SD card.
//!
//! Each daemon writes into one record of its own atSign who runs now. One that finds another's name there, though it has
//! written its own, is not alone. Several instances of one device are allowed, and share the work; so nothing is stopped:
//! it is said in both logs, in what clients are told, and by the doctor.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use postern_client::trust::now_ms;
use postern_client::{ClientError, RecordOptions};
use postern_session::NAMESPACE;
use serde::{Deserialize, Serialize};

use crate::daemon::Daemon;
use crate::limits::{TWIN_BYTES, TWIN_CHECK, TWIN_PAUSE, TWIN_WON};

/// Changes when the machine starts; the copy of a card has another one than its model.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Who runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    v: u32,
    /// Drawn when the daemon starts.
    run: String,
    /// Of the machine's start; empty where it cannot be told.
    boot: String,
    /// Milliseconds since 1970, by that machine's clock.
    since: u64,
}

/// What a look at the record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// We are alone, as far as can be seen.
    Alone,
    /// Somebody else was there before us, and may be gone.
    Before,
    /// Another daemon of this machine.
    Beside,
    /// Another machine.
    Elsewhere,
}

/// What we know of others with our keys.
pub(crate) struct Twins {
    own: Run,
    /// Our name stands in the record, or did.
    written: AtomicBool,
    found: AtomicBool,
    /// Another daemon of this machine was seen.
    beside: AtomicBool,
    bell: tokio::sync::Notify,
    /// When a request last made us look.
    looked: Mutex<Option<Instant>>,
}

impl Twins {
    pub(crate) fn new() -> Self {
        let run: [u8; 8] = postern_crypto::random();
        let boot = fs::read_to_string(BOOT).unwrap_or_default().trim().to_owned();
        let own = Run { v: 1, run: format!("{:016x}", u64::from_be_bytes(run)), boot, since: now_ms() };
        let no = || AtomicBool::new(false);
        Self {
            own,
            written: no(),
            found: no(),
            beside: no(),
            bell: tokio::sync::Notify::new(),
            looked: Mutex::new(None),
        }
    }

    /// Another machine was seen to run with our keys.
    pub(crate) fn found(&self) -> bool {
        self.found.load(Ordering::Relaxed)
    }

    /// Looks now.
    pub(crate) fn look(&self) {
        self.bell.notify_one();
    }

    /// A request was taken by us, or by another instance: who is that? Whoever wins has less reason to look.
    pub(crate) fn took(&self, ours: bool) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if !ours || looked.is_none_or(|looked| looked.elapsed() >= TWIN_WON) {
            *looked = Some(Instant::now());
            self.look();
        }
    }

    fn judge(&self, there: Option<&Run>) -> Told {
        match there {
            None => Told::Alone,
            Some(there) if there.run == self.own.run => Told::Alone,
            Some(_) if !self.written.load(Ordering::Relaxed) => Told::Before,
            Some(there) if there.boot == self.own.boot => Told::Beside,
            Some(_) => Told::Elsewhere,
        }
    }
}

impl Daemon {
    /// Looks who else runs: at the start, when requests are taken, at SIGHUP, and a few times a day.
    pub(crate) async fn watch_twins(self: Arc<Self>) {
        loop {
            if let Err(error) = self.look_for_twins().await {
                tracing::debug!(%error, "could not look for other daemons with our keys");
            }
            tokio::select! {
                () = self.tasks.token().cancelled() => return,
                // What others are about to write comes first, and more requests make no more looks.
                () = self.twins.bell.notified() => tokio::time::sleep(TWIN_PAUSE).await,
                () = tokio::time::sleep(TWIN_CHECK) => {}
            }
        }
    }

    async fn look_for_twins(&self) -> Result<(), ClientError> {
        let name = format!("here.{}.{NAMESPACE}", self.config.device);
        let there: Option<Run> = match self.client.get_own(&name).await {
            Ok(text) if text.len() <= TWIN_BYTES => serde_json::from_str(&text).ok(),
            Ok(_) => None,
            Err(error) if error.is_no_such_key() => None,
            Err(error) => return Err(error),
        };
        let told = self.twins.judge(there.as_ref());
        if told == Told::Elsewhere && !self.twins.found.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                device = %self.config.device,
                "another machine runs with the keys of this device: is its disk or SD card a copy? Sessions may end on either. Give it keys of its own: at_activate enroll, or postern join, and another device name"
            );
            // Clients are told.
            self.news.notify_one();
        }
        if told == Told::Beside && !self.twins.beside.swap(true, Ordering::Relaxed) {
            tracing::info!(device = %self.config.device, "another daemon of this machine serves this device as well");
        }
        let is_ours = there.is_some_and(|there| there.run == self.twins.own.run);
        if !is_ours {
            let text = serde_json::to_string(&self.twins.own).unwrap_or_default();
            self.client.put_own(&name, &text, RecordOptions::default()).await?;
        }
        self.twins.written.store(true, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_writes_over_us_is_a_twin() {
        let twins = Twins::new();
        let own = twins.own.clone();
        let before = Run { run: "before".into(), ..own.clone() };
        let elsewhere = Run { run: "else".into(), boot: "another".into(), ..own.clone() };
        assert_eq!(twins.judge(None), Told::Alone);
        // We were started again: whoever stands there may be our former self.
        assert_eq!(twins.judge(Some(&before)), Told::Before);
        assert_eq!(twins.judge(Some(&elsewhere)), Told::Before);
        twins.written.store(true, Ordering::Relaxed);
        assert_eq!(twins.judge(Some(&own)), Told::Alone);
        assert_eq!(twins.judge(Some(&before)), Told::Beside);
        assert_eq!(twins.judge(Some(&elsewhere)), Told::Elsewhere);
    }
}
