//! From a request to an open session: who may ask, how its sockets will authenticate, what is answered.

use std::sync::Arc;

use postern_crypto::{AesKey, RsaPublicKey, SignatureHash};
use postern_proto::{AtSign, SigningKeyName, Uuid};
use postern_rendezvous::{AuthMode, EscrParties, Expected, HashAlgo, NAMESPACE, Nack, RelayReply, RelayRequest, Side};

use super::Srvd;
use crate::cli::Generation;
use crate::engine::{EscrSpec, Modes, Refusal, Session, SessionSpec, SigningKeys as _, Verify};
use crate::limits::MUTEX_LIFE;

/// Why a request gets no ports.
pub(super) enum Unopened {
    /// The client is told.
    Told(Nack),
    /// It is not: somebody else answers, or has.
    Silent(&'static str),
}

impl From<Nack> for Unopened {
    fn from(nack: Nack) -> Self {
        Self::Told(nack)
    }
}

fn nack(text: &str) -> Nack {
    Nack::new(text)
}

/// How a session's sockets will authenticate.
struct Plan {
    modes: Modes,
    key: Option<AesKey>,
    single_port: bool,
}

impl Srvd {
    /// Opens the session that `request` asks for; gives the text of the answer.
    pub(super) async fn open(&self, from: &AtSign, request: &RelayRequest) -> Result<String, Unopened> {
        // The request is not signed: who asks is what the notification says, and the client's side can be nobody else.
        let client = AtSign::parse(&request.at_sign_a).map_err(|_| nack("atSignA is no atSign"))?;
        let device = AtSign::parse(&request.at_sign_b).map_err(|_| nack("atSignB is no atSign"))?;
        if client != *from {
            return Err(nack("atSignA is not who asks").into());
        }
        let plan = self.plan(request)?;
        // Lines are checked with the keys of the atSigns, proofs with the keys they name.
        let lines = plan.modes != Modes::One(AuthMode::Escr);
        let authenticate_a = request.authenticate_a || plan.single_port;
        let authenticate_b = request.authenticate_b || plan.single_port;
        let (a, b) =
            tokio::join!(self.key_of(&client, lines && authenticate_a), self.key_of(&device, lines && authenticate_b));
        let verify = verify_by(a?, b?);
        let nonce = Uuid::from_random(postern_crypto::random()).to_string();
        let parties = EscrParties { session_id: request.session_id.clone(), client, device };
        self.fetch_early(request, &parties);
        let keys = Arc::clone(&self.keys);
        let spec = SessionSpec {
            requester: from.to_string(),
            expected: Expected {
                session_id: request.session_id.clone(),
                client_nonce: request.client_nonce.clone(),
                rvd_nonce: nonce.clone(),
            },
            authenticate_a,
            authenticate_b,
            verify,
            escr: plan.key.map(|key| EscrSpec { key, parties, keys }),
            modes: plan.modes,
            single_port: plan.single_port,
        };
        let session = self.admit(spec)?;
        if !request.multiple_acks_ok {
            self.take_turn(&session, &request.session_id).await?;
        }
        tracing::debug!(%from, session = %request.session_id, "session opened");
        let current = self.config.generation == Generation::Current;
        let reply = RelayReply {
            host: self.config.host.clone(),
            port_a: session.port_a,
            port_b: session.port_b,
            nonce: Some(nonce),
            supports_event_logging: false,
            auto_detects_auth: current,
        };
        Ok(if request.json_reply && current { reply.print_json() } else { reply.print_csv() })
    }

    /// The oldest request: nothing but a session id, and nobody authenticates.
    pub(super) fn open_legacy(&self, from: &AtSign, session_id: &str) -> Result<String, Unopened> {
        let spec = SessionSpec {
            requester: from.to_string(),
            expected: Expected {
                session_id: session_id.to_owned(),
                client_nonce: String::new(),
                rvd_nonce: String::new(),
            },
            authenticate_a: false,
            authenticate_b: false,
            verify: Arc::new(|_, _, _, _| false),
            escr: None,
            modes: Modes::One(AuthMode::Payload),
            single_port: false,
        };
        let session = self.admit(spec)?;
        let reply = RelayReply {
            host: self.config.host.clone(),
            port_a: session.port_a,
            port_b: session.port_b,
            nonce: None,
            supports_event_logging: false,
            auto_detects_auth: false,
        };
        Ok(reply.print_csv())
    }

    fn admit(&self, spec: SessionSpec) -> Result<Session, Unopened> {
        self.relay.open(spec).map_err(|refusal| match refusal {
            // The same request came twice: the first has its answer.
            Refusal::Known => Unopened::Silent("a session of this id is open"),
            refusal => nack(&refusal.to_string()).into(),
        })
    }

    fn plan(&self, request: &RelayRequest) -> Result<Plan, Nack> {
        let lines = Plan { modes: Modes::One(AuthMode::Payload), key: None, single_port: false };
        let generation = self.config.generation;
        if generation == Generation::Y2024 {
            return Ok(lines);
        }
        let key = match &request.auth_key {
            Some(key) => {
                Some(AesKey::from_base64(key.reveal()).map_err(|_| nack("relayAuthAesKey is no AES-256 key"))?)
            }
            None => None,
        };
        if request.only_443 {
            if self.relay.single_port().is_none() {
                return Err(nack(&Refusal::NoSinglePort.to_string()));
            }
            let key = key.ok_or_else(|| nack("a session on a single port needs relayAuthAesKey"))?;
            return Ok(Plan { modes: Modes::One(AuthMode::Escr), key: Some(key), single_port: true });
        }
        let asked = match &request.auth_mode {
            None | Some(AuthMode::Payload) => AuthMode::Payload,
            Some(AuthMode::Escr) if key.is_none() => return Err(nack("relay auth mode escr needs relayAuthAesKey")),
            Some(AuthMode::Escr) => AuthMode::Escr,
            Some(AuthMode::Unknown(_)) => {
                return Err(nack("this relay does not know that relay auth mode; use payload or escr"));
            }
        };
        if key.is_none() {
            return Ok(lines);
        }
        let modes = match generation {
            Generation::Current => {
                let sure = |mode: &Option<AuthMode>| *mode == Some(AuthMode::Escr);
                let hint = asked == AuthMode::Escr || sure(&request.side_a);
                Modes::Detect(hint.then_some(AuthMode::Escr))
            }
            Generation::V5_11 | Generation::Y2024 => Modes::One(asked),
        };
        Ok(Plan { modes, key, single_port: false })
    }

    /// Asks for signing keys that the session will need, of its own parties only.
    fn fetch_early(&self, request: &RelayRequest, parties: &EscrParties) {
        for name in request.pre_fetch.iter().filter_map(|text| SigningKeyName::parse(text)) {
            if *name.owner() == parties.client || *name.owner() == parties.device {
                let keys = Arc::clone(&self.keys);
                self.tasks.spawn(async move { drop(keys.record(&name).await) });
            }
        }
    }

    async fn key_of(&self, who: &AtSign, wanted: bool) -> Result<Option<RsaPublicKey>, Nack> {
        if !wanted {
            return Ok(None);
        }
        let key = self.client.public_key(who).await;
        key.map(Some).map_err(|error| nack(&format!("the public key of {who} is not to be had: {error}")))
    }

    /// Several instances of one relay hear the same request; the first to write this record answers it. A client that
    /// can have several answers takes the first, and is not kept waiting for this.
    async fn take_turn(&self, session: &Session, id: &str) -> Result<(), Unopened> {
        let name = format!("{id}.session_mutexes.{NAMESPACE}");
        match self.client.take_mutex(&name, MUTEX_LIFE).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                session.stop.cancel();
                Err(Unopened::Silent("another instance of this relay answers"))
            }
            Err(error) => {
                // Better two answers than none.
                tracing::debug!(%error, "could not write the mutex of a session");
                Ok(())
            }
        }
    }
}

fn verify_by(a: Option<RsaPublicKey>, b: Option<RsaPublicKey>) -> Verify {
    Arc::new(move |side, text, signature, hash| {
        let key = match side {
            Side::A => a.as_ref(),
            Side::B => b.as_ref(),
        };
        key.is_some_and(|key| key.verify_bytes(hash_of(hash), text.as_bytes(), signature).is_ok())
    })
}

fn hash_of(hash: HashAlgo) -> SignatureHash {
    match hash {
        HashAlgo::Sha256 => SignatureHash::Sha256,
        HashAlgo::Sha512 => SignatureHash::Sha512,
    }
}
