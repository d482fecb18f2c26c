//! The socket rendezvous: joins two outbound sockets, sees ciphertext only.
