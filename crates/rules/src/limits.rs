//! Bounds, each with its reason.

use std::time::Duration;

/// How long a device acts on an answer. The reference: 15 s per client. One second less, for a service looks at its rules
/// twice a second: what is changed there holds everywhere within 15 s.
pub const ANSWER_AGE: Duration = Duration::from_secs(14);
/// Answers a device keeps; one more, and all are forgotten and asked for again. 1,024 clients in 15 s are a crowd.
pub const ANSWERS: usize = 1024;
/// How long a device waits for an answer. Source: NoPorts daemon dispatch, 10 s.
pub const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Longest text of a request or reply in bytes: a reply that lists 1,024 permits has some 40 KiB; a list of ten
/// thousand rows some 1 MiB.
pub const RPC_BYTES: usize = 4 * 1024 * 1024;
/// Largest request id: what every JSON reader holds exactly.
pub const RPC_ID_MAX: u64 = (1 << 53) - 1;
/// Longest name of a device group in characters; it is free text, but somebody has to read it.
pub const GROUP_NAME_CHARS: usize = 128;
/// Longest free text of a rule (a name, a description) in characters.
pub const TEXT_CHARS: usize = 1024;
/// Most rows in one table. Evaluation looks at each row once; a million would hold up every question.
pub const ROWS: usize = 100_000;
