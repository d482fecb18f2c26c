//! A relay under thousands of live sessions by ticket: what each costs, and how many begin in a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_client::Client;
use postern_client::trust::{OwnIdentity, Places, now_ms};
use postern_identity::DeviceName;
use postern_proto::{AtSign, Uuid};
use postern_rendezvous::{RelayAddress, RelayRecord, Side, Ticket, TicketTo};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use crate::cpu::Accounts;
use crate::crowd::{Crowd, identity};
use crate::host::Site;
use crate::idle::Memory;
use crate::limits::{FLEET_HEARTBEAT, RELAY_BEGINS, RELAY_FIRST_BYTE, RELAY_PER_CLIENT};
use crate::product::{DEVICE, House, MORE_CLIENTS, RELAY};
use crate::table::{Check, Table, progress};

/// What the sessions cost.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    sessions: usize,
    /// Sessions that carried their first byte within the patience of the bench, and a byte each way at the end.
    live: usize,
    /// Offered and reached, in a second.
    offered: usize,
    begun: f64,
    /// From the first dial to the first byte at the client; milliseconds.
    first_byte_p50: f64,
    first_byte_p99: f64,
    /// Resident memory of the relay's process: before, with all sessions, and the difference over their number; bytes.
    rss_before: u64,
    rss_with_all: u64,
    rss_each: f64,
    /// CPU of the relay while they began, over their number; milliseconds.
    cpu_each: f64,
}

impl Figures {
    /// The promises.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let name = format!("relay, {} sessions by ticket", self.sessions);
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let live = self.live as f64 / self.sessions as f64;
        vec![
            Check::at_least(format!("{name}: share that is live"), live, 1.0, ""),
            Check::at_most(format!("{name}: memory of each"), self.rss_each / 1e3, 40.0, "kB"),
            Check::at_least(format!("{name}: begun in a second"), self.begun, 300.0, ""),
        ]
    }

    pub(crate) fn print(&self) {
        let mut table = Table::new(&["relay", ""]);
        let mut row = |name: &str, value: String| table.row(vec![name.to_owned(), value]);
        row("sessions", self.sessions.to_string());
        row("of them live at the end", self.live.to_string());
        row("offered in a second", self.offered.to_string());
        row("begun in a second", format!("{:.0}", self.begun));
        row("dial to first byte, p50 ms", format!("{:.1}", self.first_byte_p50));
        row("dial to first byte, p99 ms", format!("{:.1}", self.first_byte_p99));
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        let megabytes = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
        row("resident before, MB", megabytes(self.rss_before));
        row("resident with all, MB", megabytes(self.rss_with_all));
        row("resident each, kB", format!("{:.1}", self.rss_each / 1e3));
        row("relay's CPU for each to begin, ms", format!("{:.2}", self.cpu_each));
        table.print("Sessions by ticket at one relay; all come from one address, of a few atSigns");
    }
}

/// Somebody with tickets.
struct Guest {
    own: OwnIdentity,
    voucher: Arc<str>,
    name: AtSign,
    client: Client,
}

/// Both ends of a session that is live.
struct Pair {
    a: TcpStream,
    b: TcpStream,
    took: Duration,
}

/// Opens the sessions at a steady pace and looks at the relay.
pub(crate) fn run(accounts: &Accounts, site: &Site, sessions: usize) -> anyhow::Result<Figures> {
    postern_net::tcp::raise_file_limit();
    let clients =
        MORE_CLIENTS.get(..sessions.div_ceil(RELAY_PER_CLIENT)).context("more sessions than atSigns for them")?;
    let house = House::stand_relay(accounts, site, clients)?;
    let crowd = Crowd::of(&house, FLEET_HEARTBEAT)?;
    let guest = |name: &str, device: Option<&str>| crowd.run(guest(&crowd, &house, name, device));
    let device = Arc::new(guest(DEVICE, Some("gateway"))?);
    let clients: Vec<_> = clients.iter().map(|name| guest(name, None).map(Arc::new)).collect::<Result<_, _>>()?;
    let relay = AtSign::parse(RELAY)?;
    let at = crowd.run(whereabouts(&device, &relay))?;

    // The keys of everybody are known before anything is measured, as on any day but the first.
    for client in &clients {
        let to = place(&relay, client, &device);
        drop(crowd.run(begin(at, Arc::clone(client), Arc::clone(&device), to))?);
    }
    let (before, used, start) = (Memory::of(house.relay())?, house.server_used(), Instant::now());
    progress(&format!("relay: {sessions} sessions, {RELAY_BEGINS} in a second"));
    let coming: Vec<_> = (0..sessions)
        .map(|n| {
            let (client, device) = (Arc::clone(&clients[n % clients.len()]), Arc::clone(&device));
            let to = place(&relay, &client, &device);
            let due = start + Duration::from_secs(1) * u32::try_from(n).unwrap_or(u32::MAX) / RELAY_BEGINS;
            crowd.start(async move {
                sleep_until(due.into()).await;
                begin(at, client, device, to).await
            })
        })
        .collect();
    let begun: Vec<_> = coming.into_iter().map(|task| crowd.run(task)).collect();
    let took = start.elapsed();
    let cpu = house.server_used().saturating_sub(used);
    let with_all = Memory::of(house.relay())?;
    let mut pairs = Vec::with_capacity(sessions);
    for outcome in begun {
        match outcome.context("a task of the bench died")? {
            Ok(pair) => pairs.push(pair),
            Err(error) => progress(&format!("relay: a session: {error:#}")),
        }
    }
    let mut times: Vec<f64> = pairs.iter().map(|pair| pair.took.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    let live = crowd.run(async {
        let mut live = 0;
        for pair in &mut pairs {
            live += usize::from(both_ways(pair).await.is_ok());
        }
        live
    });
    let at_share = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    let (rss_before, rss_with_all) = (before.rss * 1024, with_all.rss * 1024);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand, some megabytes")]
    let (count, more) = (sessions as f64, rss_with_all.saturating_sub(rss_before) as f64);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let reached = pairs.len() as f64;
    Ok(Figures {
        sessions,
        live,
        offered: usize::try_from(RELAY_BEGINS).unwrap_or(usize::MAX),
        begun: reached / took.as_secs_f64(),
        first_byte_p50: at_share(50).copied().unwrap_or(f64::INFINITY),
        first_byte_p99: at_share(99).copied().unwrap_or(f64::INFINITY),
        rss_before,
        rss_with_all,
        rss_each: more / count,
        cpu_each: cpu.as_secs_f64() * 1e3 / count,
    })
}

async fn guest(crowd: &Crowd, house: &House, name: &str, device: Option<&str>) -> anyhow::Result<Guest> {
    let (client, _inbox) = crowd.connect(&identity(house, name)?, false).await?;
    let device = device.map(DeviceName::parse).transpose().ok().context("a device's name")?;
    // Keys are derived: nothing need be kept.
    let own = OwnIdentity::load(&Places::default(), client.identity(), device.as_ref())?;
    let voucher = own.voucher(&client).await?;
    Ok(Guest { own, voucher, name: client.at_sign().clone(), client })
}

async fn whereabouts(guest: &Guest, relay: &AtSign) -> anyhow::Result<SocketAddr> {
    let text = guest.client.get_public(relay, RelayAddress::RECORD).await?;
    let record = RelayRecord::parse(&text).context("the relay's record")?;
    let address = record.addresses().first().context("the relay has no address")?;
    Ok(SocketAddr::new(address.host().parse()?, address.port()))
}

fn place(relay: &AtSign, client: &Guest, device: &Guest) -> TicketTo {
    let session = Uuid::from_random(postern_crypto::random());
    let (client, device) = (client.name.clone(), device.name.clone());
    TicketTo { relay: relay.clone(), session, epoch: 0, side: Side::A, client, device }
}

/// Client first, as in life; the device's first byte ends it.
async fn begin(at: SocketAddr, client: Arc<Guest>, device: Arc<Guest>, to: TicketTo) -> anyhow::Result<Pair> {
    let start = Instant::now();
    let work = async {
        let mut a = show(at, &client, &to).await?;
        let mut b = show(at, &device, &TicketTo { side: Side::B, ..to }).await?;
        b.write_all(&[0x16]).await?;
        let first = a.read_u8().await?;
        ensure!(first == 0x16, "refused: {first}");
        Ok(Pair { a, b, took: start.elapsed() })
    };
    timeout(RELAY_FIRST_BYTE, work).await.context("no first byte in time")?
}

async fn show(at: SocketAddr, guest: &Guest, to: &TicketTo) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect(at).await?;
    socket.set_nodelay(true)?;
    let line = Ticket::make(to, guest.own.key(), &guest.voucher, now_ms(), postern_crypto::random());
    socket.write_all(line.as_bytes()).await?;
    Ok(socket)
}

async fn both_ways(pair: &mut Pair) -> anyhow::Result<()> {
    let work = async {
        pair.a.write_u8(1).await?;
        ensure!(pair.b.read_u8().await? == 1, "another byte");
        pair.b.write_u8(2).await?;
        ensure!(pair.a.read_u8().await? == 2, "another byte");
        Ok(())
    };
    timeout(RELAY_FIRST_BYTE, work).await?
}
