//! Bounds, each with its reason.

/// Longest line of a journal in bytes. Our own have about 500; each text in them is at most [`TEXT_CHARS`] long.
pub const LINE_BYTES: usize = 16 * 1024;

/// Longest text of an entry in characters: a host name has at most 253.
pub const TEXT_CHARS: usize = 300;

/// Bytes of a journal's file before the next one is begun: some 2,000 lines.
pub const FILE_BYTES: u64 = 1024 * 1024;

/// Files of a journal, the one that grows included. Gateways have little flash.
pub const FILES: usize = 5;

/// Entries that wait for the disk. Beyond that they are counted and not kept: sessions do not wait for a disk.
pub const WAITING: usize = 1024;

/// Refusals that are kept a minute; more are counted. Who may ask must not be able to push the past out of the journal.
pub const REFUSALS_A_MINUTE: u32 = 30;

/// Faults that a check lists; a journal that was cut to pieces has no end of them.
pub const FAULTS: usize = 100;

/// Longest description of a running program.
pub const PRESENCE_BYTES: u64 = 64 * 1024;

/// How long a person waits without a word: shorter, a line would flash by.
pub const PATIENT: std::time::Duration = std::time::Duration::from_millis(700);

/// How often the line of what is waited for is painted: it counts seconds.
pub const TICK: std::time::Duration = std::time::Duration::from_secs(1);

/// Columns of a terminal that does not say how many it has.
pub const USUAL_WIDTH: usize = 80;

/// Columns of the narrowest terminal for which that line is made: the seconds need most of them.
pub const NARROWEST: usize = 24;
