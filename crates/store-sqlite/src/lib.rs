//! The storage promise kept with SQLite.
