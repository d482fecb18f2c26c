//! The device's end: answers an admitted request, may speak at once, and hears nothing before the client's proof.

use std::fmt;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use postern_crypto::{Ed25519PrivateKey, Ed25519PublicKey, sha256};
use postern_identity::{DeviceName, Label, Statement};
use postern_proto::{AtSign, Uuid};
use postern_session::{Admitted, Digest, Proof, SealedReply};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::Records;
use crate::error::SealError;
use crate::tls::{
    ALPN, Facts, NoClock, agreed, drain, exporter, feed, provider, record, statement_frame, statement_text,
};

/// What the device says of itself in its reply.
#[derive(Clone, Copy)]
pub struct Answer<'a> {
    /// Our atSign.
    pub at_sign: &'a AtSign,
    /// Our name.
    pub device: &'a DeviceName,
    /// Our identity key.
    pub identity: &'a Ed25519PrivateKey,
    /// The text of its voucher.
    pub voucher: &'a str,
    /// How long we wait for a lost connection: at most what was asked for; whole seconds.
    pub resume: Duration,
    /// Public keys of our ssh server, `known_hosts` form without the host.
    pub ssh_host_keys: &'a [String],
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// The device's end of a sealed session.
pub struct DeviceEnd {
    state: State,
    facts: Facts,
    client: Client,
    fed: usize,
}

/// Who must prove what.
struct Client {
    key: Ed25519PublicKey,
    session_id: Uuid,
    epoch: u32,
}

enum State {
    /// The client's Finished has not come; we may speak already.
    Handshake(Box<ServerConnection>),
    /// Its proof has not.
    Unproven(Records, [u8; 32]),
    Proven(Records),
    /// Something was wrong: nothing is said or heard any more.
    Failed,
}

impl DeviceEnd {
    /// Takes the ClientHello of an admitted request. The handshake's flight and the reply are the first that
    /// [`DeviceEnd::flush`] and [`DeviceEnd::write`] give out.
    ///
    /// # Errors
    /// The request holds no ClientHello that can be answered in one flight.
    pub fn accept(admitted: &Admitted, answer: &Answer<'_>) -> Result<Self, SealError> {
        let request = admitted.request();
        let (config, certificate) = server_config()?;
        let mut connection = ServerConnection::new(Arc::new(config))?;
        // Everything is taken out at once.
        connection.set_buffer_limit(None);
        let hello = request.offer.hello.as_slice();
        if record(hello) != Ok(Some(hello.len())) || hello.first() != Some(&HANDSHAKE) {
            return Err(SealError::Hello);
        }
        feed(&mut connection, &mut 0, hello)?;
        let facts = agreed(&connection)?;
        let resume = answer.resume.min(request.offer.resume).as_secs();
        let reply = SealedReply {
            v: 1,
            status: SealedReply::CONNECTED.into(),
            session_id: request.session_id.to_string(),
            epoch: request.offer.epoch,
            request: Digest(admitted.request_hash()),
            certificate: Digest(sha256(&certificate)),
            from: answer.at_sign.to_string(),
            device: answer.device.to_string(),
            to: admitted.voucher().at_sign().to_string(),
            resume: u32::try_from(resume).unwrap_or(u32::MAX),
            ssh_host_keys: answer.ssh_host_keys.to_vec(),
            iat: answer.now_ms,
        };
        let reply = Statement::print(Label::Reply, &reply, answer.identity, Some(answer.voucher));
        say(&mut connection, &statement_frame(&reply)?)?;
        let client = Client {
            key: *admitted.voucher().key(),
            session_id: request.session_id.clone(),
            epoch: request.offer.epoch,
        };
        Ok(Self { state: State::Handshake(Box::new(connection)), facts, client, fed: 0 })
    }

    /// Takes what came from the relay and hands out what it says: nothing before the client's proof is verified. Returns
    /// how many bytes were taken; the rest is offered again with more behind it.
    ///
    /// # Errors
    /// The other end is not who signed the request, or somebody changed a byte. There is no way on from there.
    pub fn read(&mut self, tls: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> Result<usize, SealError> {
        let mut taken = 0;
        let mut state = std::mem::replace(&mut self.state, State::Failed);
        if let State::Handshake(mut connection) = state {
            taken = feed(&mut connection, &mut self.fed, tls)?;
            state = if connection.is_handshaking() {
                State::Handshake(connection)
            } else {
                let exporter = exporter(&connection)?;
                State::Unproven(Records::new(connection.dangerous_extract_secrets()?)?, exporter)
            };
        }
        if let State::Unproven(mut records, exporter) = state {
            let rest = tls.get_mut(taken..).unwrap_or_default();
            state = match record(rest)? {
                None => State::Unproven(records, exporter),
                Some(length) => {
                    let mut text = Vec::new();
                    let proof = rest.get_mut(..length).unwrap_or_default();
                    taken += records.read(proof, &mut |part| text.extend_from_slice(part))?;
                    self.client.proves(statement_text(&text)?, &exporter)?;
                    State::Proven(records)
                }
            };
        }
        if let State::Proven(records) = &mut state {
            taken += records.read(tls.get_mut(taken..).unwrap_or_default(), plain)?;
        }
        self.state = state;
        Ok(taken)
    }

    /// Seals `head` and `body`, one behind the other, behind `tls`.
    ///
    /// # Errors
    /// The session has failed, or its key has sealed as much as it may.
    pub fn write(&mut self, head: &[u8], body: &[u8], tls: &mut Vec<u8>) -> Result<(), SealError> {
        match &mut self.state {
            State::Handshake(connection) => {
                say(connection, head)?;
                say(connection, body)?;
                drain(connection, tls);
                Ok(())
            }
            State::Unproven(records, _) | State::Proven(records) => Ok(records.write(head, body, tls)?),
            State::Failed => Err(SealError::Handshake("it is over".into())),
        }
    }

    /// Puts behind `tls` what is to be said before anything else.
    pub fn flush(&mut self, tls: &mut Vec<u8>) {
        if let State::Handshake(connection) = &mut self.state {
            drain(connection, tls);
        }
    }

    /// Puts `close_notify` behind `tls`.
    pub fn close(&mut self, tls: &mut Vec<u8>) {
        match &mut self.state {
            State::Handshake(connection) => {
                connection.send_close_notify();
                drain(connection, tls);
            }
            // An exhausted key cannot say goodbye; the other end takes it for a loss, as it should.
            State::Unproven(records, _) | State::Proven(records) => drop(records.close(tls)),
            State::Failed => {}
        }
    }

    /// The other end has said `close_notify`.
    pub fn closed(&self) -> bool {
        matches!(&self.state, State::Proven(records) if records.closed())
    }

    /// The client has shown that it is who signed the request.
    pub fn proven(&self) -> bool {
        matches!(self.state, State::Proven(_))
    }

    /// What the handshake agreed on.
    pub fn facts(&self) -> Facts {
        self.facts
    }
}

/// TLS content type of handshake records.
const HANDSHAKE: u8 = 22;

impl Client {
    fn proves(&self, text: &str, exporter: &[u8; 32]) -> Result<(), SealError> {
        let statement = Statement::parse(text).map_err(SealError::Statement)?;
        let said: Proof = statement.verify(Label::Proof, &self.key).map_err(SealError::Statement)?;
        let wanted = Proof::new(&self.session_id, self.epoch, *exporter);
        if said.exporter != wanted.exporter {
            return Err(SealError::OtherExporter);
        }
        if said == wanted { Ok(()) } else { Err(SealError::OtherSession) }
    }
}

/// Speaks before the client's Finished has come.
pub(crate) fn say(connection: &mut ServerConnection, bytes: &[u8]) -> Result<(), SealError> {
    connection.writer().write_all(bytes).map_err(|error| SealError::Handshake(error.to_string()))
}

/// A server with a certificate of its own, good for one handshake; and that certificate.
pub(crate) fn server_config() -> Result<(ServerConfig, CertificateDer<'static>), SealError> {
    let made = |_: rcgen::Error| SealError::Crypto;
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(made)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let certificate = params.self_signed(&key).map_err(made)?.der().clone();
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(NoClock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = true;
    config.enable_secret_extraction = true;
    Ok((config, certificate))
}

impl fmt::Debug for DeviceEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceEnd").field("facts", &self.facts).field("proven", &self.proven()).finish_non_exhaustive()
    }
}
