//! The relay's one port: guests of real atSigns, with vouchers and tickets as our programs make them, at a real `srvd`.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_client::trust::{OwnIdentity, Places, now_ms};
use postern_client::{Client, Identity, KeyFile, Settings, parse_root};
use postern_house::in_house;
use postern_identity::DeviceName;
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_proto::{AtSign, Uuid};
use postern_rendezvous::{RelayAddress, RelayRecord, Refusal, RefusalCode, Side, Ticket, TicketTo};
use postern_testkit::{Options, Piece, World};

/// Joining takes two atServers' answers at first, and no time later.
const PATIENCE: Duration = Duration::from_secs(15);
const STRANGER: &str = "@stranger";

/// Somebody with an atSign, an identity key and a voucher for it.
struct Guest {
    client: Client,
    identity: OwnIdentity,
    voucher: String,
}

impl Guest {
    async fn new(world: &World, at_sign: &str, device: Option<&str>) -> anyhow::Result<Self> {
        let at_sign = AtSign::parse(at_sign)?;
        let keys = KeyFile::load(&world.key_file(at_sign.as_str()), None)?;
        let settings = Settings {
            root: parse_root(&world.root())?,
            trust: Trust::from_pem_file(&world.ca_file())?,
            heartbeat: PATIENCE,
            monitor: None,
        };
        let identity = Identity { at_sign: at_sign.clone(), keys: keys.into() };
        let (client, _inbox) = Client::connect(identity, settings, &Tasks::new()).await?;
        let device = device.map(DeviceName::parse).transpose()?;
        let state = world.dir().join("tickets").join(at_sign.as_str());
        let places = Places { config: None, state: Some(state) };
        let identity = OwnIdentity::load(&places, client.identity(), device.as_ref())?;
        let voucher = identity.voucher(&client).await?.to_string();
        Ok(Self { client, identity, voucher })
    }

    fn line(&self, to: &TicketTo, when: u64) -> String {
        Ticket::make(to, self.identity.key(), &self.voucher, when, postern_crypto::random())
    }
}
