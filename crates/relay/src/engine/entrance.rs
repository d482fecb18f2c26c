//! The port for all: a guest says by its first bytes what it is. A ticket says everything itself; who says nothing is
//! asked, and says by its proof which session it belongs to, and on which side.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use postern_net::seats::Origin;
use postern_net::tcp;
use postern_rendezvous::{AuthFailure, EscrLine, Proven, TicketClaim};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::guest::{Admitted, Guest};
use super::{Live, Shared, proof, ticket};
use crate::limits::{ACCEPT_PAUSE, TLS_COST};

/// The first byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// Accepts until the relay stops. Guests stand on the same seats as those of sessions with ports of their own.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let stop = shared.tasks.token().clone();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "accept failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(seat) = shared.seats.take(peer.ip()) else { continue };
        if tcp::tune(&socket).is_err() {
            continue; // already gone
        }
        debug!(%peer, "guest at the port for all");
        let (guest, shared, stop) = (Guest::new(socket, seat), Arc::clone(&shared), stop.clone());
        shared.tasks.clone().spawn(async move {
            let leave = guest.leave_token();
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = leave.cancelled() => {}
                () = welcome(guest, peer.ip(), &shared) => {}
            }
        });
    }
}

/// Accepts and closes: the round trip is all that is wanted.
pub(super) async fn knocks(listener: TcpListener, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        if accepted.is_err() {
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

async fn welcome(guest: Guest, peer: IpAddr, shared: &Shared) {
    let mut first = [0];
    match timeout(shared.limits.detect_window, guest.socket.tcp().peek(&mut first)).await {
        Ok(Ok(0) | Err(_)) => {} // died
        Ok(Ok(_)) if TicketClaim::begins(first[0]) => ticket::welcome(guest, peer, shared).await,
        Ok(Ok(_)) if first[0] == TLS_HANDSHAKE => {
            // The handshake is large, and most guests have none.
            Box::pin(behind_tls(guest, peer, shared)).await;
        }
        Ok(Ok(_)) | Err(_) => challenge(guest, shared).await,
    }
}

/// Behind TLS there are tickets only: programs of others know no TLS here.
async fn behind_tls(guest: Guest, peer: IpAddr, shared: &Shared) {
    let Some(tls) = shared.tls() else { return challenge(guest, shared).await };
    if !shared.budget.spend(Origin::of(peer), TLS_COST, Instant::now()) {
        return debug!(%peer, "too many TLS handshakes from this address");
    }
    match timeout(shared.limits.prove_within, guest.behind_tls(&tls)).await {
        Ok(Ok(guest)) => ticket::welcome(guest, peer, shared).await,
        Ok(Err(error)) => debug!(%error, "no TLS handshake"),
        Err(_) => debug!("a TLS handshake that does not end"),
    }
}

async fn challenge(mut guest: Guest, shared: &Shared) {
    match timeout(shared.limits.prove_within, enter(&mut guest, shared)).await {
        Ok(Some(Ok((live, proven, record)))) => {
            let Some(guest) = guest.settle() else { return };
            let (side, number) = (proven.side(), proven.number());
            let admitted = Admitted { guest, side, number, key: (proven.key().clone(), record) };
            // Should the session have ended meanwhile, so has the guest.
            drop(live.admissions.send(admitted).await);
        }
        Ok(None) => {} // died
        refused => {
            let why = refused.ok().flatten().and_then(Result::err);
            debug!(?why, "guest not let in");
            shared.counters.not_authenticated.fetch_add(1, Ordering::Relaxed);
            proof::refuse(&guest);
        }
    }
}

/// Asks, and finds the session that the answer speaks of. None: the socket died.
async fn enter(guest: &mut Guest, shared: &Shared) -> Option<Result<(Arc<Live>, Proven, String), AuthFailure>> {
    let (challenge, line) = match proof::ask(guest).await? {
        Ok(asked) => asked,
        Err(why) => return Some(Err(why)),
    };
    let found = async {
        let line = EscrLine::parse(&line)?;
        let live = shared.live(line.session_id()).filter(|live| live.spec.single_port);
        let live = live.ok_or(AuthFailure::OtherSession)?;
        let escr = live.spec.escr.as_ref().ok_or(AuthFailure::OtherSession)?;
        let claim = line.open(&escr.key, &challenge, &escr.parties, None)?;
        let (proven, record) = proof::verify(claim, escr).await?;
        Ok((Arc::clone(&live), proven, record))
    };
    let found = found.await;
    if found.is_ok() {
        proof::accept(guest).await?;
    }
    Some(found)
}
