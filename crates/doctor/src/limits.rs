//! Times and sizes, each with its reason.

use std::time::Duration;

/// For each step on the network: name, handshake, question. A phone in the woods takes 5 s; a person waits for the whole.
pub const STEP: Duration = Duration::from_secs(10);
/// For the ssh server's first line: it is on this machine, but a small one may just be busy.
pub const BANNER: Duration = Duration::from_secs(5);
/// Longest first line of an ssh server that is read. Source: RFC 4253 section 4.2, 255 bytes, after lines of its own.
pub const BANNER_BYTES: usize = 1024;
/// Connections by which a latency is measured: one would be somebody's delay and not the way.
pub const KNOCKS: u32 = 3;
/// A clock that is further off than this makes sealed sessions fail. Source: docs/protocol/sealed.md, "Clocks": 5 min.
pub const SKEW_FAIL_MS: i64 = 5 * 60 * 1000;
/// A clock that is further off than this will fail soon: nobody sets it.
pub const SKEW_WARN_MS: i64 = 60 * 1000;
/// Programs of this version did not exist before: 2026-01-01. A clock that shows an earlier time is wrong.
pub const NOT_BEFORE_MS: i64 = 1_767_225_600_000;
/// A clock beyond this is wrong for sure: 2100-01-01. The private CA's certificates end earlier.
pub const NOT_AFTER_MS: i64 = 4_102_444_800_000;
/// A certificate that ends within this should have been renewed: two weeks, as ACME clients renew at 30 days.
pub const CERTIFICATE_ENDS_SOON_MS: i64 = 14 * 86_400_000;
/// Less free space than this is full: a key file, a pin and their drafts have some 20 KiB.
pub const DISK_FULL: u64 = 64 * 1024;
/// Less free space than this will be full soon: a journal has up to 5 MiB.
pub const DISK_LOW: u64 = 8 * 1024 * 1024;
/// Longest text of a finding that comes from the network, in characters.
pub const TEXT_CHARS: usize = 200;
/// Longest output of a tool that is read.
pub const TOOL_BYTES: u64 = 64 * 1024;
