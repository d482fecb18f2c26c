//! The relay's one port: guests with real atSigns, and vouchers and tickets as our programs make them, at a real `srvd`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_client::trust::{OwnIdentity, Places, now_ms};
use postern_client::{Client, Identity, KeyFile, Settings, parse_root};
use postern_house::in_house;
use postern_identity::DeviceName;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::{AtSign, Uuid};
use postern_rendezvous::{Refusal, RefusalCode, RelayAddress, RelayRecord, Side, Ticket, TicketTo};
use postern_testkit::{Options, Piece, World, say};

/// Joining takes the answers of two atServers at first.
const PATIENCE: Duration = Duration::from_secs(15);
/// Who is left alone is told after 30 s.
const ALONE: Duration = Duration::from_secs(45);
const STRANGER: &str = "@stranger";

#[test]
fn guests_with_tickets_meet_at_the_one_port() -> anyhow::Result<()> {
    in_house(Options { strangers: vec![STRANGER.to_owned()], ..Options::default() }, |world| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (client, device, stranger) = runtime.block_on(async {
            let client = Guest::new(world, World::CLIENT, None).await?;
            let device = Guest::new(world, World::DEVICE, Some(World::DEVICE_NAME)).await?;
            let stranger = Guest::new(world, STRANGER, None).await?;
            anyhow::Ok((client, device, stranger))
        })?;
        let relay = AtSign::parse(World::RELAY)?;
        let record = runtime.block_on(client.client.get_public(&relay, RelayAddress::RECORD))?;
        say(format_args!("the record: {record}"));
        let record = RelayRecord::parse(&record).context("no record of the relay")?;
        let [address] = record.addresses() else { anyhow::bail!("{record:?}") };
        ensure!(address.port() == world.relay_port() && !address.tls(), "{address:?}");
        let dial = |line: &str| show(address, line);

        // A session, and its next epoch, which ends the first.
        let to_a = to(Side::A)?;
        let to_b = TicketTo { side: Side::B, ..to_a.clone() };
        let first = client.line(&to_a);
        let (mut a, mut b) = (dial(&first)?, dial(&device.line(&to_b))?);
        talk(&mut b, &mut a, b"\x16 from the device")?;
        talk(&mut a, &mut b, b"from the client")?;
        let (to_a, to_b) = (TicketTo { epoch: 1, ..to_a }, TicketTo { epoch: 1, ..to_b });
        let (mut again_a, mut again_b) = (dial(&client.line(&to_a))?, dial(&device.line(&to_b))?);
        talk(&mut again_a, &mut again_b, b"goes on")?;
        ensure!(matches!(a.read(&mut [0]), Ok(0) | Err(_)), "the earlier epoch goes on");

        // Refused: what is used, of somebody else, too old, for nobody.
        let alone = dial(&client.line(&to(Side::A)?))?;
        ensure!(code(dial(&first)?)? == RefusalCode::BadTicket, "a ticket is good twice");
        ensure!(code(dial(&stranger.line(&to(Side::A)?))?)? == RefusalCode::BadTicket, "a stranger as the client");
        let forged = Ticket::make(&to(Side::A)?, stranger.identity.key(), &client.voucher, now_ms(), [1; 16]);
        ensure!(code(dial(&forged)?)? == RefusalCode::BadTicket, "the voucher of somebody else");
        let old = Ticket::make(&to(Side::A)?, client.identity.key(), &client.voucher, now_ms() - 400_000, [1; 16]);
        ensure!(code(dial(&old)?)? == RefusalCode::Expired, "a ticket of yesterday");
        ensure!(code(alone)? == RefusalCode::Alone, "nobody came, and nobody was told");

        // A relay that stops says so; one that comes back has the same port.
        let waits = dial(&device.line(&to(Side::B)?))?;
        let newcomers = dial(&client.line(&to(Side::A)?))?;
        let relay = world.piece(Piece::Relay)?.id();
        let stopped = std::process::Command::new("kill").arg(relay.to_string()).status()?;
        ensure!(stopped.success(), "cannot stop the relay");
        ensure!(code(waits)? == RefusalCode::Stopping, "who waited was not told");
        ensure!(code(newcomers)? == RefusalCode::Stopping, "who waited was not told");
        world.start_piece(Piece::Relay)?;
        let to_a = to(Side::A)?;
        let to_b = TicketTo { side: Side::B, ..to_a.clone() };
        let (mut a, mut b) = (dial(&client.line(&to_a))?, dial(&device.line(&to_b))?);
        talk(&mut a, &mut b, b"again")
    })
}

/// Somebody with an atSign, an identity key and a voucher for it.
struct Guest {
    client: Client,
    identity: OwnIdentity,
    voucher: String,
    _tasks: Tasks,
}

impl Guest {
    async fn new(world: &World, at_sign: &str, device: Option<&str>) -> anyhow::Result<Self> {
        let keys = KeyFile::load(&world.key_file(at_sign)).ok().context("no keys")?;
        let identity = Identity { at_sign: AtSign::parse(at_sign)?, keys: Arc::new(keys) };
        let settings = Settings {
            root: parse_root(&world.root())?,
            trust: Trust::only_pem(&std::fs::read(world.ca_file())?).ok().context("no trust")?,
            heartbeat: Duration::from_secs(60),
            monitor: None,
        };
        let tasks = Tasks::new();
        let (client, _inbox) = Client::connect(identity, settings, &tasks).await?;
        let device = device.map(DeviceName::parse).transpose().ok().context("no name of a device")?;
        let places = Places { config: None, state: Some(world.dir().join("tickets").join(at_sign)) };
        let identity = OwnIdentity::load(&places, client.identity(), device.as_ref())?;
        let voucher = identity.voucher(&client).await?.to_string();
        Ok(Self { client, identity, voucher, _tasks: tasks })
    }

    fn line(&self, to: &TicketTo) -> String {
        Ticket::make(to, self.identity.key(), &self.voucher, now_ms(), postern_crypto::random())
    }
}

/// A new session.
fn to(side: Side) -> anyhow::Result<TicketTo> {
    let [relay, client, device] = [World::RELAY, World::CLIENT, World::DEVICE].map(AtSign::parse);
    let session = Uuid::from_random(postern_crypto::random());
    Ok(TicketTo { relay: relay?, session, epoch: 0, side, client: client?, device: device? })
}

fn show(address: &RelayAddress, line: &str) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect((address.host(), address.port()))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(line.as_bytes())?;
    Ok(socket)
}

fn talk(from: &mut TcpStream, to: &mut TcpStream, text: &[u8]) -> anyhow::Result<()> {
    from.write_all(text)?;
    let mut bytes = vec![0; text.len()];
    to.read_exact(&mut bytes)?;
    ensure!(bytes == text, "{:?}", String::from_utf8_lossy(&bytes));
    Ok(())
}

/// A refusal and the end.
fn code(mut socket: TcpStream) -> anyhow::Result<RefusalCode> {
    socket.set_read_timeout(Some(ALONE))?;
    let mut said = Vec::new();
    match socket.read_to_end(&mut said) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => anyhow::bail!("no refusal within {ALONE:?}"),
        outcome => outcome?,
    };
    say(format_args!("the relay: {}", String::from_utf8_lossy(&said).trim_end()));
    let refusal = Refusal::parse(&said).with_context(|| format!("no refusal: {:?}", String::from_utf8_lossy(&said)))?;
    Ok(refusal.code)
}
