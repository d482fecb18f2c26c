//! TLS 1.3 record protection after the handshake, in the buffers of whoever drives it. Source: RFC 8446, section 5.
//!
//! rustls makes the handshake and the keys, and could carry the bytes too; but its ways to hand them out copy each record
//! twice on the way in and twice on the way out, which costs a fifth of what a whole tunnel costs. Here a record is opened
//! where it was read, and sealed where it will be written from.

use std::fmt;

use postern_crypto::{AeadAlgorithm, AeadKey};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

/// Both directions of an established TLS 1.3 session.
pub struct Records {
    sealing: Direction,
    opening: Direction,
    closed: bool,
}

/// Why a record layer gave up. Nothing can be read behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// A record that was changed on its way, left out, repeated or moved.
    Changed,
    /// Bytes that are no record of an established session.
    NoRecord,
    /// The other end sent an alert.
    Alert(u8),
    /// The other end sent something behind its last words, or a message that this session does not use.
    OutOfPlace,
    /// One key has sealed as much as it may: the session needs a new handshake.
    Exhausted,
    /// The keys are not of a cipher that is used here.
    Cipher,
}

struct Direction {
    key: AeadKey,
    iv: [u8; AeadKey::NONCE_BYTES],
    next: u64,
    limit: u64,
}

const HEADER: usize = 5;
/// Plain text of a record (RFC 8446, section 5.1), and what sealing may add at most (5.2).
const PLAIN: usize = 1 << 14;
const SEALED: usize = PLAIN + 256;
/// Records under one key of AES-GCM (section 5.5): 2^24.5 full ones; ChaCha20 has no limit that matters.
const GCM_RECORDS: u64 = 1 << 24;

const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
const CLOSE_NOTIFY: [u8; 2] = [1, 0];

impl Records {
    /// Goes on from where rustls stands.
    ///
    /// # Errors
    /// [`RecordError::Cipher`].
    pub fn new(secrets: ExtractedSecrets) -> Result<Self, RecordError> {
        let ExtractedSecrets { tx, rx } = secrets;
        Ok(Self { sealing: Direction::new(tx)?, opening: Direction::new(rx)?, closed: false })
    }

    /// With keys that both ends have from elsewhere, each for one direction of one session: for benches and fuzzing.
    ///
    /// # Errors
    /// [`RecordError::Cipher`]: keys of another length than 32 bytes.
    pub fn danger_with_keys(cipher: AeadAlgorithm, sealing: &[u8], opening: &[u8]) -> Result<Self, RecordError> {
        let direction = |key| -> Result<Direction, RecordError> {
            let key = AeadKey::new(cipher, key).map_err(|_| RecordError::Cipher)?;
            Ok(Direction { key, iv: [0; AeadKey::NONCE_BYTES], next: 0, limit: GCM_RECORDS })
        };
        Ok(Self { sealing: direction(sealing)?, opening: direction(opening)?, closed: false })
    }

    /// Opens the whole records in `tls`, in place, and hands out what they say. Returns how many bytes they were.
    ///
    /// # Errors
    /// Nothing of the record in question, or behind it, was handed out.
    pub fn read(&mut self, tls: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> Result<usize, RecordError> {
        let mut taken = 0;
        loop {
            let rest = tls.get_mut(taken..).unwrap_or_default();
            let Some((header, rest)) = rest.split_first_chunk_mut::<HEADER>() else { return Ok(taken) };
            let [kind, _, _, high, low] = *header;
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind != APPLICATION_DATA || length > SEALED {
                return Err(RecordError::NoRecord);
            }
            let Some(body) = rest.get_mut(..length) else { return Ok(taken) };
            taken += HEADER + length;
            if self.closed {
                return Err(RecordError::OutOfPlace);
            }
            let nonce = self.opening.nonce()?;
            let inner = self.opening.key.open(nonce, header, body).map_err(|_| RecordError::Changed)?;
            // Padding is zeros behind the kind.
            let end = inner.iter().rposition(|byte| *byte != 0).ok_or(RecordError::OutOfPlace)?;
            let (text, kind) = inner.split_at(end);
            match kind.first() {
                Some(&APPLICATION_DATA) if text.len() <= PLAIN => {
                    if !text.is_empty() {
                        plain(text);
                    }
                }
                Some(&ALERT) => match *text {
                    [_, 0] => self.closed = true,
                    [_, alert] => return Err(RecordError::Alert(alert)),
                    _ => return Err(RecordError::OutOfPlace),
                },
                _ => return Err(RecordError::OutOfPlace),
            }
        }
    }

    /// Seals `head` and `body`, one behind the other, into records behind `tls`.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`].
    pub fn write(&mut self, mut head: &[u8], mut body: &[u8], tls: &mut Vec<u8>) -> Result<(), RecordError> {
        let length = head.len() + body.len();
        tls.reserve(length + length.div_ceil(PLAIN) * (HEADER + 1 + AeadKey::TAG_BYTES));
        while !head.is_empty() || !body.is_empty() {
            let (first, rest) = head.split_at(head.len().min(PLAIN));
            let (second, behind) = body.split_at(body.len().min(PLAIN - first.len()));
            (head, body) = (rest, behind);
            self.record(APPLICATION_DATA, first, second, tls)?;
        }
        Ok(())
    }

    /// Puts `close_notify` behind `tls`.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`].
    pub fn close(&mut self, tls: &mut Vec<u8>) -> Result<(), RecordError> {
        self.record(ALERT, &CLOSE_NOTIFY, &[], tls)
    }

    /// The other end has said `close_notify`.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    fn record(&mut self, kind: u8, first: &[u8], second: &[u8], tls: &mut Vec<u8>) -> Result<(), RecordError> {
        let nonce = self.sealing.nonce()?;
        let inner = first.len() + second.len() + 1;
        let [high, low] = u16::try_from(inner + AeadKey::TAG_BYTES).unwrap_or(u16::MAX).to_be_bytes();
        let header = [APPLICATION_DATA, 3, 3, high, low];
        tls.extend_from_slice(&header);
        let start = tls.len();
        tls.extend_from_slice(first);
        tls.extend_from_slice(second);
        tls.push(kind);
        let inner = tls.get_mut(start..).unwrap_or_default();
        let tag = self.sealing.key.seal(nonce, &header, inner).map_err(|_| RecordError::Cipher)?;
        tls.extend_from_slice(&tag);
        Ok(())
    }
}

impl Direction {
    fn new((next, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, RecordError> {
        use ConnectionTrafficSecrets::{Aes256Gcm, Chacha20Poly1305};
        let (algorithm, key, iv, limit) = match &secrets {
            Aes256Gcm { key, iv } => (AeadAlgorithm::Aes256Gcm, key, iv, GCM_RECORDS),
            Chacha20Poly1305 { key, iv } => (AeadAlgorithm::ChaCha20Poly1305, key, iv, u64::MAX),
            _ => return Err(RecordError::Cipher),
        };
        let key = AeadKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Cipher)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Cipher)?;
        Ok(Self { key, iv, next, limit })
    }

    /// The nonce of the next record (RFC 8446, section 5.3). Each is given out once.
    fn nonce(&mut self) -> Result<[u8; AeadKey::NONCE_BYTES], RecordError> {
        if self.next >= self.limit {
            return Err(RecordError::Exhausted);
        }
        let mut nonce = self.iv;
        nonce.iter_mut().rev().zip(self.next.to_le_bytes()).for_each(|(byte, count)| *byte ^= count);
        self.next += 1;
        Ok(nonce)
    }
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("somebody between the ends changed what was sent; try another relay"),
            Self::NoRecord => f.write_str("what came is no TLS record: it was changed on its way; try another relay"),
            Self::Alert(code) => write!(f, "the other end gave up (TLS alert {code})"),
            Self::OutOfPlace => f.write_str("the other end sent a TLS message out of place"),
            Self::Exhausted => f.write_str("the session has carried as much as one key may"),
            Self::Cipher => f.write_str("the TLS session has a cipher that is not used here"),
        }
    }
}

impl std::error::Error for RecordError {}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::Arc;

    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    use rustls::{CipherSuite, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
    use rustls_pki_types::PrivatePkcs8KeyDer;

    use super::*;

    const SUITES: [CipherSuite; 2] =
        [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256];

    /// A client and a server of rustls that have shaken hands.
    fn rustls_pair(suite: CipherSuite) -> (ClientConnection, ServerConnection) {
        let suites = aws_lc_rs::ALL_CIPHER_SUITES.iter().copied().filter(|s| s.suite() == suite).collect();
        let provider = Arc::new(CryptoProvider { cipher_suites: suites, ..aws_lc_rs::default_provider() });
        let made = rcgen::generate_simple_self_signed(vec!["x".into()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        server.send_tls13_tickets = 0;
        server.enable_secret_extraction = true;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.enable_secret_extraction = true;
        let mut client = ClientConnection::new(Arc::new(client), "x".try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            feed(&mut server, &wire);
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            feed(&mut client, &wire);
        }
        (client, server)
    }

    fn feed<D>(end: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<D>>, mut wire: &[u8]) {
        while !wire.is_empty() {
            end.read_tls(&mut wire).unwrap();
            end.process_new_packets().unwrap();
        }
    }

    fn pair(suite: CipherSuite) -> (Records, Records) {
        let (client, server) = rustls_pair(suite);
        let records = |secrets| Records::new(secrets).unwrap();
        (records(client.dangerous_extract_secrets().unwrap()), records(server.dangerous_extract_secrets().unwrap()))
    }

    fn read(records: &mut Records, tls: &mut [u8]) -> Result<(usize, Vec<u8>), RecordError> {
        let mut plain = Vec::new();
        let taken = records.read(tls, &mut |part| plain.extend_from_slice(part))?;
        Ok((taken, plain))
    }

    #[test]
    fn rustls_understands_us_and_we_understand_rustls() {
        for suite in SUITES {
            let text: Vec<u8> = (0..50_000_u32).map(|n| n.to_le_bytes()[0]).collect();
            let (client, mut server) = rustls_pair(suite);
            let mut ours = Records::new(client.dangerous_extract_secrets().unwrap()).unwrap();
            let mut tls = Vec::new();
            ours.write(&text[..20_000], &text[20_000..], &mut tls).unwrap();
            ours.close(&mut tls).unwrap();
            let (mut wire, mut got) = (&tls[..], Vec::new());
            while !wire.is_empty() {
                server.read_tls(&mut wire).unwrap();
                server.process_new_packets().unwrap();
                let _ = server.reader().read_to_end(&mut got);
            }
            assert!(got == text);
            assert_eq!(server.reader().read(&mut [0]).unwrap(), 0, "close_notify was understood");

            server.writer().write_all(&text).unwrap();
            server.send_close_notify();
            let mut tls = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut tls).unwrap();
            }
            assert!(!ours.closed());
            assert_eq!(read(&mut ours, &mut tls.clone()).unwrap(), (tls.len(), text));
            assert!(ours.closed());
        }
    }

    #[test]
    fn records_come_in_pieces() {
        let (mut client, mut device) = pair(SUITES[0]);
        let mut tls = Vec::new();
        client.write(b"hello ", b"world", &mut tls).unwrap();
        client.write(b"again", b"", &mut tls).unwrap();
        let first = tls.len() - 5 - 5 - 17;
        for cut in 0..first {
            assert_eq!(read(&mut device, &mut tls[..cut].to_vec()), Ok((0, Vec::new())));
        }
        assert_eq!(read(&mut device, &mut tls[..=first].to_vec()), Ok((first, b"hello world".to_vec())));
        assert_eq!(read(&mut device, &mut tls[first..].to_vec()), Ok((tls.len() - first, b"again".to_vec())));
    }

    #[test]
    fn whatever_is_changed_repeated_left_out_or_moved_is_refused() {
        let (mut client, mut device) = pair(SUITES[1]);
        let (mut one, mut two) = (Vec::new(), Vec::new());
        client.write(b"one", b"", &mut one).unwrap();
        client.write(b"two", b"", &mut two).unwrap();
        let fresh = |device: &mut Records| device.opening.next = 0;
        let next = device.opening.next;
        for bit in 0..one.len() * 8 {
            let mut changed = one.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // A longer length waits for more; everything else is an error; nothing is ever handed out.
            assert!(matches!(read(&mut device, &mut changed), Err(_) | Ok((0, _))), "bit {bit}");
            device.opening.next = next;
        }
        assert_eq!(read(&mut device, &mut two.clone()), Err(RecordError::Changed), "left out");
        device.opening.next = next;
        assert!(read(&mut device, &mut one.clone()).is_ok());
        assert_eq!(read(&mut device, &mut one.clone()), Err(RecordError::Changed), "repeated");
        fresh(&mut device);
        let mut own = Vec::new();
        device.write(b"one", b"", &mut own).unwrap();
        assert_eq!(read(&mut device, &mut own), Err(RecordError::Changed), "sent back to its sender");
    }

    #[test]
    fn nothing_comes_behind_the_last_words_and_messages_that_are_not_used_are_refused() {
        let (mut client, mut device) = pair(SUITES[0]);
        let mut tls = Vec::new();
        client.close(&mut tls).unwrap();
        client.write(b"x", b"", &mut tls).unwrap();
        assert_eq!(read(&mut device, &mut tls), Err(RecordError::OutOfPlace));
        let (mut client, mut device) = pair(SUITES[0]);
        let mut key_update = Vec::new();
        client.record(22, &[24, 0, 0, 1, 0], &[], &mut key_update).unwrap();
        assert_eq!(read(&mut device, &mut key_update), Err(RecordError::OutOfPlace));
        let mut alert = Vec::new();
        client.record(ALERT, &[2, 20], &[], &mut alert).unwrap();
        assert_eq!(read(&mut device, &mut alert), Err(RecordError::Alert(20)));
        assert_eq!(read(&mut device, &mut [22, 3, 3, 0, 1, 0]), Err(RecordError::NoRecord));
        assert_eq!(read(&mut device, &mut [23, 3, 3, 255, 255, 0]), Err(RecordError::NoRecord));
    }

    #[test]
    fn a_key_seals_only_so_much() {
        let (mut client, _) = pair(SUITES[0]);
        client.sealing.next = GCM_RECORDS - 1;
        assert!(client.write(b"x", b"", &mut Vec::new()).is_ok());
        assert_eq!(client.write(b"x", b"", &mut Vec::new()), Err(RecordError::Exhausted));
    }
}
