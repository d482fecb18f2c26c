//! The storage promise: read a view, commit a batch; a memory keeper and the battery of tests.
