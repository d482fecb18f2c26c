//! Where relays take tickets: their public records, and the file of those that were seen last time.
//!
//! Nothing in either is believed: who answers there is shown by the device's reply.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use postern_client::Client;
use postern_proto::verb::Lookup;
use postern_proto::{AtSign, Detail, Request, ServerAddress};
use postern_rendezvous::{RelayAddress, RelayPlace, RelayRecord};
use postern_session::limits::OFFERED_RELAYS;

use super::near::nearest_first;
use crate::host_keys::{make_private_dir, write_whole};
use crate::hosts::xdg;
use crate::limits::{RELAY_BOOK, RELAY_BOOK_BYTES};
use crate::session::Common;
use crate::steps::Steps;

/// The places to meet at, those of the nearest relay first. Relays that are remembered do not wait for others to be looked up.
pub(super) async fn find(common: &Common, client: &Client, steps: &Steps) -> Vec<RelayPlace> {
    let book = RelayBook::usual();
    let remembered = |relay: &AtSign| book.as_ref()?.find(&common.root, relay);
    let mut records: Vec<(AtSign, RelayRecord)> =
        common.relays.iter().filter_map(|relay| Some((relay.clone(), remembered(relay)?))).collect();
    if records.is_empty() {
        let looking = refresh(&common.relays, client, &common.root);
        records = steps.follow("relay's address", 1, 1, looking).await;
    }
    if records.len() > 1 {
        records = steps.follow("nearest relay", 1, 1, nearest_first(records)).await;
    }
    // One address of each, then the further ones: another relay is more likely to work than another port of the same.
    let longest = records.iter().map(|(_, record)| record.addresses().len()).max().unwrap_or_default();
    let mut places = Vec::new();
    for n in 0..longest {
        places.extend(records.iter().filter_map(|(relay, record)| {
            let address = record.addresses().get(n)?.clone();
            Some(RelayPlace { relay: relay.clone(), address })
        }));
    }
    places.truncate(OFFERED_RELAYS);
    places
}

/// Looks the records up, and remembers them. Relays without one are left out.
pub(super) async fn refresh(relays: &[AtSign], client: &Client, root: &ServerAddress) -> Vec<(AtSign, RelayRecord)> {
    let book = RelayBook::usual();
    let mut found = Vec::new();
    for relay in relays {
        let name = RelayAddress::RECORD.to_owned();
        let lookup = Lookup { bypass_cache: true, detail: Detail::Value, name, owner: relay.clone() };
        let record = match client.request(Request::Plookup(lookup)).await {
            Ok(text) => RelayRecord::parse(&text).filter(|record| !record.addresses().is_empty()),
            Err(error) => {
                tracing::debug!(%relay, %error, "no record of where it takes tickets");
                if !error.is_no_such_key() {
                    continue;
                }
                None
            }
        };
        match (&book, &record) {
            (Some(book), Some(record)) => book.remember(root, relay, record),
            (Some(book), None) => book.forget(root, relay),
            (None, _) => {}
        }
        found.extend(record.map(|record| (relay.clone(), record)));
    }
    found
}

/// A file of relays, one a line: directory, atSign, record.
pub(super) struct RelayBook(PathBuf);

impl RelayBook {
    /// `$XDG_CACHE_HOME/postern/relays`, by default below `~/.cache`.
    pub(super) fn usual() -> Option<Self> {
        let file = xdg("XDG_CACHE_HOME", ".cache").join("relays");
        file.is_absolute().then_some(Self(file))
    }

    fn find(&self, root: &ServerAddress, relay: &AtSign) -> Option<RelayRecord> {
        let about = about(root, relay);
        self.lines().iter().find_map(|line| RelayRecord::parse(line.strip_prefix(&about)?))
    }

    fn remember(&self, root: &ServerAddress, relay: &AtSign, record: &RelayRecord) {
        self.change(root, relay, Some(record));
    }

    pub(super) fn forget(&self, root: &ServerAddress, relay: &AtSign) {
        self.change(root, relay, None);
    }

    /// What cannot be written costs a round trip next time.
    fn change(&self, root: &ServerAddress, relay: &AtSign, record: Option<&RelayRecord>) {
        let (about, lines) = (about(root, relay), self.lines());
        let fresh = record.map(|record| format!("{about}{}", record.print()));
        if lines.iter().filter(|line| line.starts_with(&about)).eq(fresh.iter()) {
            return;
        }
        // The newest first, so that a full file loses its oldest.
        let kept = lines.into_iter().filter(|line| !line.starts_with(&about));
        let text: String = fresh.into_iter().chain(kept).take(RELAY_BOOK).map(|line| line + "\n").collect();
        let folder = self.0.parent().map(make_private_dir);
        if let Err(error) = folder.unwrap_or(Ok(())).and_then(|()| write_whole(&self.0, &text)) {
            tracing::debug!(%error, "addresses of relays are not remembered");
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut text = String::new();
        let read = fs::File::open(&self.0).and_then(|file| file.take(RELAY_BOOK_BYTES).read_to_string(&mut text));
        if read.is_ok() { text.lines().map(str::to_owned).collect() } else { Vec::new() }
    }
}

fn about(root: &ServerAddress, relay: &AtSign) -> String {
    format!("{root} {relay} ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_was_seen_is_found_until_it_has_moved() {
        let dir = tempfile::tempdir().unwrap();
        let book = RelayBook(dir.path().join("postern").join("relays"));
        let (root, other): (ServerAddress, ServerAddress) =
            ("root.example:64".parse().unwrap(), "other.example:64".parse().unwrap());
        let (relay, second) = (AtSign::parse("@relay").unwrap(), AtSign::parse("@relay2").unwrap());
        let record = |port| RelayRecord::new(vec![RelayAddress::new("relay.example", port, false).unwrap()]);
        assert_eq!(book.find(&root, &relay), None);
        book.remember(&root, &relay, &record(443));
        book.remember(&root, &second, &record(8443));
        assert_eq!(book.find(&root, &relay), Some(record(443)));
        assert_eq!(book.find(&other, &relay), None, "another directory knows another @relay");
        book.remember(&root, &relay, &record(4443));
        assert_eq!(book.find(&root, &relay), Some(record(4443)));
        book.forget(&root, &relay);
        assert_eq!((book.find(&root, &relay), book.find(&root, &second)), (None, Some(record(8443))));
        fs::write(&book.0, "root.example:64 @relay {\"v\":1\nnonsense\n").unwrap();
        assert_eq!(book.find(&root, &relay), None);
    }
}
