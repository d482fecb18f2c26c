//! AtServers of other operators: finding them, speaking to them for our owners, believing those who come.
//!
//! | file | what |
//! |---|---|
//! | `directory`, `address` | where an atSign of others lives, and whether we dial that |
//! | `wire`, `links`, `claim` | connections on which we ask for an owner of ours |
//! | `outbox`, `lanes` | notifications on their way, kept in the store until they are taken |
//! | `verify` | who comes and says `pol` |
//! | `copies` | what is kept of their records |

mod address;
mod claim;
pub(crate) mod copies;
mod directory;
mod error;
mod lanes;
mod links;
mod outbox;
mod verify;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_net::tls::Trust;
use postern_proto::{AtSign, ServerAddress};
use postern_store::Store;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::accounts::Accounts;
use crate::hub::{House, HouseSeat, Hub};
use crate::limits::{LARGE_LINES_BYTES, OUTBOUND_TIDIED_EVERY, PEER_ASKS, PEER_LOOKUP, PEER_NOTIFY};
use crate::limits::{VISITORS, VISITORS_OF_ONE};
use crate::serve::Shared;

pub(crate) use error::PeerError;
pub(crate) use outbox::{keep_delivering, left_waiting};
pub(crate) use verify::Counted;

use directory::{Directory, Place};
use links::Links;
use outbox::Outbox;
use verify::{Counts, Strangers};
use wire::PeerWire;

/// How this server meets those of other operators.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Directories that know atSigns of others, asked in this order.
    pub directories: Vec<ServerAddress>,
    /// Whose certificates we believe, and what we show of ourselves.
    pub trust: Trust,
    /// What callers have to show.
    pub certificates: CertificateCheck,
    /// Dial private addresses even when a public directory names them.
    pub private_addresses: bool,
}

/// What a calling server has to show before it is believed whom it speaks for.
///
/// A signature alone does not say who received it: a hostile server that one of our peers calls could pass on our
/// challenge and then speak here in that peer's name. Its certificate gives it away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateCheck {
    /// The certificate of the host that the directory names. Source: the reference.
    #[default]
    Required,
    /// The same if it shows any. For peers behind something that ends TLS.
    IfShown,
    /// Nothing. For tests of other implementations.
    Ignored,
}

/// What a connection to another server is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Reading.
    Ask,
    /// Delivering notifications.
    Deliver,
}

impl Purpose {
    fn patience(self) -> Duration {
        match self {
            Self::Ask => PEER_LOOKUP,
            Self::Deliver => PEER_NOTIFY,
        }
    }
}

/// Everything that has to do with other servers.
pub(crate) struct Abroad {
    store: Arc<dyn Store>,
    accounts: Arc<Accounts>,
    trust: Trust,
    certificates: CertificateCheck,
    private_addresses: bool,
    directory: Directory,
    links: Links,
    memory: Arc<Semaphore>,
    strangers: Strangers,
    asks: Counts<AtSign>,
    outbox: Outbox,
    /// Where those sit who proved to speak for somebody elsewhere.
    visitors: Arc<House>,
    visits: Counts<AtSign>,
}

impl Abroad {
    pub(crate) fn new(peers: Peers, store: Arc<dyn Store>, accounts: Arc<Accounts>, quarantine: Duration) -> Self {
        let memory = Arc::new(Semaphore::new(LARGE_LINES_BYTES));
        Self {
            store,
            accounts,
            trust: peers.trust.clone(),
            certificates: peers.certificates,
            private_addresses: peers.private_addresses,
            directory: Directory::new(peers.directories, peers.trust, Arc::clone(&memory)),
            links: Links::new(),
            memory,
            strangers: Strangers::new(),
            asks: Counts::new(),
            outbox: Outbox::new(quarantine),
            visitors: Arc::default(),
            visits: Counts::new(),
        }
    }

    /// Where the server of `who` is, if it is not this one.
    async fn find(&self, who: &AtSign) -> Result<Place, PeerError> {
        let place = self.directory.find(who).await?;
        // We know best who lives here: an entry that leads back to us leads nowhere.
        if self.accounts.is_ours(&place.address) { Err(PeerError::NotFound(who.clone())) } else { Ok(place) }
    }

    async fn dial(&self, who: &AtSign, place: &Place) -> Result<PeerWire, PeerError> {
        let private = place.private || self.private_addresses;
        let wire = PeerWire::dial(&self.trust, &place.address, private, &self.memory).await;
        if wire.is_err() {
            self.directory.forget(who); // it may have moved
        }
        wire
    }

    /// One of the questions that an owner of ours may have under way.
    pub(crate) fn enter(&self, me: &AtSign) -> Result<Counted<AtSign>, PeerError> {
        self.asks.enter(me.clone(), PEER_ASKS).ok_or(PeerError::TooMany)
    }

    /// Connections to other servers that are open for `me`.
    pub(crate) fn connections_of(&self, me: &AtSign) -> usize {
        self.links.open_for(me)
    }

    /// A place for one more connection of another server.
    pub(crate) fn sit(&self, who: &AtSign) -> Option<(HouseSeat, Counted<AtSign>)> {
        let one_of_theirs = self.visits.enter(who.clone(), VISITORS_OF_ONE)?;
        Some((Hub::sit_in(&self.visitors, VISITORS)?, one_of_theirs))
    }
}

/// Closes connections that nobody uses.
pub(crate) async fn keep_tidy(shared: Arc<Shared>) {
    let Some(abroad) = &shared.abroad else { return };
    loop {
        tokio::time::sleep(OUTBOUND_TIDIED_EVERY).await;
        abroad.links.tidy(Instant::now());
    }
}
