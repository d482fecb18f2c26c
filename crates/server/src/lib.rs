//! The atDirectory and any number of atServers in one process.
