//! Who may say what, when: the server's and the client's side of a connection, and how a device keeps it.

pub mod client;
pub mod comeback;
pub mod heartbeat;
pub mod peer;
pub mod server;
