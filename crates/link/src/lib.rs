//! Moves the bytes of a session: dials the relay, encrypts, pumps local sockets.
