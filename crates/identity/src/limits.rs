//! Bounds, each with its reason.

/// Longest envelope or reply text in bytes. Real ones have about 2 KiB; the rest is room for newer fields.
pub const ENVELOPE_BYTES: usize = 64 * 1024;

/// A record with signing keys. An RSA-2048 key has 392 characters, an ML-DSA-65 key 2,604.
pub const ADVERTISED_BYTES: usize = 16 * 1024;

/// Longest statement in bytes, its voucher included. A reply with ten host keys has about 8 KiB.
pub const STATEMENT_BYTES: usize = 32 * 1024;

/// Longest voucher in bytes: two RSA-4096 signatures and some names have about 2 KiB.
pub const VOUCHER_BYTES: usize = 4 * 1024;

/// How far the clocks of two honest machines may lie apart, in milliseconds.
pub const CLOCK_TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// Longest life of a voucher in milliseconds. A stolen machine's voucher ends by revocation; this is for what was forgotten.
pub const VOUCHER_LIFE_MS: u64 = 400 * 86_400_000;

/// Longest line of `known_atsigns` that is understood: a name of 100 characters, a fingerprint of 50, a date of 20, a remark.
pub const PIN_LINE_BYTES: usize = 1024;

/// Longest invitation or activation in characters. Usual ones have some 250 to 350; names of hosts and atSigns may be longer.
pub const LINE_CHARS: usize = 2048;

/// AtSigns of one activation: a person's own, that of their devices, a policy's, and some.
pub const AT_SIGNS: usize = 8;

/// Longest text with which a device that has joined introduces itself, in bytes. Usual ones have some 250.
pub const ARRIVAL_BYTES: usize = 1024;
