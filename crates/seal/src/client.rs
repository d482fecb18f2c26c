//! The client's end: knock, wait for the reply, believe it, and only then say a word.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use postern_crypto::{Ed25519PrivateKey, sha256};
use postern_identity::limits::CLOCK_TOLERANCE_MS;
use postern_identity::{DeviceName, Label, Statement, Voucher};
use postern_proto::{AtSign, Uuid};
use postern_session::{Proof, SealedReply};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::Records;
use crate::error::SealError;
use crate::tls::{
    ALPN, Facts, NoClock, agreed, drain, exporter, feed, provider, record, statement_frame, statement_text,
};

/// A ClientHello that is made and goes into the request; it never travels through the relay.
pub struct Knock {
    connection: ClientConnection,
}

/// What the request asked, and whom: the reply must say the same.
#[derive(Clone, Debug)]
pub struct Asked {
    /// SHA-256 of the request's payload text, as it was signed.
    pub request: [u8; 32],
    /// Its session.
    pub session_id: Uuid,
    /// Its epoch.
    pub epoch: u32,
    /// The device's atSign.
    pub at_sign: AtSign,
    /// The device's name.
    pub device: DeviceName,
    /// Our own atSign.
    pub own: AtSign,
}

/// A client's end before the reply was believed. It has no way to send.
pub struct Waiting {
    asked: Asked,
    state: State,
    fed: usize,
    reply: Option<Statement>,
}

enum State {
    Handshake(Box<ClientConnection>),
    Done(Box<Done>),
    /// The handshake came to nothing.
    Failed,
}

/// A handshake that is over at our side, and what it leaves.
struct Done {
    records: Records,
    facts: Facts,
    exporter: [u8; 32],
    /// SHA-256 of the certificate's DER.
    certificate: [u8; 32],
    /// Our Finished, kept back until the reply is believed.
    finished: Vec<u8>,
}

impl Done {
    fn new(mut connection: ClientConnection) -> Result<Self, SealError> {
        let facts = agreed(&connection)?;
        let exporter = exporter(&connection)?;
        let certificate = match connection.peer_certificates() {
            Some([certificate]) => sha256(certificate),
            _ => return Err(SealError::OtherCertificate),
        };
        let mut finished = Vec::new();
        drain(&mut connection, &mut finished);
        let records = Records::new(connection.dangerous_extract_secrets()?)?;
        Ok(Self { records, facts, exporter, certificate, finished })
    }
}

/// The client's end of a sealed session: only [`Waiting::open`] makes one.
pub struct ClientEnd {
    records: Records,
    facts: Facts,
    reply: SealedReply,
    /// Finished and the proof, until they are taken.
    outgoing: Vec<u8>,
}

impl Knock {
    /// Makes the ClientHello; the second is the TLS record for the request.
    ///
    /// # Errors
    /// [`SealError::Handshake`]: there is no randomness.
    pub fn new() -> Result<(Self, Vec<u8>), SealError> {
        Self::with_provider(provider())
    }

    pub(crate) fn with_provider(provider: Arc<CryptoProvider>) -> Result<(Self, Vec<u8>), SealError> {
        let verifier = Arc::new(FreshCertificate(Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_details(provider, Arc::new(NoClock))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        config.enable_secret_extraction = true;
        let name = ServerName::try_from("postern").map_err(|_| SealError::Crypto)?;
        let mut connection = ClientConnection::new(Arc::new(config), name)?;
        let mut hello = Vec::new();
        drain(&mut connection, &mut hello);
        Ok((Self { connection }, hello))
    }

    /// Waits for the answer to the request that carries the hello.
    #[must_use]
    pub fn asked(self, asked: Asked) -> Waiting {
        Waiting { asked, state: State::Handshake(Box::new(self.connection)), fed: 0, reply: None }
    }
}

impl Waiting {
    /// Takes the device's flight up to its reply, whole records at a time. Returns how many bytes were taken; what lies
    /// behind the reply stays with the caller for [`ClientEnd::read`].
    ///
    /// # Errors
    /// What came is no answer to our ClientHello, or was changed. There is no way on from there.
    pub fn read(&mut self, tls: &[u8]) -> Result<usize, SealError> {
        let mut taken = 0;
        if matches!(self.state, State::Handshake(_))
            && let State::Handshake(mut connection) = std::mem::replace(&mut self.state, State::Failed)
        {
            taken = feed(&mut connection, &mut self.fed, tls)?;
            self.state = if connection.is_handshaking() {
                State::Handshake(connection)
            } else {
                State::Done(Box::new(Done::new(*connection)?))
            };
        }
        let State::Done(done) = &mut self.state else { return Ok(taken) };
        if self.reply.is_some() {
            return Ok(taken);
        }
        let rest = tls.get(taken..).unwrap_or_default();
        let Some(length) = record(rest)? else { return Ok(taken) };
        let (mut bytes, mut plain) = (rest.get(..length).unwrap_or_default().to_vec(), Vec::new());
        done.records.read(&mut bytes, &mut |part| plain.extend_from_slice(part))?;
        self.reply = Some(Statement::parse(statement_text(&plain)?).map_err(SealError::Statement)?);
        Ok(taken + length)
    }

    /// The reply, once it is here whole; not yet believed. Its voucher says where to find the keys to believe it with.
    pub fn reply(&self) -> Option<&Statement> {
        self.reply.as_ref()
    }

    /// Believes the reply, or not. `voucher`: the believed voucher of the device's identity key. `identity`: the key that
    /// signed the request. `now_ms`: since 1970. Finished and the proof go out first; nothing went out before.
    ///
    /// # Errors
    /// See [`SealError`]: the reply is for another request, session, epoch, client or connection, by another device or key,
    /// or of another time.
    pub fn open(self, voucher: &Voucher, identity: &Ed25519PrivateKey, now_ms: u64) -> Result<ClientEnd, SealError> {
        let (asked, Some(statement), State::Done(mut done)) = (self.asked, self.reply, self.state) else {
            return Err(SealError::NoStatement);
        };
        let name = |device: &str, at_sign: &str| format!("{device}{at_sign}");
        let wanted = name(asked.device.as_str(), asked.at_sign.as_str());
        if voucher.at_sign() != &asked.at_sign || voucher.device() != Some(&asked.device) {
            let got = name(voucher.device().map_or("a client of ", DeviceName::as_str), voucher.at_sign().as_str());
            return Err(SealError::OtherDevice { wanted, got });
        }
        let reply: SealedReply = statement.verify(Label::Reply, voucher.key()).map_err(SealError::Statement)?;
        if !reply.is_good() {
            return Err(SealError::NotConnected);
        }
        if reply.request.0 != asked.request {
            return Err(SealError::OtherRequest);
        }
        if Uuid::parse(&reply.session_id).as_ref() != Some(&asked.session_id) || reply.epoch != asked.epoch {
            return Err(SealError::OtherSession);
        }
        if reply.certificate.0 != done.certificate {
            return Err(SealError::OtherCertificate);
        }
        let is = |text: &str, at_sign: &AtSign| AtSign::parse(text).is_ok_and(|said| said == *at_sign);
        if !is(&reply.from, &asked.at_sign) || DeviceName::parse(&reply.device).as_ref() != Ok(&asked.device) {
            let printable = |text: &str| text.chars().filter(|c| !c.is_control()).take(100).collect::<String>();
            return Err(SealError::OtherDevice {
                wanted,
                got: name(&printable(&reply.device), &printable(&reply.from)),
            });
        }
        if !is(&reply.to, &asked.own) {
            return Err(SealError::OtherClient);
        }
        if now_ms.abs_diff(reply.iat) > CLOCK_TOLERANCE_MS {
            let seconds = i64::try_from(now_ms.abs_diff(reply.iat) / 1000).unwrap_or(i64::MAX);
            return Err(SealError::Clock { seconds: if reply.iat > now_ms { -seconds } else { seconds } });
        }
        let proof = Proof::new(&asked.session_id, asked.epoch, done.exporter);
        let proof = statement_frame(&Statement::print(Label::Proof, &proof, identity, None))?;
        let mut outgoing = done.finished;
        done.records.write(&proof, &[], &mut outgoing)?;
        Ok(ClientEnd { records: done.records, facts: done.facts, reply, outgoing })
    }

    /// What the request asked.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }
}

#[cfg(test)]
impl Waiting {
    pub(crate) fn asked_mut(&mut self) -> &mut Asked {
        &mut self.asked
    }

    /// A client that will not say what it should: its records, its exporter, its Finished.
    pub(crate) fn taken_apart(self) -> (Asked, Records, [u8; 32], Vec<u8>) {
        let State::Done(done) = self.state else { panic!("the flight is not whole") };
        (self.asked, done.records, done.exporter, done.finished)
    }
}

impl ClientEnd {
    /// What the device said of itself, believed.
    pub fn reply(&self) -> &SealedReply {
        &self.reply
    }

    /// How long a lost connection may stay lost, as the device says; zero: not at all.
    pub fn resume(&self) -> Duration {
        Duration::from_secs(self.reply.resume.into())
    }

    /// What the handshake agreed on.
    pub fn facts(&self) -> Facts {
        self.facts
    }

    /// Opens the whole records in `tls`, in place, and hands out what they say. Returns how many bytes they were.
    ///
    /// # Errors
    /// Nothing of the record in question, or behind it, was handed out.
    pub fn read(&mut self, tls: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> Result<usize, SealError> {
        Ok(self.records.read(tls, plain)?)
    }

    /// Seals `head` and `body`, one behind the other, behind `tls`.
    ///
    /// # Errors
    /// The key has sealed as much as it may.
    pub fn write(&mut self, head: &[u8], body: &[u8], tls: &mut Vec<u8>) -> Result<(), SealError> {
        self.flush(tls);
        Ok(self.records.write(head, body, tls)?)
    }

    /// Puts behind `tls` what is to be said before anything else.
    pub fn flush(&mut self, tls: &mut Vec<u8>) {
        tls.append(&mut self.outgoing);
    }

    /// Puts `close_notify` behind `tls`.
    pub fn close(&mut self, tls: &mut Vec<u8>) {
        self.flush(tls);
        // An exhausted key cannot say goodbye; the other end takes it for a loss, as it should.
        let _ = self.records.close(tls);
    }

    /// The other end has said `close_notify`.
    pub fn closed(&self) -> bool {
        self.records.closed()
    }
}

/// Any certificate will do for TLS: the reply names it by its hash. That the other end holds its key is checked here.
#[derive(Debug)]
struct FreshCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for FreshCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientEnd").field("facts", &self.facts).finish_non_exhaustive()
    }
}
