//! What both ends want of TLS, and a handshake that is fed one record at a time. Source: docs/protocol/sealed.md, "TLS".

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::time_provider::TimeProvider;
use rustls::{CommonState, ConnectionCommon, HandshakeKind};
use rustls_pki_types::UnixTime;

use crate::error::SealError;
use crate::limits::{FLIGHT_RECORDS, RECORD_BYTES, STATEMENT_FRAME_BYTES};

/// The protocol inside, as ALPN names it.
pub(crate) const ALPN: &[u8] = b"postern-sealed/1";
const EXPORTER_LABEL: &[u8] = b"EXPORTER-postern-sealed";
/// Kind of the frame with which each direction begins.
const STATEMENT: u8 = 0x01;
const FRAME_HEADER: usize = 8;
const RECORD_HEADER: usize = 5;

/// What a handshake agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Name of the key exchange group: `X25519MLKEM768`.
    pub key_exchange: &'static str,
    /// Name of the cipher suite: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS 1.3, {}, {}", self.key_exchange, self.cipher)
    }
}

/// Two groups, two suites; the suite first that this processor is fast at.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::{TLS13_AES_256_GCM_SHA384 as AES, TLS13_CHACHA20_POLY1305_SHA256 as CHACHA};
    use aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
    let cipher_suites = if has_aes() { vec![AES, CHACHA] } else { vec![CHACHA, AES] };
    let kx_groups = vec![X25519MLKEM768, X25519];
    Arc::new(CryptoProvider { cipher_suites, kx_groups, ..aws_lc_rs::default_provider() })
}

/// Without these instructions AES is three times slower than ChaCha20, and its duration depends on the key.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The certificates are made for one session and are known by their hash: their dates say nothing.
#[derive(Debug)]
pub(crate) struct NoClock;

impl TimeProvider for NoClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::ZERO))
    }
}

/// Length of the record that `tls` begins with, header included. `None`: it is not here whole.
pub(crate) fn record(tls: &[u8]) -> Result<Option<usize>, SealError> {
    let Some(&[_, _, _, high, low]) = tls.first_chunk::<RECORD_HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > RECORD_BYTES {
        return Err(SealError::Handshake("a record of an impossible length".into()));
    }
    let whole = RECORD_HEADER + length;
    Ok((tls.len() >= whole).then_some(whole))
}

/// Feeds a handshake until it is over. Returns how many bytes of `tls` were taken: whole records, and none behind the
/// handshake's last. `fed` counts the records of the flight.
pub(crate) fn feed<D>(connection: &mut ConnectionCommon<D>, fed: &mut usize, tls: &[u8]) -> Result<usize, SealError> {
    let mut taken = 0;
    while connection.is_handshaking() {
        let rest = tls.get(taken..).unwrap_or_default();
        let Some(length) = record(rest)? else { break };
        *fed += 1;
        if *fed > FLIGHT_RECORDS {
            return Err(SealError::Handshake("a flight that does not end".into()));
        }
        let mut bytes = rest.get(..length).unwrap_or_default();
        while !bytes.is_empty() {
            let read = connection.read_tls(&mut bytes).map_err(|error| SealError::Handshake(error.to_string()))?;
            if read == 0 {
                return Err(SealError::Handshake("bytes behind its end".into()));
            }
            connection.process_new_packets()?;
        }
        taken += length;
    }
    Ok(taken)
}

/// Puts what a connection has to say behind `tls`.
pub(crate) fn drain<D>(connection: &mut ConnectionCommon<D>, tls: &mut Vec<u8>) {
    while connection.wants_write() {
        if !matches!(connection.write_tls(&mut *tls as &mut dyn io::Write), Ok(1..)) {
            break;
        }
    }
}

/// One round trip, our protocol, our groups: nothing else is a sealed session.
pub(crate) fn agreed(common: &CommonState) -> Result<Facts, SealError> {
    let wrong = |what: &str| SealError::Handshake(what.to_owned());
    if common.handshake_kind() != Some(HandshakeKind::Full) {
        return Err(wrong("it asked for a second ClientHello"));
    }
    if common.alpn_protocol() != Some(ALPN) {
        return Err(wrong("another protocol"));
    }
    let group = common.negotiated_key_exchange_group().map(|group| group.name());
    let suite = common.negotiated_cipher_suite().map(|suite| suite.suite());
    let key_exchange = group.and_then(|name| name.as_str()).ok_or_else(|| wrong("no key exchange"))?;
    let cipher = suite.and_then(|suite| suite.as_str()).ok_or_else(|| wrong("no cipher"))?;
    Ok(Facts { key_exchange, cipher })
}

/// What both ends of this TLS session know and nobody else.
pub(crate) fn exporter<D>(connection: &ConnectionCommon<D>) -> Result<[u8; 32], SealError> {
    Ok(connection.export_keying_material([0; 32], EXPORTER_LABEL, None)?)
}

/// A STATEMENT frame with this text.
///
/// # Errors
/// [`SealError::StatementTooLong`].
pub(crate) fn statement_frame(text: &str) -> Result<Vec<u8>, SealError> {
    let length = u16::try_from(text.len()).ok().filter(|_| text.len() <= STATEMENT_FRAME_BYTES);
    let [high, low] = length.ok_or(SealError::StatementTooLong)?.to_be_bytes();
    Ok([&[STATEMENT, 0, high, low, 0, 0, 0, 0], text.as_bytes()].concat())
}

/// The text of a record that is one STATEMENT frame and nothing else.
pub(crate) fn statement_text(plain: &[u8]) -> Result<&str, SealError> {
    let (header, text) = plain.split_first_chunk::<FRAME_HEADER>().ok_or(SealError::NoStatement)?;
    let [STATEMENT, 0, high, low, 0, 0, 0, 0] = *header else { return Err(SealError::NoStatement) };
    if usize::from(u16::from_be_bytes([high, low])) != text.len() || text.len() > STATEMENT_FRAME_BYTES {
        return Err(SealError::NoStatement);
    }
    std::str::from_utf8(text).map_err(|_| SealError::NoStatement)
}
