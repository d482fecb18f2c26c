//! A TLS server of the attacker's, which says what it likes where a device says its reply.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use postern_crypto::sha256;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::crypto::aws_lc_rs;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::PrivatePkcs8KeyDer;

pub(crate) struct Impostor {
    connection: ServerConnection,
    /// SHA-256 of its certificate.
    pub(crate) certificate: [u8; 32],
    /// What was said to it.
    pub(crate) heard: Vec<u8>,
}

impl Impostor {
    /// Takes the ClientHello of somebody's request. `None`: it is none.
    pub(crate) fn new(hello: &[u8]) -> Option<Self> {
        let key = KeyPair::generate_for(&PKCS_ED25519).ok()?;
        let certificate = CertificateParams::default().self_signed(&key).ok()?.der().clone();
        let hash = sha256(&certificate);
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .ok()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .ok()?;
        config.alpn_protocols = vec![b"postern-sealed/1".to_vec()];
        config.send_tls13_tickets = 0;
        config.send_half_rtt_data = true;
        let mut connection = ServerConnection::new(Arc::new(config)).ok()?;
        let mut rest = hello;
        connection.read_tls(&mut rest).ok()?;
        connection.process_new_packets().ok()?;
        Some(Self { connection, certificate: hash, heard: Vec::new() })
    }

    /// A flight, and this text in the place of the reply.
    pub(crate) fn say(&mut self, reply: &str) -> Vec<u8> {
        let mut wire = Vec::new();
        let [high, low] = u16::try_from(reply.len()).unwrap_or(u16::MAX).to_be_bytes();
        let frame = [&[1, 0, high, low, 0, 0, 0, 0], reply.as_bytes()].concat();
        // The flight and the statement are records of their own: what is written goes out in one piece.
        while self.connection.wants_write() && self.connection.write_tls(&mut wire).is_ok() {}
        let _ = self.connection.writer().write_all(&frame);
        while self.connection.wants_write() && self.connection.write_tls(&mut wire).is_ok() {}
        wire
    }

    pub(crate) fn hear(&mut self, mut tls: &[u8]) {
        while !tls.is_empty() {
            if !matches!(self.connection.read_tls(&mut tls), Ok(1..)) || self.connection.process_new_packets().is_err()
            {
                return;
            }
            let mut heard = [0; 4096];
            while let Ok(n @ 1..) = self.connection.reader().read(&mut heard) {
                self.heard.extend_from_slice(&heard[..n]);
            }
        }
    }
}
