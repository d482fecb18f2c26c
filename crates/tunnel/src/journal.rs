//! What the clients write down of their sealed sessions.

use std::time::Instant;

use postern_link::sealed::Sealed;
use postern_net::tasks::Tasks;
use postern_observe::journal::{Entry, Event, Journal};
use postern_proto::Uuid;

use crate::session::{Common, Wanted};

/// Name of the journal in the state directory.
const NAME: &str = "client";

/// Writes down that a session began, and what became of it when it is over.
pub(crate) fn follow(session: &Sealed, id: &Uuid, common: &Common, wanted: &Wanted, tasks: &Tasks) {
    let journal = Journal::standard(NAME);
    let entry = Entry {
        session: Some(id.to_string()),
        who: Some(common.to.to_string()),
        device: Some(format!("{}{}", common.device, common.to)),
        target: match wanted {
            Wanted::Ssh { .. } => Some("ssh".to_owned()),
            Wanted::Npt { .. } => None,
        },
        sealed: Some(true),
        ..Entry::of(Event::Began)
    };
    journal.record(entry.clone());
    let (session, began) = (session.clone(), Instant::now());
    drop(tasks.spawn(async move {
        let ended = session.ended().await;
        journal.record(Entry {
            event: Event::Ended,
            epoch: Some(session.progress().epoch),
            sent: Some(ended.carried.out),
            received: Some(ended.carried.back),
            seconds: Some(began.elapsed().as_secs()),
            why: Some(ended.why.to_string()),
            ..entry
        });
    }));
}
