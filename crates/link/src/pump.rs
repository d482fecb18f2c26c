//! Joining a local socket and a relay socket, encrypting on the way.

use std::cell::RefCell;
use std::io;

use postern_crypto::{CryptoError, CtrStream};
use postern_session::{DirectionKey, StreamKeys};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::limits::{FIRST_BUFFER, LARGEST_BUFFER, SPARE_BUFFERS};

/// What a pair of sockets carried, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// From the local socket to the relay.
    pub out: u64,
    /// From the relay to the local socket.
    pub back: u64,
}

/// The key streams of one relay socket; `None`: plain bytes.
#[derive(Default)]
pub struct Crypt {
    outbound: Option<CtrStream>,
    inbound: Option<CtrStream>,
}

impl Crypt {
    /// The client writes with `c2d`.
    pub fn of_client(keys: Option<&StreamKeys>) -> Result<Self, CryptoError> {
        Self::made(keys.map(|k| (&k.c2d, &k.d2c)))
    }

    /// The device writes with `d2c`.
    pub fn of_device(keys: Option<&StreamKeys>) -> Result<Self, CryptoError> {
        Self::made(keys.map(|k| (&k.d2c, &k.c2d)))
    }

    fn made(keys: Option<(&DirectionKey, &DirectionKey)>) -> Result<Self, CryptoError> {
        let Some((out, back)) = keys else { return Ok(Self::default()) };
        Ok(Self { outbound: Some(out.stream()?), inbound: Some(back.stream()?) })
    }

    /// Takes the streams apart: outbound, inbound.
    pub(crate) fn split(self) -> (Option<CtrStream>, Option<CtrStream>) {
        (self.outbound, self.inbound)
    }
}

/// Carries bytes both ways until both directions have ended, one has failed, or
/// `stop` is cancelled. A direction that ends is passed on as a half-close; the
/// other goes on. At most two buffers a direction are held, none while it is idle.
pub async fn pump(
    local: TcpStream,
    relay: TcpStream,
    crypt: Crypt,
    stop: &CancellationToken,
) -> (Carried, io::Result<()>) {
    carry(local, relay, crypt, stop, None).await
}

/// [`pump`] that tells `heard` of the first bytes from the relay, or of the relay's end.
pub(crate) async fn pump_telling(
    local: TcpStream,
    relay: TcpStream,
    crypt: Crypt,
    stop: &CancellationToken,
    heard: oneshot::Sender<()>,
) -> (Carried, io::Result<()>) {
    carry(local, relay, crypt, stop, Some(heard)).await
}

async fn carry(
    mut local: TcpStream,
    mut relay: TcpStream,
    crypt: Crypt,
    stop: &CancellationToken,
    heard: Option<oneshot::Sender<()>>,
) -> (Carried, io::Result<()>) {
    let mut carried = Carried::default();
    let (from_local, to_local) = local.split();
    let (from_relay, to_relay) = relay.split();
    let outcome = {
        let out = one_way(from_local, to_relay, crypt.outbound, &mut carried.out, None);
        let back = one_way(from_relay, to_local, crypt.inbound, &mut carried.back, heard);
        let both = async { tokio::try_join!(out, back).map(drop) };
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(io::ErrorKind::Interrupted.into()),
            done = both => done,
        }
    };
    (carried, outcome)
}

async fn one_way(
    from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut cipher: Option<CtrStream>,
    count: &mut u64,
    mut heard: Option<oneshot::Sender<()>>,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        if let Some(heard) = heard.take() {
            let _ = heard.send(());
        }
        let mut buffers = Buffers::take();
        loop {
            match from.try_read(&mut buffers.plain) {
                Ok(0) => {
                    to.shutdown().await?;
                    return Ok(());
                }
                Ok(n) => {
                    *count += n as u64;
                    let bytes = buffers.sealed(n, cipher.as_mut())?;
                    to.write_all(bytes).await?;
                    if n == buffers.plain.len() {
                        buffers.grow();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        buffers.give_back();
    }
}

/// A buffer to read into and one to encrypt into. Borrowed from the thread while
/// bytes flow, so that a thousand idle connections hold none.
struct Buffers {
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

thread_local! {
    static SPARE: RefCell<Vec<Buffers>> = const { RefCell::new(Vec::new()) };
}

impl Buffers {
    fn take() -> Self {
        SPARE
            .with_borrow_mut(Vec::pop)
            .unwrap_or_else(|| Self { plain: vec![0; FIRST_BUFFER], sealed: vec![0; FIRST_BUFFER + CtrStream::SLACK] })
    }

    fn sealed(&mut self, n: usize, cipher: Option<&mut CtrStream>) -> io::Result<&[u8]> {
        let plain = self.plain.get(..n).unwrap_or_default();
        match cipher {
            None => Ok(plain),
            Some(cipher) => cipher.apply(plain, &mut self.sealed).map(|b| &*b).map_err(io::Error::other),
        }
    }

    /// A full read: more is waiting. Doubles up to the largest size.
    fn grow(&mut self) {
        let size = (self.plain.len() * 2).min(LARGEST_BUFFER);
        if size > self.plain.len() {
            self.plain = vec![0; size];
            self.sealed = vec![0; size + CtrStream::SLACK];
        }
    }

    fn give_back(self) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_BUFFERS {
                spare.push(self);
            }
        });
    }
}
