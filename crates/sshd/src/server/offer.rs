//! What the server offers: algorithms, and one way to log in.

use std::time::Duration;

use russh::keys::Algorithm;
use russh::server::Config;
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

use crate::key::HostKey;
use crate::limits::{PACKET, TRIES, WINDOW};

pub(super) fn config(key: &HostKey) -> Config {
    Config {
        server_id: SshId::Standard(concat!("SSH-2.0-Postern_", env!("CARGO_PKG_VERSION")).into()),
        methods: MethodSet::from([MethodKind::None].as_slice()),
        // Nobody guesses here: who asks is known.
        auth_rejection_time: Duration::ZERO,
        keys: vec![key.private()],
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        preferred: Preferred {
            kex: (&[
                kex::MLKEM768X25519_SHA256,
                kex::CURVE25519,
                kex::CURVE25519_PRE_RFC_8731,
                kex::EXTENSION_SUPPORT_AS_SERVER,
                // Terrapin, CVE-2023-48795.
                kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
            ])
                .into(),
            key: (&[Algorithm::Ed25519]).into(),
            host_key_certificates: (&[]).into(),
            cipher: (&[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]).into(),
            // Named because one must be; the ciphers above need none.
            mac: (&[mac::HMAC_SHA256_ETM]).into(),
            compression: (&[compression::NONE]).into(),
        },
        max_auth_attempts: TRIES,
        // The sealed session knows when its other end is gone.
        inactivity_timeout: None,
        ..Config::default()
    }
}
