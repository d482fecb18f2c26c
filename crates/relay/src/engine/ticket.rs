//! A guest with a ticket: its line is read, checked within a budget, and believed or refused.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use postern_client::trust::now_ms;
use postern_crypto::{RsaPublicKey, sha256};
use postern_identity::Voucher;
use postern_net::seats::Origin;
use postern_proto::AtSign;
use postern_rendezvous::{Refusal, RefusalCode, Side, Ticket, TicketClaim};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::debug;

use super::budget::Budget;
use super::guest::Guest;
use super::proof::read_line;
use super::{Shared, SigningKeys, Unknown};
use crate::limits::{
    FAREWELL, FAREWELL_BYTES, KEPT_VOUCHERS, KEY_AGE, KEY_FETCH, KEY_FETCHES, TICKET_COST, VOUCHER_COST,
};

/// Where the keys behind tickets come from.
pub trait TicketKeys: SigningKeys {
    /// The encryption key of an atSign.
    fn encryption_key<'a>(
        &'a self,
        of: &'a AtSign,
    ) -> Pin<Box<dyn Future<Output = Result<RsaPublicKey, Unknown>> + Send + 'a>>;
}

/// What a relay needs to take tickets.
#[derive(Clone)]
pub struct TicketSpec {
    /// The relay's own atSign: tickets name it.
    pub relay: AtSign,
    /// Whether this client is served.
    pub serves: Arc<dyn Fn(&AtSign) -> bool + Send + Sync>,
    /// Where keys come from.
    pub keys: Arc<dyn TicketKeys>,
}

/// Where tickets are shown.
pub(super) struct Desk {
    spec: TicketSpec,
    budget: Arc<Budget>,
    fetches: Semaphore,
    /// Vouchers that were believed, by the hash of their text, and since when.
    vouchers: Mutex<BTreeMap<[u8; 32], (Instant, Voucher)>>,
    hall: mpsc::Sender<Arrival>,
}

/// A guest whose ticket is believed, on its way to the hall.
pub(super) struct Arrival {
    pub(super) guest: Guest,
    pub(super) ticket: Ticket,
}

impl Desk {
    pub(super) fn new(spec: TicketSpec, budget: Arc<Budget>, hall: mpsc::Sender<Arrival>) -> Self {
        Self { spec, budget, fetches: Semaphore::new(KEY_FETCHES), vouchers: Mutex::default(), hall }
    }

    async fn look(self: &Arc<Self>, line: &[u8], from: Origin, shared: &Shared) -> Result<Ticket, Refusal> {
        self.pay(from, TICKET_COST)?;
        let claim = TicketClaim::parse(line)?;
        claim.check(&self.spec.relay, now_ms())?;
        if !(self.spec.serves)(&claim.to().client) {
            return Err(Refusal::new(RefusalCode::NotServed, "this relay does not serve the client's atSign"));
        }
        let voucher = self.voucher(&claim, from).await?;
        let ticket = claim.verify(&voucher, &self.spec.relay, now_ms())?;
        if ticket.to().side == Side::A {
            self.fetch_early(ticket.to().device.clone(), shared);
        }
        Ok(ticket)
    }

    /// The voucher of a claim: one that was believed already, or with keys that are fetched.
    async fn voucher(&self, claim: &TicketClaim, from: Origin) -> Result<Voucher, Refusal> {
        let hash = sha256(claim.voucher_text().as_bytes());
        let known = self.vouchers().get(&hash).filter(|(since, _)| since.elapsed() < KEY_AGE).cloned();
        if let Some((_, voucher)) = known {
            return Ok(voucher);
        }
        self.pay(from, VOUCHER_COST)?;
        let since = Instant::now();
        let fetched = timeout(KEY_FETCH, self.fetch(claim)).await;
        let (encryption, record) = fetched.unwrap_or_else(|_| Err(no_key("its atServer does not answer")))?;
        let voucher = claim.believe(&encryption, &record, now_ms())?;
        let mut vouchers = self.vouchers();
        if vouchers.len() >= KEPT_VOUCHERS {
            // By their hashes: which one goes is nobody's choice.
            drop(vouchers.pop_first());
        }
        vouchers.insert(hash, (since, voucher.clone()));
        Ok(voucher)
    }

    async fn fetch(&self, claim: &TicketClaim) -> Result<(RsaPublicKey, String), Refusal> {
        let _turn = self.fetches.acquire().await.map_err(|_| no_key("the relay is being stopped"))?;
        let (keys, owner) = (&self.spec.keys, claim.to().signer());
        let (encryption, record) = tokio::join!(keys.encryption_key(owner), keys.record(claim.enrollment()?));
        let encryption = encryption.map_err(|Unknown| no_key("the key of its atSign is not to be had"))?;
        match record {
            Ok(Some(record)) => Ok((encryption, record)),
            Ok(None) => Err(no_key("its enrolment publishes no key: it was revoked, or never was")),
            Err(Unknown) => Err(no_key("the key of its enrolment is not to be had")),
        }
    }

    /// The device that is about to come will be asked for this.
    fn fetch_early(self: &Arc<Self>, device: AtSign, shared: &Shared) {
        let desk = Arc::clone(self);
        shared.tasks.spawn(async move {
            if let Ok(_turn) = desk.fetches.try_acquire() {
                drop(timeout(KEY_FETCH, desk.spec.keys.encryption_key(&device)).await);
            }
        });
    }

    fn pay(&self, from: Origin, cost: u32) -> Result<(), Refusal> {
        if self.budget.spend(from, cost, Instant::now()) {
            return Ok(());
        }
        Err(Refusal::new(RefusalCode::Quota, "too many tickets from your address at once; try again in a second"))
    }

    fn vouchers(&self) -> std::sync::MutexGuard<'_, BTreeMap<[u8; 32], (Instant, Voucher)>> {
        self.vouchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a guest that seems to have a ticket into the hall, or says why not.
pub(super) async fn welcome(mut guest: Guest, peer: IpAddr, shared: &Shared) {
    let Some(desk) = shared.desk.get() else {
        let refusal = Refusal::new(RefusalCode::NotServed, "this relay takes no tickets");
        return refuse(guest, refusal, shared).await;
    };
    let shown = async {
        let line = match read_line(&mut guest).await? {
            Ok(line) => line,
            Err(_too_long) => return Some(Err(Refusal::new(RefusalCode::BadTicket, "the ticket does not end"))),
        };
        Some(desk.look(&line, Origin::of(peer), shared).await)
    };
    let shown = timeout(shared.limits.prove_within, shown).await;
    match shown.unwrap_or_else(|_| Some(Err(Refusal::new(RefusalCode::Expired, "the ticket took too long")))) {
        None => {} // died
        Some(Ok(ticket)) => match guest.settle() {
            Some(guest) => {
                debug!(to = ?ticket.to(), "guest with a ticket");
                drop(desk.hall.send(Arrival { guest, ticket }).await);
            }
            // No seat is left, not even one to say so from.
            None => drop(shared.counters.tickets_refused.fetch_add(1, Ordering::Relaxed)),
        },
        Some(Err(refusal)) => refuse(guest, refusal, shared).await,
    }
}

/// Tells a guest why it is sent away.
async fn refuse(guest: Guest, refusal: Refusal, shared: &Shared) {
    debug!(code = refusal.code.as_str(), text = refusal.text, "ticket refused");
    shared.counters.tickets_refused.fetch_add(1, Ordering::Relaxed);
    farewell(guest, &refusal).await;
}

/// Says why, ends our direction, and reads for a moment what still comes: a socket closed with bytes unread is reset,
/// and a reset takes the words along.
pub(super) async fn farewell(mut guest: Guest, refusal: &Refusal) {
    let words = async {
        guest.socket.write_all(refusal.line().as_bytes()).await?;
        guest.socket.shutdown().await?;
        let mut rest = (&mut guest.socket).take(FAREWELL_BYTES);
        tokio::io::copy_buf(&mut tokio::io::BufReader::with_capacity(1024, &mut rest), &mut tokio::io::sink()).await
    };
    drop(timeout(FAREWELL, words).await);
}

fn no_key(why: &str) -> Refusal {
    Refusal::new(RefusalCode::UnknownKey, format!("the voucher cannot be checked: {why}"))
}
