//! Who speaks, and how that is shown: signed envelopes, vouchers for identity keys, statements, fingerprints.
//!
//! An atSign's encryption key signs [`Envelope`]s, as the programs of 2024 know them. Each client enrolment and each
//! device has an identity key of its own; a [`Voucher`] shows for whom it speaks, and a [`Statement`] is what it says.
//! [`Pins`] remember which keys were seen or given.
//! Pure: bytes, text and `now` in, decisions out. Source: docs/protocol/sealed.md.

mod activation;
mod advertised;
mod device_name;
mod enrollment;
mod envelope;
mod fingerprint;
mod invitation;
pub mod limits;
mod line;
mod pins;
mod statement;
mod voucher;

pub use activation::{Activation, CramSecret};
pub use advertised::AdvertisedKeys;
pub use device_name::{BadDeviceName, DeviceName};
pub use enrollment::{EnrollmentClaim, EnrollmentFault};
pub use envelope::{Envelope, EnvelopeError};
pub use fingerprint::{BadFingerprint, Fingerprint};
pub use invitation::{Anchor, Arrival, Invitation, InvitationSecret, Passcode};
pub use line::BadLine;
pub use pins::{BadPinName, Origin, Pin, PinAlgorithm, PinName, Pins, Verdict};
pub use statement::{Label, Statement, StatementError};
pub use voucher::{Expected, Kind, Voucher, VoucherClaim, VoucherError};
