//! A sealed session as a tunnel: the product's frames, records and driver, with keys from a file in place of a handshake.
//! What a handshake costs is measured by set-up; here it is bulk.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use postern_crypto::AeadAlgorithm;
use postern_link::sealed::{
    AskAgain, Authorize, ClientPlan, DevicePlan, End, EndFault, Facts, Future, Knocking, Local, Refusal, Target,
    Ticket, dial, serve,
};
use postern_net::tasks::Tasks;
use postern_rendezvous::RelayAddress;
use postern_seal::Records;
use postern_session::HostPort;
use tokio::net::TcpStream;

use crate::bulk::{CHACHA_ROW, FLOOR_ROW, Row, Running, Tunnel, key_file, listening};
use crate::cpu::{Accounts, Role};
use crate::floor::Cipher;
use crate::host::Site;
use crate::limits::{READY_DEADLINE, SEALED_RESUME};
use crate::process::Spawn;
use crate::table::{Check, say};

/// The client's end.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// Where local programs connect
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What their streams lead to
    #[arg(long)]
    target: SocketAddr,
    #[command(flatten)]
    end: EndArgs,
}

/// The device's end.
#[derive(Debug, clap::Args)]
pub(crate) struct DeviceArgs {
    #[command(flatten)]
    end: EndArgs,
}

#[derive(Debug, clap::Args)]
struct EndArgs {
    #[arg(long)]
    relay: SocketAddr,
    /// File of 32 bytes that both ends share
    #[arg(long)]
    key: PathBuf,
    #[arg(long, default_value = "aes")]
    cipher: Cipher,
    /// Keep what is not acknowledged
    #[arg(long)]
    resume: bool,
}

impl EndArgs {
    fn relays(&self) -> Vec<RelayAddress> {
        vec![RelayAddress::new(&self.relay.ip().to_string(), self.relay.port(), false).expect("an address")]
    }

    fn resume(&self) -> Duration {
        if self.resume { SEALED_RESUME } else { Duration::ZERO }
    }

    /// The key of the client's direction is the file's, that of the device's its complement.
    fn keys(&self) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        let key = std::fs::read(&self.key).with_context(|| format!("failed to read {}", self.key.display()))?;
        let back = key.iter().map(|byte| !byte).collect();
        Ok((key, back))
    }

    fn algorithm(&self) -> AeadAlgorithm {
        if self.cipher == Cipher::Aes { AeadAlgorithm::Aes256Gcm } else { AeadAlgorithm::ChaCha20Poly1305 }
    }
}

/// An end whose handshake was elsewhere; the device's begins with a byte as a handshake does.
struct Keyed {
    records: Records,
    greeting: Vec<u8>,
}

const GREETING: u8 = 0x16;

fn fault(error: postern_seal::RecordError) -> EndFault {
    EndFault(Box::new(error))
}

impl End for Keyed {
    fn read(&mut self, tls: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> Result<usize, EndFault> {
        self.records.read(tls, plain).map_err(fault)
    }

    fn write(&mut self, head: &[u8], body: &[u8], tls: &mut Vec<u8>) -> Result<(), EndFault> {
        self.flush(tls);
        self.records.write(head, body, tls).map_err(fault)
    }

    fn flush(&mut self, tls: &mut Vec<u8>) {
        tls.append(&mut self.greeting);
    }

    fn close(&mut self, tls: &mut Vec<u8>) {
        let _ = self.records.close(tls);
    }

    fn closed(&self) -> bool {
        self.records.closed()
    }

    fn proven(&self) -> bool {
        true
    }

    fn facts(&self) -> Facts {
        Facts::default()
    }
}

struct Greeted(bool);

impl Knocking for Greeted {
    fn read(&mut self, _: &[u8]) -> Result<usize, EndFault> {
        self.0 = true;
        Ok(1)
    }

    fn answered(&self) -> bool {
        self.0
    }
}

struct DialAnything;

impl Authorize for DialAnything {
    fn dial<'a>(&'a self, target: &'a Target) -> Future<'a, Result<TcpStream, Refusal>> {
        Box::pin(async move {
            let Target::HostPort(target) = target else { return Err(std::io::Error::other("no ssh here").into()) };
            Ok(TcpStream::connect((target.host.as_str(), target.port)).await?)
        })
    }
}

fn ticket(side: &'static str) -> Ticket {
    Box::new(move |_, _| Ok(format!("{side}\n")))
}

/// A runtime like the product's.
fn run(work: impl std::future::Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Accepts local connections; each is a stream of one session.
pub(crate) fn client(args: &ClientArgs) -> anyhow::Result<()> {
    run(async {
        let tasks = Tasks::new();
        let (key, back) = args.end.keys()?;
        let algorithm = args.end.algorithm();
        let never: AskAgain<Greeted> = Box::new(|_| Box::pin(std::future::pending()));
        let plan = ClientPlan {
            relays: args.end.relays(),
            ticket: ticket("C"),
            knock: Greeted(false),
            believe: Box::new(move |_| {
                let records = Records::danger_with_keys(algorithm, &key, &back);
                Box::pin(async move { Ok(Keyed { records: records?, greeting: Vec::new() }) })
            }),
            ask_again: args.end.resume.then_some(never),
            resume: args.end.resume(),
            first: None,
            stop: tasks.token().clone(),
        };
        let session = dial(plan, READY_DEADLINE, &tasks).await.map_err(anyhow::Error::new)?;
        let listener = tokio::net::TcpListener::bind(args.listen).await?;
        say(&format!("listening {}", listener.local_addr()?));
        let target = HostPort { host: args.target.ip().to_string(), port: args.target.port() };
        loop {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let (session, target) = (session.clone(), Target::HostPort(target.clone()));
            drop(tasks.spawn(async move { session.carry(Local::from(socket), target).await }));
        }
    })
}

/// Serves one session.
pub(crate) fn device(args: &DeviceArgs) -> anyhow::Result<()> {
    run(async {
        let tasks = Tasks::new();
        let (key, back) = args.end.keys()?;
        let records = Records::danger_with_keys(args.end.algorithm(), &back, &key).map_err(anyhow::Error::new)?;
        let plan = DevicePlan {
            relays: args.end.relays(),
            ticket: ticket("D"),
            end: Keyed { records, greeting: vec![GREETING] },
            authorize: Arc::new(DialAnything),
            ssh: false,
            resume: args.end.resume(),
            stop: tasks.token().clone(),
        };
        let session = serve(plan, &tasks).await.map_err(anyhow::Error::new)?;
        session.ended().await;
        Ok(())
    })
}

/// The sealed session between the floor's load, through the relay's pump.
#[derive(Debug)]
pub(crate) struct SealedTunnel {
    pub(crate) cipher: Cipher,
    pub(crate) resume: bool,
}

impl Tunnel for SealedTunnel {
    fn name(&self) -> String {
        let cipher = if self.cipher == Cipher::Aes { "AES-256-GCM" } else { "ChaCha20-Poly1305" };
        let resume = if self.resume { ", resumable" } else { "" };
        format!("sealed session ({cipher}{resume})")
    }

    fn start(&self, accounts: &Accounts, site: &Site, target: SocketAddr) -> anyhow::Result<Running> {
        let key = key_file(&site.dir)?;
        let (client, relay, device) =
            (accounts.account(Role::Client), accounts.account(Role::Relay), accounts.account(Role::Device));
        let log = site.dir.join("sealed.log");
        let mut relay_process = Spawn::own("floor-relay")?
            .args(["--pump", "--lines", "--listen", &site.server.at(0).to_string()])
            .account(&relay)
            .netns(site.server.netns.clone())
            .log(&log)
            .stdout()
            .start()?;
        let relay_at = listening(&mut relay_process)?;
        let end = |subcommand: &str| -> anyhow::Result<Spawn<'_>> {
            let resume: &[&str] = if self.resume { &["--resume"] } else { &[] };
            let end = Spawn::own(subcommand)?.args(["--relay", &relay_at.to_string(), "--cipher", self.cipher.name()]);
            Ok(end.args(resume).args(["--key"]).args([&key]).log(&log))
        };
        let device_process = end("sealed-device")?.account(&device).netns(site.device.netns.clone()).start()?;
        let mut client_process = end("sealed-client")?
            .args(["--listen", &site.client.at(0).to_string(), "--target", &target.to_string()])
            .account(&client)
            .netns(site.client.netns.clone())
            .stdout()
            .start()?;
        let entry = listening(&mut client_process)?;
        Ok(Running {
            entry,
            processes: vec![client_process, relay_process, device_process],
            accounts: vec![client, relay, device],
        })
    }

    fn base(&self) -> usize {
        if self.cipher == Cipher::Aes { FLOOR_ROW } else { CHACHA_ROW }
    }

    fn checks(&self, row: &Row) -> Vec<Check> {
        let name = &row.name;
        vec![
            Check::at_least(format!("{name}: throughput down over the floor's"), row.down_ratio.median(), 0.9, "x"),
            Check::at_least(format!("{name}: throughput up over the floor's"), row.up_ratio.median(), 0.9, "x"),
            Check::at_most(format!("{name}: CPU per GiB over the floor's"), row.cpu_ratio.median(), 1.2, "x"),
        ]
    }
}
