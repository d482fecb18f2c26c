//! Bounds, each with its reason.

/// Longest text of a STATEMENT frame. A reply with its voucher and ten host keys has about 6 KiB.
pub const STATEMENT_FRAME_BYTES: usize = 8 * 1024;

/// Longest TLS record: 2^14 bytes of plain text and what sealing adds. Source: RFC 8446, section 5.2.
pub(crate) const RECORD_BYTES: usize = (1 << 14) + 256;

/// Most records of a handshake flight: ours has at most three.
pub(crate) const FLIGHT_RECORDS: usize = 8;
