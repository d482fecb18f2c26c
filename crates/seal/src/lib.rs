//! The two ends of a sealed session: TLS 1.3 between client and device, through a relay that sees ciphertext.
//!
//! ```text
//! client:  Knock::new ─► hello, into the request ─► Knock::asked ─► Waiting::read … reply ─► Waiting::open ─► ClientEnd
//! device:  Door::knock_sealed ─► Admitted ─► DeviceEnd::accept ─► flush (flight, reply) … read (proof) ─► proven
//! ```
//!
//! [`Waiting`] cannot send, and [`DeviceEnd`] hands out nothing before the client's proof: who may do what is a matter of
//! types. rustls makes handshake and keys; then [`Records`] carries the bytes. Pure but for the randomness of keys, which
//! the cipher library takes from the system: bytes and `now` in, bytes and decisions out. Source: docs/protocol/sealed.md.

mod client;
mod device;
mod error;
pub mod limits;
mod records;
#[cfg(test)]
mod tests;
mod tls;

pub use client::{Asked, ClientEnd, Knock, Waiting};
pub use device::{Answer, DeviceEnd};
pub use error::SealError;
pub use records::{RecordError, Records};
pub use tls::Facts;
