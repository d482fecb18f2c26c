//! The physical floor the product is held against: two blocking ends that
//! seal and open AES-256-GCM (or ChaCha20-Poly1305) in large records, and a relay between them that
//! splices. No handshake, no multiplexing, no flow control of its own.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use anyhow::Context;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use rustix::pipe::SpliceFlags;
use tokio_util::sync::CancellationToken;

use crate::limits::{COPY_BUFFER, FLOOR_RECORD, RELAY_PIPE};
use crate::table::say;

const HEADER: usize = 4;
const TAG: usize = 16;
const KEY: usize = 32;

/// The sealing end at the client.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// Where local programs connect
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    #[arg(long)]
    relay: SocketAddr,
    /// File of 32 bytes that both ends share
    #[arg(long)]
    key: PathBuf,
    #[arg(long, default_value = "aes")]
    cipher: Cipher,
}

/// With what the ends seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cipher {
    /// AES-256-GCM
    Aes,
    /// ChaCha20-Poly1305
    Chacha,
}

impl Cipher {
    /// As the option names it.
    pub(crate) fn name(self) -> &'static str {
        if self == Self::Aes { "aes" } else { "chacha" }
    }

    fn algorithm(self) -> &'static Algorithm {
        if self == Self::Aes { &AES_256_GCM } else { &CHACHA20_POLY1305 }
    }
}

/// The relay between.
#[derive(Debug, clap::Args)]
pub(crate) struct RelayArgs {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Copy through a 64 KiB buffer in place of splicing
    #[arg(long, conflicts_with = "pump")]
    copy64: bool,
    /// Let the product's pump join the connections, on its runtime
    #[arg(long)]
    pump: bool,
    /// What says which side somebody is goes on to the end of its line
    #[arg(long)]
    lines: bool,
    /// Nobody waits: join each connection with a new one to there
    #[arg(long)]
    to: Option<SocketAddr>,
}

/// The opening end at the device.
#[derive(Debug, clap::Args)]
pub(crate) struct DeviceArgs {
    #[arg(long)]
    relay: SocketAddr,
    /// The service that is reached
    #[arg(long)]
    target: SocketAddr,
    /// File of 32 bytes that both ends share
    #[arg(long)]
    key: PathBuf,
    #[arg(long, default_value = "aes")]
    cipher: Cipher,
}

/// Accepts local connections and seals each to the relay.
pub(crate) fn client(args: &ClientArgs) -> anyhow::Result<()> {
    let secret = read_key(&args.key)?;
    let listener = TcpListener::bind(args.listen)?;
    say(&format!("listening {}", listener.local_addr()?));
    for local in listener.incoming() {
        let local = local?;
        let mut relay = TcpStream::connect(args.relay)?;
        relay.set_nodelay(true)?;
        let mut salt = [0; KEY];
        aws_lc_rs::rand::fill(&mut salt).context("no randomness")?;
        let mut hello = vec![b'C'];
        hello.extend_from_slice(&salt);
        relay.write_all(&hello)?;
        join(local, relay, Keys::derive(&secret, &salt, args.cipher)?)?;
    }
    Ok(())
}

/// Keeps one connection waiting at the relay; each that wakes is opened to the target.
pub(crate) fn device(args: &DeviceArgs) -> anyhow::Result<()> {
    let secret = read_key(&args.key)?;
    loop {
        let mut relay = TcpStream::connect(args.relay)?;
        relay.set_nodelay(true)?;
        relay.write_all(b"D")?;
        let mut salt = [0; KEY];
        relay.read_exact(&mut salt)?;
        let keys = Keys::derive(&secret, &salt, args.cipher)?;
        let local = TcpStream::connect(args.target)?;
        join(local, relay, Keys { seal: keys.open, open: keys.seal })?;
    }
}

/// Joins each connection of a client with a waiting one of the device.
pub(crate) fn relay(args: &RelayArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)?;
    say(&format!("listening {}", listener.local_addr()?));
    let (waiting, waits) = mpsc::channel::<TcpStream>();
    let (asking, asks) = mpsc::channel::<TcpStream>();
    let runtime = args.pump.then(|| tokio::runtime::Builder::new_multi_thread().enable_all().build()).transpose()?;
    let copy64 = args.copy64;
    std::thread::spawn(move || {
        for (client, device) in asks.iter().zip(waits.iter()) {
            let _ = match &runtime {
                Some(runtime) => pump(runtime, client, device),
                None => pair(&client, &device, copy64),
            };
        }
    });
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        if let Some(to) = args.to {
            let device = TcpStream::connect(to)?;
            device.set_nodelay(true)?;
            let _ = asking.send(stream).and_then(|()| waiting.send(device));
            continue;
        }
        let mut role = [0];
        if stream.read_exact(&mut role).is_ok() && (!args.lines || stream.read_exact(&mut [0]).is_ok()) {
            let _ = if role[0] == b'C' { asking.send(stream) } else { waiting.send(stream) };
        }
    }
    Ok(())
}

fn pump(runtime: &tokio::runtime::Runtime, client: TcpStream, device: TcpStream) -> io::Result<()> {
    let _guard = runtime.enter();
    let to_tokio = |stream: TcpStream| {
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    };
    let joined = postern_net::pump::join(to_tokio(client)?, to_tokio(device)?, CancellationToken::new());
    runtime.spawn(joined);
    Ok(())
}

fn pair(client: &TcpStream, device: &TcpStream, copy64: bool) -> io::Result<()> {
    for (from, to) in [(client, device), (device, client)] {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        std::thread::spawn(move || {
            let _ = if copy64 { copy(&from, &to) } else { splice(&from, &to) };
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        let got = from.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..got])?;
    }
}

fn splice(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (out, into) = rustix::pipe::pipe()?;
    rustix::pipe::fcntl_setpipe_size(&into, RELAY_PIPE)?;
    loop {
        let mut held = rustix::pipe::splice(from, None, &into, None, RELAY_PIPE, SpliceFlags::MOVE)?;
        if held == 0 {
            return Ok(());
        }
        while held > 0 {
            held -= rustix::pipe::splice(&out, None, to, None, held, SpliceFlags::MOVE)?;
        }
    }
}

struct Keys {
    seal: LessSafeKey,
    open: LessSafeKey,
}

impl Keys {
    /// One key a direction and connection, named from the client's side.
    fn derive(secret: &[u8; KEY], salt: &[u8; KEY], cipher: Cipher) -> anyhow::Result<Self> {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
        let key = |label: &[u8]| -> anyhow::Result<LessSafeKey> {
            let labels = [label];
            let okm = prk.expand(&labels, cipher.algorithm()).ok().context("failed to derive a key")?;
            Ok(LessSafeKey::new(UnboundKey::from(okm)))
        };
        Ok(Self { seal: key(b"postern-bench floor up")?, open: key(b"postern-bench floor down")? })
    }
}

/// Runs both directions of one connection on threads of their own.
fn join(local: TcpStream, relay: TcpStream, keys: Keys) -> io::Result<()> {
    local.set_nodelay(true)?;
    let (local_in, relay_out) = (local.try_clone()?, relay.try_clone()?);
    std::thread::spawn(move || {
        let _ = seal(&local_in, &relay_out, &keys.seal);
        let _ = relay_out.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let _ = open(&relay, &local, &keys.open);
        let _ = local.shutdown(Shutdown::Write);
    });
    Ok(())
}

/// Seals what a read gives, up to a record; a reader who waits for a full one
/// would hold back a prompt. Topping a record up with what has arrived since
/// was tried: no difference beyond the noise.
fn seal(mut from: &TcpStream, mut to: &TcpStream, key: &LessSafeKey) -> anyhow::Result<()> {
    let mut record = vec![0; HEADER + FLOOR_RECORD + TAG];
    for count in 0_u64.. {
        let got = from.read(&mut record[HEADER..HEADER + FLOOR_RECORD])?;
        if got == 0 {
            return Ok(());
        }
        let header = u32::try_from(got)?.to_be_bytes();
        let tag = key
            .seal_in_place_separate_tag(nonce(count), Aad::from(header), &mut record[HEADER..HEADER + got])
            .ok()
            .context("failed to seal")?;
        record[..HEADER].copy_from_slice(&header);
        record[HEADER + got..HEADER + got + TAG].copy_from_slice(tag.as_ref());
        to.write_all(&record[..HEADER + got + TAG])?;
    }
    Ok(())
}

fn open(mut from: &TcpStream, mut to: &TcpStream, key: &LessSafeKey) -> anyhow::Result<()> {
    let mut record = vec![0; FLOOR_RECORD + TAG];
    for count in 0_u64.. {
        let mut header = [0; HEADER];
        if from.read_exact(&mut header).is_err() {
            return Ok(());
        }
        let length = u32::from_be_bytes(header) as usize;
        let body = record.get_mut(..length + TAG).context("record too long")?;
        from.read_exact(body)?;
        let plain = key.open_in_place(nonce(count), Aad::from(header), body).ok().context("failed to open")?;
        to.write_all(plain)?;
    }
    Ok(())
}

fn nonce(count: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&count.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn read_key(path: &Path) -> anyhow::Result<[u8; KEY]> {
    let bytes = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    bytes.try_into().ok().context("the key file must hold 32 bytes")
}
