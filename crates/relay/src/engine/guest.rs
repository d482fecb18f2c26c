//! One socket of a session until it is joined: reads its line, waits, notices its death, hands itself over.

use std::io;
use std::mem;
use std::sync::Arc;

use postern_net::pump::{Carried, Pace};
use postern_net::seats::{Seat, SettledSeat};
use postern_net::tls::ServerTls;
use postern_proto::SigningKeyName;
use postern_rendezvous::{AuthFailure, Refusal, Side, SocketId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Live;
use super::proof::{self, Shown};
use super::socket::{self, Socket};
use super::ticket::farewell;

/// A socket, and what was read from it beyond its line.
pub(super) struct Guest {
    pub(super) socket: Socket,
    pub(super) leftover: Vec<u8>,
    seat: Place,
}

enum Place {
    Anonymous(Seat),
    Settled(#[expect(dead_code, reason = "held for its Drop")] SettledSeat),
}

/// What becomes of a guest. Its channel closed without a word: it is to leave.
pub(super) enum Fate {
    /// Hand your socket over, you are B.
    Give(oneshot::Sender<Guest>),
    /// Say this and leave.
    Refuse(Refusal),
    /// Take your partner's socket, you are A; join the two until the end.
    Receive { partner: oneshot::Receiver<Guest>, pair: Pair, stop: CancellationToken },
}

/// What a guest tells its session.
pub(super) enum News {
    Authenticated { side: Side, id: SocketId, number: Option<u32>, key: Option<(SigningKeyName, String)> },
    Failed { side: Side, id: SocketId, why: AuthFailure },
    Gone { side: Side, id: SocketId },
}

/// A guest that has proved itself at the port for all.
pub(super) struct Admitted {
    pub(super) guest: Guest,
    pub(super) side: Side,
    pub(super) number: Option<u32>,
    pub(super) key: (SigningKeyName, String),
}

/// A live pair. Its end is told when it is dropped, so that no way out can forget it.
pub(super) struct Pair {
    a: SocketId,
    pace: Option<Arc<Pace>>,
    carried: Carried,
    ended: mpsc::UnboundedSender<(SocketId, Carried)>,
}

impl Pair {
    pub(super) fn new(a: SocketId, pace: Option<Arc<Pace>>, ended: mpsc::UnboundedSender<(SocketId, Carried)>) -> Self {
        Self { a, pace, carried: Carried::default(), ended }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _nobody_counts_any_more = self.ended.send((self.a, self.carried));
    }
}

impl Guest {
    pub(super) fn new(socket: TcpStream, seat: Seat) -> Self {
        Self { socket: Socket::Plain(socket), leftover: Vec::new(), seat: Place::Anonymous(seat) }
    }

    /// The TLS handshake, before anything was read. The caller bounds the time.
    pub(super) async fn behind_tls(self, tls: &ServerTls) -> io::Result<Self> {
        let Socket::Plain(tcp) = self.socket else { return Ok(self) };
        let stream = tls.accept(tcp).await?;
        Ok(Self { socket: Socket::Tls(Box::new(stream)), ..self })
    }

    /// Moves from the strangers' seats to the others. None: there is no place.
    pub(super) fn settle(mut self) -> Option<Self> {
        self.seat = match self.seat {
            Place::Anonymous(seat) => Place::Settled(seat.settle()?),
            settled @ Place::Settled(_) => settled,
        };
        Some(self)
    }

    /// Cancelled when this socket is to make place for a newer one; never, once it has settled.
    pub(super) fn leave_token(&self) -> CancellationToken {
        match &self.seat {
            Place::Anonymous(seat) => seat.leave_token().clone(),
            Place::Settled(_) => CancellationToken::new(),
        }
    }
}

/// The task of one guest.
pub(super) struct Keeper {
    pub(super) side: Side,
    pub(super) id: SocketId,
    /// What it must prove; none if nothing.
    pub(super) prove: Option<Arc<Live>>,
    pub(super) news: mpsc::Sender<News>,
}

impl Keeper {
    pub(super) async fn keep(self, mut guest: Guest, mut fate: oneshot::Receiver<Fate>) {
        let (side, id) = (self.side, self.id);
        if let Some(live) = &self.prove {
            let leave = guest.leave_token();
            let shown = tokio::select! {
                biased; // the session's word wins
                _ = &mut fate => return, // only ever "leave": nobody is joined before he has proved himself
                () = leave.cancelled() => None,
                shown = proof::show(side, &mut guest, live) => shown,
            };
            let settled = match shown {
                Some(Ok(shown)) => guest.settle().map(|guest| (guest, shown)),
                Some(Err(why)) => return self.tell(News::Failed { side, id, why }).await,
                None => None,
            };
            let Some((settled, Shown { number, key })) = settled else {
                return self.tell(News::Gone { side, id }).await;
            };
            guest = settled;
            self.tell(News::Authenticated { side, id, number, key }).await;
        }
        let leave = guest.leave_token();
        let fate = tokio::select! {
            biased; // who is to be joined is not asked whether he has died
            fate = fate => fate,
            () = leave.cancelled() => return self.tell(News::Gone { side, id }).await,
            () = guest.socket.died(&mut guest.leftover) => return self.tell(News::Gone { side, id }).await,
        };
        match fate {
            Ok(Fate::Give(to)) => drop(to.send(guest)),
            Ok(Fate::Receive { partner, pair, stop }) => join(guest, partner, pair, stop).await,
            Ok(Fate::Refuse(refusal)) => farewell(guest, &refusal).await,
            Err(_closed) => {}
        }
    }

    /// Nobody hears it: the session is over, which is fine.
    async fn tell(&self, news: News) {
        drop(self.news.send(news).await);
    }
}

/// Joins two sockets: first what was read beyond their lines, then everything else, to the end.
async fn join(a: Guest, partner: oneshot::Receiver<Guest>, mut pair: Pair, stop: CancellationToken) {
    let Ok(b) = partner.await else { return }; // died at the last moment
    let (Some(a), Some(b)) = (a.settle(), b.settle()) else {
        return;
    };
    let outcome = {
        let (mut a, mut b) = (a, b);
        let (early_a, early_b) = (mem::take(&mut a.leftover), mem::take(&mut b.leftover));
        let early = async {
            b.socket.write_all(&early_a).await?;
            a.socket.write_all(&early_b).await?;
            b.socket.flush().await?;
            a.socket.flush().await
        };
        let early = tokio::select! {
            biased;
            () = stop.cancelled() => Err(io::ErrorKind::Interrupted.into()),
            early = early => early,
        };
        if early.is_ok() {
            let _seats = (a.seat, b.seat);
            let (carried, outcome) = socket::join(a.socket, b.socket, stop, pair.pace.as_deref()).await;
            pair.carried.a_to_b = carried.a_to_b + early_a.len() as u64;
            pair.carried.b_to_a = carried.b_to_a + early_b.len() as u64;
            outcome
        } else {
            early
        }
    };
    if let Err(error) = outcome {
        debug!(a = pair.a.0, %error, "pair broke");
    }
}
