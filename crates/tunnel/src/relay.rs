//! The client's side of the relay: asking for ports, choosing how sockets prove whose they are, dialling the first.

use std::future::Future;
use std::sync::Arc;

use postern_client::ClientError;
use postern_crypto::{AesKey, SignatureHash};
use postern_link::{RelayAuth, RelayPort};
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_rendezvous::hints::ModesHint;
use postern_rendezvous::limits::CANDIDATES;
use postern_rendezvous::{
    AuthLine, AuthMode, ChallengeSigner, EscrProver, ModeRefused, ModeWish, RelayAuthKey, RelayReply, RelayRequest,
    Side, SignedLine,
};
use postern_session::{Dialect, Features, RELAY_NAMESPACE};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::legacy::Setup;
use crate::limits::{RELAY, REQUEST_LIFE};
use crate::trouble::Trouble;

/// What the user has said about authentication at the relay, and what follows from it.
pub(crate) fn relay_auth(mode: Option<&str>, only_443: bool, dialect: Dialect) -> Result<ModeWish, String> {
    // 5.11 could, and did not unless told to.
    let usual = dialect == Dialect::Current;
    let wish = match mode {
        None => ModeWish { escr: usual, explicit: false, only_443 },
        Some("escr") => ModeWish { escr: true, explicit: true, only_443 },
        Some("payload") => ModeWish { escr: false, explicit: true, only_443 },
        Some(other) => return Err(format!("--relay-auth-mode {other:?}: it is payload or escr")),
    };
    if only_443 && mode == Some("payload") {
        return Err("--443 needs the relay auth mode escr: leave out --relay-auth-mode".into());
    }
    if (only_443 || mode == Some("escr")) && !dialect.answers_challenges() {
        return Err(format!("--dialect {dialect}: it knew neither --443 nor the relay auth mode escr"));
    }
    Ok(wish)
}

/// Relays as the user names them: one, or several separated by commas of which the nearest is taken.
pub(crate) fn relays(names: &str) -> Result<Vec<AtSign>, String> {
    let mut relays = Vec::new();
    for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let relay = AtSign::parse(name).map_err(|error| format!("-r {name:?}: {error}"))?;
        if !relays.contains(&relay) {
            relays.push(relay);
        }
    }
    match relays.len() {
        0 => Err("-r names no relay".into()),
        n if n > CANDIDATES => Err(format!("-r: at most {CANDIDATES} relays")),
        _ => Ok(relays),
    }
}

/// What to say when no relay is named: the list of the public network is not fetched.
pub(crate) const NAME_A_RELAY: &str = "name the relay's atSign with -r, or several separated by commas to take the nearest; this program does not fetch the public network's list";

/// A relay that has opened the session.
pub(crate) struct Met {
    /// Our side of it.
    pub(crate) port: RelayPort,
    /// What the device is told.
    pub(crate) device: DeviceEnd,
    /// For a relay that finds out by itself how sockets authenticate.
    hint: Option<ModesHint>,
}

/// The device's side of the relay, as the session request tells it.
#[derive(Clone)]
pub(crate) struct DeviceEnd {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) client_nonce: String,
    pub(crate) rvd_nonce: Option<String>,
    /// `None`: the form of 2024.
    pub(crate) auth_mode: Option<String>,
    pub(crate) auth_key: Option<RelayAuthKey>,
}

/// What the device's heartbeat has told, once it has come.
pub(crate) type Heard = watch::Receiver<Option<Features>>;

/// What we need to answer challenges.
struct Proofs {
    /// The session's secret between client, device and relay.
    key: AesKey,
    /// Our published key; none, when the atServer does not let us publish it.
    name: Option<SigningKeyName>,
}

impl Setup<'_> {
    /// Asks the relay for ports and chooses how each side authenticates. Nothing is dialled yet.
    pub(crate) async fn meet(
        &self,
        relay: mpsc::Receiver<Result<String, String>>,
        heard: Heard,
    ) -> Result<Met, Trouble> {
        let (common, wish) = (self.common, self.common.relay_auth);
        self.steps.tell("Fetching host and port from srvd");
        let proofs = self.proofs().await?;
        let can = proofs.as_ref().is_some_and(|proofs| proofs.name.is_some());
        let client_nonce = Uuid::from_random(postern_crypto::random()).to_string();
        let auth_key = proofs.as_ref().map(|proofs| RelayAuthKey::new(proofs.key.to_base64().to_string()));
        let request = RelayRequest {
            session_id: self.session.to_string(),
            at_sign_a: common.from.to_string(),
            at_sign_b: common.to.to_string(),
            authenticate_a: common.authenticate_client,
            authenticate_b: common.authenticate_device,
            client_nonce: client_nonce.clone(),
            auth_mode: proofs.is_some().then(|| wish.of_request(can)),
            auth_key: auth_key.clone(),
            only_443: wish.only_443,
            multiple_acks_ok: common.dialect.has_twin_keys(),
            pre_fetch: proofs.iter().filter_map(|proofs| Some(proofs.name.as_ref()?.to_string())).collect(),
            json_reply: proofs.is_some() && common.dialect == Dialect::Current,
            side_a: (common.authenticate_client && can && wish.of_end(can, true) == AuthMode::Escr)
                .then_some(AuthMode::Escr),
        };
        let reply = self.ports(relay, &request).await?;
        let detects = reply.auto_detects_auth;
        // Where the user insists, nothing is dialled that cannot work; else an old daemon is met half-way by the relay.
        let insists = wish.only_443 || wish.explicit;
        let device_can = if insists && common.authenticate_device { can_answer(heard).await? } else { true };
        wish.check_device(common.authenticate_device, device_can, detects).map_err(Trouble::Mode)?;
        let (mode_a, mode_b) = (wish.of_end(can, detects), wish.of_end(device_can && proofs.is_some(), detects));
        let auth = self.our_auth(&mode_a, proofs, &client_nonce, &reply)?;
        let numbered = common.dialect.numbers_sockets();
        let escr_b = common.authenticate_device && mode_b == AuthMode::Escr;
        let hint = reply.nonce.clone().filter(|_| detects).map(|rvd_nonce| ModesHint {
            session_id: self.session.to_string(),
            rvd_nonce,
            side_a: common.authenticate_client.then_some(mode_a),
            side_b: escr_b.then_some(AuthMode::Escr),
        });
        Ok(Met {
            port: RelayPort { host: reply.host.clone(), port: reply.port_a.get(), auth, numbered },
            device: DeviceEnd {
                host: reply.host,
                port: reply.port_b.get(),
                client_nonce,
                rvd_nonce: reply.nonce,
                auth_mode: escr_b.then(|| AuthMode::Escr.as_str().to_owned()),
                auth_key: auth_key.filter(|_| escr_b),
            },
            hint,
        })
    }

    /// Publishes our signing key while the key to the relay is fetched. `None`: signed lines are all we want.
    async fn proofs(&self) -> Result<Option<Proofs>, Trouble> {
        let (common, wish) = (self.common, self.common.relay_auth);
        let wanted = (common.authenticate_client || common.authenticate_device) && (wish.escr || wish.only_443);
        if !wanted || !common.dialect.answers_challenges() {
            return Ok(None);
        }
        // The key to the relay is needed next in any case: so this takes no time of its own.
        let (name, _) = tokio::join!(self.published_key(), self.client.prepare(&self.relay));
        if name.is_none() && common.authenticate_client && (wish.only_443 || wish.explicit) {
            return Err(Trouble::Mode(ModeRefused::OwnKey));
        }
        Ok(Some(Proofs { key: AesKey::generate(), name }))
    }

    /// Sends the request and waits for the relay's word.
    async fn ports(
        &self,
        mut relay: mpsc::Receiver<Result<String, String>>,
        request: &RelayRequest,
    ) -> Result<RelayReply, Trouble> {
        let common = self.common;
        let name = format!("{}.request_ports.{RELAY_NAMESPACE}", common.device);
        let work = async {
            // Version 4 knows no more than the session's name.
            let (name, text) = match common.dialect.is_v5() {
                true => (name, request.print()),
                false => (format!("{}.{RELAY_NAMESPACE}", common.device), self.session.to_string().into()),
            };
            self.client.notify(&self.relay, &name, &text, Some(REQUEST_LIFE)).await?;
            relay.recv().await.ok_or(Trouble::Client(ClientError::Stopped))
        };
        let limited = timeout(RELAY, work);
        let answer = self.steps.follow("relay request", 2, 2, limited).await;
        let answer = answer.map_err(|_| Trouble::RelaySilent(self.relay.clone()))??;
        let text = answer.map_err(|why| Trouble::RelayRefused(self.relay.clone(), clean(&why)))?;
        let reply =
            RelayReply::parse(&text).map_err(|error| Trouble::RelayNonsense(self.relay.clone(), error.to_string()))?;
        self.steps.tell("Received host and port from srvd");
        Ok(reply)
    }

    fn our_auth(
        &self,
        mode: &AuthMode,
        proofs: Option<Proofs>,
        client_nonce: &str,
        reply: &RelayReply,
    ) -> Result<RelayAuth, Trouble> {
        if !self.common.authenticate_client {
            return Ok(RelayAuth::Nothing);
        }
        let keys = Arc::clone(&self.client.identity().keys);
        match (mode, proofs, &reply.nonce) {
            (AuthMode::Escr, Some(Proofs { key, name: Some(name) }), _) => {
                let signer = ChallengeSigner::new(name, move |text| keys.pkam.sign(SignatureHash::Sha256, text));
                Ok(RelayAuth::Escr(Arc::new(EscrProver::new(self.session.as_str(), Side::A, key, signer))))
            }
            (_, _, Some(nonce)) => {
                let line = AuthLine::new(self.session.as_str(), client_nonce, nonce);
                let signature = keys.encryption.sign(SignatureHash::Sha256, line.signed_text().as_bytes());
                Ok(RelayAuth::Line(Arc::new(SignedLine::new(line, signature.map_err(|_| Trouble::Crypto)?))))
            }
            (_, _, None) => Ok(RelayAuth::Nothing),
        }
    }

    /// Dials the first socket.
    pub(crate) fn dial(&self, port: &RelayPort) -> impl Future<Output = Result<TcpStream, Trouble>> {
        self.steps.tell("Creating connection to socket rendezvous");
        let (dial, steps) = (port.clone(), self.steps);
        async move {
            let to = format!("{}:{}", dial.host, dial.port);
            steps.follow("relay connection", 1, 0, dial.dial(0)).await.map_err(|error| Trouble::RelayPort(to, error))
        }
    }

    /// Tells the relay what to expect of each side, so that it need not wait for who speaks first. What is not told it
    /// finds out by itself.
    pub(crate) async fn give_hint(&self, met: &Met, mut heard: Heard) -> Result<(), Trouble> {
        let Some(mut hint) = met.hint.clone() else { return Ok(()) };
        if self.common.authenticate_device {
            let Ok(features) = heard.wait_for(Option::is_some).await else { return Ok(()) };
            let can = features.is_some_and(|features| features.supports_ram_escr);
            hint.side_b = Some(if can && hint.side_b.is_some() { AuthMode::Escr } else { AuthMode::Payload });
        }
        let name = format!("{}.auth_modes.{RELAY_NAMESPACE}", self.common.device);
        let sent = self.client.notify(&self.relay, &name, &hint.print(), Some(REQUEST_LIFE)).await;
        if let Err(error) = sent {
            tracing::debug!(%error, "the relay will have to find out");
        }
        Ok(())
    }
}

/// Whether the device answers challenges, as soon as it has said so.
async fn can_answer(mut heard: Heard) -> Result<bool, Trouble> {
    let features = heard.wait_for(Option::is_some).await.map_err(|_| Trouble::DaemonSilent(None))?;
    Ok(features.is_some_and(|features| features.supports_ram_escr))
}

/// One line without control characters, fit for a terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(500).collect()
}
