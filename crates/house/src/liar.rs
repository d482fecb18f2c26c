//! A relay whose operator is hostile: it joins by tickets, changes what it carries as it is told, and remembers all of it.
//! And keys that a hostile server shows as somebody else's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use postern_client::{Client, Identity, KeyFile, RecordOptions, Settings, parse_root};
use postern_crypto::RsaPrivateKey;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::AtSign;
use postern_rendezvous::{RelayAddress, RelayRecord, Side, TicketClaim};
use postern_testkit::World;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// What a lying relay does to the next meetings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    /// Nothing: it only reads.
    #[default]
    Nothing,
    /// Flips a bit of this byte on its way to this side.
    Flip(Side, usize),
    /// Ends the connection after so many bytes to this side.
    Cut(Side, usize),
    /// Joins two sessions crosswise.
    Cross,
    /// Says to the client what the device of the last session said, from its first byte.
    Replay,
}

/// The relay of a hostile operator, on loopback, published as that of an atSign.
pub struct LyingRelay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lie: Mutex<Lie>,
    /// Meetings that are still to be lied to; `None`: all.
    times: Mutex<Option<usize>>,
    waiting: Mutex<HashMap<String, (Side, TcpStream)>>,
    /// Pairs that wait to be crossed: a, b.
    pairs: Mutex<Vec<(TcpStream, TcpStream)>>,
    seen: Mutex<Seen>,
}

/// What went through a lying relay.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Bytes of clients behind their tickets.
    pub from_clients: Vec<u8>,
    /// The same of devices.
    pub from_devices: Vec<u8>,
    /// What the device of the last meeting said.
    pub last_device: Vec<u8>,
    /// Tickets shown.
    pub guests: usize,
}

impl LyingRelay {
    /// Starts one and publishes it as the relay of `at_sign`, which the house knows.
    ///
    /// # Errors
    /// There is no port, or the record is refused.
    pub async fn start(world: &World, at_sign: &str, tasks: &Tasks) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let relay = Self { address: listener.local_addr()?, shared: Arc::default() };
        let (shared, inner) = (Arc::clone(&relay.shared), tasks.clone());
        drop(tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (shared, tasks) = (Arc::clone(&shared), inner.clone());
                drop(inner.spawn(async move { shared.guest(socket, &tasks).await }));
            }
        }));
        let address = RelayAddress::new(&relay.address.ip().to_string(), relay.address.port(), false);
        let record = RelayRecord::new(vec![address.map_err(|error| anyhow!("{error}"))?]).print();
        let client = log_in(world, at_sign, tasks).await?;
        client.put_public(RelayAddress::RECORD, &record, RecordOptions::default()).await?;
        Ok(relay)
    }

    /// What it does to the meetings from now on; `times`: to so many of them, and then nothing.
    pub fn lie(&self, lie: Lie, times: Option<usize>) {
        let mut seen = lock(&self.shared.seen);
        *seen = Seen { last_device: std::mem::take(&mut seen.last_device), ..Seen::default() };
        drop(seen);
        (*lock(&self.shared.lie), *lock(&self.shared.times)) = (lie, times);
    }

    /// What went through it since the last [`Self::lie`].
    pub fn seen(&self) -> Seen {
        lock(&self.shared.seen).clone()
    }
}

impl Shared {
    async fn guest(self: Arc<Self>, socket: TcpStream, tasks: &Tasks) {
        let mut line = String::new();
        let mut reader = BufReader::with_capacity(1, socket);
        let Ok(1..) = reader.read_line(&mut line).await else { return };
        let Ok(claim) = TicketClaim::parse(line.as_bytes()) else { return };
        let (to, socket) = (claim.to(), reader.into_inner());
        lock(&self.seen).guests += 1;
        let meeting = format!("{} {}", to.session, to.epoch);
        let other = lock(&self.waiting).remove(&meeting);
        let (a, b) = match other {
            Some((Side::B, other)) if to.side == Side::A => (socket, other),
            Some((Side::A, other)) if to.side == Side::B => (other, socket),
            _ => {
                lock(&self.waiting).insert(meeting, (to.side, socket));
                return;
            }
        };
        let lie = self.next_lie();
        if lie != Lie::Cross {
            return self.join(a, b, lie, tasks);
        }
        let waits = lock(&self.pairs).pop();
        match waits {
            None => lock(&self.pairs).push((a, b)),
            Some((other_a, other_b)) => {
                self.join(a, other_b, Lie::Nothing, tasks);
                self.join(other_a, b, Lie::Nothing, tasks);
            }
        }
    }

    fn next_lie(&self) -> Lie {
        let mut times = lock(&self.times);
        match &mut *times {
            Some(0) => Lie::Nothing,
            Some(left) => {
                *left -= 1;
                *lock(&self.lie)
            }
            None => *lock(&self.lie),
        }
    }

    fn join(self: &Arc<Self>, a: TcpStream, b: TcpStream, lie: Lie, tasks: &Tasks) {
        let ((from_a, to_a), (from_b, to_b)) = (a.into_split(), b.into_split());
        let recorded = std::mem::take(&mut lock(&self.seen).last_device);
        let replay = (lie == Lie::Replay).then_some(recorded);
        for (side, from, to, replay) in [(Side::A, from_b, to_a, replay), (Side::B, from_a, to_b, None)] {
            let shared = Arc::clone(self);
            drop(tasks.spawn(async move { shared.carry(side, from, to, lie, replay).await }));
        }
    }

    /// Carries bytes to one side until somebody ends it. `replay`: says this in place of what comes.
    async fn carry(
        &self,
        side: Side,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        lie: Lie,
        replay: Option<Vec<u8>>,
    ) {
        if let Some(replay) = &replay
            && to.write_all(replay).await.is_err()
        {
            return;
        }
        let (mut buffer, mut done) = (vec![0; 16 * 1024], 0);
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let mut bytes = buffer.get(..n).unwrap_or_default().to_vec();
            self.remember(side, &bytes);
            if replay.is_some() {
                continue;
            }
            let mut end = false;
            match lie {
                Lie::Flip(whose, at) if whose == side => {
                    if let Some(byte) = at.checked_sub(done).and_then(|at| bytes.get_mut(at)) {
                        *byte ^= 0x10;
                    }
                }
                Lie::Cut(whose, at) if whose == side && done + n >= at => {
                    bytes.truncate(at.saturating_sub(done));
                    end = true;
                }
                _ => {}
            }
            done += n;
            if to.write_all(&bytes).await.is_err() || end {
                break;
            }
        }
        let _ = to.shutdown().await;
    }

    fn remember(&self, to: Side, bytes: &[u8]) {
        let mut seen = lock(&self.seen);
        match to {
            Side::A => {
                seen.from_devices.extend_from_slice(bytes);
                seen.last_device.extend_from_slice(bytes);
            }
            Side::B => seen.from_clients.extend_from_slice(bytes),
        }
    }
}

/// Logs in with the keys that lie in the house.
///
/// # Errors
/// The server does not let it in.
pub async fn log_in(world: &World, at_sign: &str, tasks: &Tasks) -> anyhow::Result<Client> {
    let keys = KeyFile::load(&world.key_file(at_sign)).ok().context("no keys")?;
    let identity = Identity { at_sign: AtSign::parse(at_sign)?, keys: Arc::new(keys) };
    let settings = Settings {
        root: parse_root(&world.root())?,
        trust: Trust::only_pem(&std::fs::read(world.ca_file())?).ok().context("no trust")?,
        heartbeat: Duration::from_secs(60),
        monitor: None,
    };
    Ok(Client::connect(identity, settings, tasks).await?.0)
}

/// What a hostile server can do to an atSign: it lets somebody in under its name, and shows that one's encryption key as its
/// public key. Returns that one's key file.
///
/// # Errors
/// The house does not let us.
pub async fn take_over(world: &World, at_sign: &str, tasks: &Tasks) -> anyhow::Result<PathBuf> {
    let client = log_in(world, at_sign, tasks).await?;
    let mut keys = KeyFile::load(&world.key_file(at_sign)).ok().context("no keys")?;
    keys.encryption = RsaPrivateKey::generate().ok().context("no randomness")?;
    keys.encryption_public = keys.encryption.public_key().ok().context("no public half")?;
    let shown = keys.encryption_public.to_base64();
    client.put_public("publickey", &shown, RecordOptions::default()).await?;
    let file = world.dir().join(format!("taken-over-{at_sign}.atKeys"));
    let text = keys.print(at_sign).ok().context("no key file")?;
    KeyFile::create(&file, &text).ok().context("no room for the keys")?;
    Ok(file)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
