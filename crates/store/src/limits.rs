//! Bounds that hold for every keeper.

/// Rows of one kind (records, received, sent) that one sweep drops. 500 rows take
/// SQLite about ten milliseconds, for which other writers wait.
pub const SWEEP_ROWS: usize = 500;
