//! The socket rendezvous: joins two outbound sockets, sees ciphertext only.
//!
//! [`engine`] opens two ports per session, lets in who proves itself, and joins sockets in order of arrival; [`limits`] says
//! how much of everything. Neither knows a verb of the atProtocol.

pub mod engine;
pub mod limits;
