//! Where atSigns of other servers live: asked of the configured directories, remembered for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postern_net::tls::Trust;
use postern_proto::{AtSign, DirectoryAnswer, ServerAddress};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::PeerError;
use super::wire::PeerWire;
use crate::limits::{
    DIRECTORY_ANSWER, DIRECTORY_ENTRIES, DIRECTORY_ENTRY_LIFE, DIRECTORY_LINE_BYTES, DIRECTORY_MISS_LIFE,
    DIRECTORY_QUESTIONS,
};

/// Where a server is, and whether it may be dialled on a private network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: ServerAddress,
    /// The directory itself lives on a private network: so may those it knows.
    pub(super) private: bool,
}

/// The directories of others.
pub(super) struct Directory {
    servers: Vec<ServerAddress>,
    trust: Trust,
    book: Mutex<Book>,
    questions: Semaphore,
    memory: Arc<Semaphore>,
}

/// What was answered lately. Bounded: a full book forgets what is over, then everything.
#[derive(Default)]
struct Book(HashMap<AtSign, (Option<Place>, Instant)>);

impl Directory {
    pub(super) fn new(servers: Vec<ServerAddress>, trust: Trust, memory: Arc<Semaphore>) -> Self {
        let questions = Semaphore::new(DIRECTORY_QUESTIONS);
        Self { servers, trust, book: Mutex::default(), questions, memory }
    }

    /// Finds the server of `who`. Directories are asked in their order; the first that knows it counts.
    pub(super) async fn find(&self, who: &AtSign) -> Result<Place, PeerError> {
        if let Some(known) = self.book().find(who, Instant::now()) {
            return known.ok_or_else(|| PeerError::NotFound(who.clone()));
        }
        let _turn = self.questions.acquire().await; // never closed
        let mut failure = None;
        for server in &self.servers {
            match timeout(DIRECTORY_ANSWER, self.ask(server, who)).await {
                Ok(Ok(Some(place))) => {
                    self.book().note(who, Some(place.clone()), Instant::now());
                    return Ok(place);
                }
                Ok(Ok(None)) => {}
                Ok(Err(error)) => failure = Some(error),
                Err(_) => failure = Some(PeerError::TooSlow("the directory's answer")),
            }
        }
        match failure {
            // The one that failed may have known it: nothing to remember.
            Some(error) => {
                tracing::debug!(?error, "a directory failed");
                Err(error)
            }
            None => {
                self.book().note(who, None, Instant::now());
                Err(PeerError::NotFound(who.clone()))
            }
        }
    }

    /// What was known did not work out.
    pub(super) fn forget(&self, who: &AtSign) {
        self.book().0.remove(who);
    }

    async fn ask(&self, server: &ServerAddress, who: &AtSign) -> Result<Option<Place>, PeerError> {
        let mut wire = PeerWire::dial(&self.trust, server, true, &self.memory).await?;
        wire.set_limit(DIRECTORY_LINE_BYTES);
        wire.say(who.body()).await?;
        let answer = DirectoryAnswer::parse(&wire.line(DIRECTORY_ANSWER).await?);
        // The reference keeps a connection open for ever unless it is told.
        let _ = wire.say("@exit").await;
        match answer {
            Some(DirectoryAnswer::Found(address)) if address.port != 0 => {
                Ok(Some(Place { address, private: wire.is_private() }))
            }
            Some(DirectoryAnswer::Unknown) => Ok(None),
            _ => Err(PeerError::Nonsense),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn find(&self, who: &AtSign, now: Instant) -> Option<Option<Place>> {
        self.0.get(who).filter(|(_, until)| now < *until).map(|(place, _)| place.clone())
    }

    fn note(&mut self, who: &AtSign, place: Option<Place>, now: Instant) {
        if self.0.len() >= DIRECTORY_ENTRIES && !self.0.contains_key(who) {
            self.0.retain(|_, (_, until)| now < *until);
            if self.0.len() >= DIRECTORY_ENTRIES {
                self.0.clear();
            }
        }
        let life: Duration = if place.is_some() { DIRECTORY_ENTRY_LIFE } else { DIRECTORY_MISS_LIFE };
        self.0.insert(who.clone(), (place, now + life));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_for_a_while_and_in_bounds() {
        let mut book = Book::default();
        let now = Instant::now();
        let name = |n: usize| AtSign::parse(&format!("a{n}")).unwrap();
        let place = Place { address: "h:64".parse().unwrap(), private: false };
        book.note(&name(0), Some(place.clone()), now);
        book.note(&name(1), None, now);
        assert_eq!(book.find(&name(0), now), Some(Some(place)));
        assert_eq!(book.find(&name(1), now), Some(None));
        assert_eq!(book.find(&name(1), now + DIRECTORY_MISS_LIFE), None);
        assert_eq!(book.find(&name(0), now + DIRECTORY_ENTRY_LIFE), None);
        for n in 0..DIRECTORY_ENTRIES + 10 {
            book.note(&name(n), None, now);
            assert!(book.0.len() <= DIRECTORY_ENTRIES);
        }
    }
}
