//! The two ends of a sealed session: TLS 1.3 between client and device, through a relay that sees ciphertext.
//!
//! Pure: bytes and `now` in, bytes and decisions out; rustls is used without sockets. Source: docs/protocol/sealed.md.

mod records;

pub use records::{RecordError, Records};
