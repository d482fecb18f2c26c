//! Who may say what, when: the server's and the client's side of a connection.

pub mod client;
pub mod peer;
pub mod server;
