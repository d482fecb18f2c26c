//! Who we are to the other end, and whom we believe: identity keys with their vouchers, and pins.
//!
//! [`OwnIdentity`] is our Ed25519 key, made where it lives, and the voucher for it. [`KnownKeys`] decides whether the
//! voucher of somebody else is believed: what was seen first or given by a person (`known_atsigns`) counts more than
//! anything a directory or an atServer says. Source: docs/protocol/sealed.md, "Identities" and "Pins".
//!
//! Both ends do the same: read a [`VoucherClaim`](postern_identity::VoucherClaim), have it [believed](KnownKeys), check the
//! statement with the voucher's key, and only then [`remember`](KnownKeys::remember) who it was.

mod error;
mod known;
mod own;
mod places;

pub use error::TrustError;
pub use known::{Believed, KnownKeys};
pub use own::OwnIdentity;
pub use places::Places;

pub use postern_net::clock::now_ms;
