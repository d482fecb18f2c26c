//! What a sealed session needs of the TLS under it. The types of `postern-seal` do this; tests put something plain here.

use std::fmt;
use std::io;
use std::time::Duration;

/// One end of an established TLS session, without sockets.
pub trait End: Send {
    /// Takes bytes of the other end as they came from the relay, and hands out what they say, piece by piece. Returns how
    /// many of `tls` were taken; the rest is offered again with more behind it.
    ///
    /// # Errors
    /// The other end is not who it should be, or somebody changed a byte.
    fn read(&mut self, tls: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> Result<usize, EndFault>;

    /// Seals `head` and `body`, one behind the other as if they were one, and puts that behind `tls`.
    ///
    /// # Errors
    /// The session can write no more.
    fn write(&mut self, head: &[u8], body: &[u8], tls: &mut Vec<u8>) -> Result<(), EndFault>;

    /// Puts behind `tls` what the end has to say of its own accord (handshake, alerts).
    fn flush(&mut self, tls: &mut Vec<u8>);

    /// The last words: puts `close_notify` behind `tls`.
    fn close(&mut self, tls: &mut Vec<u8>);

    /// True once the other end has said `close_notify`: an end of the connection without it is a loss.
    fn closed(&self) -> bool;

    /// True once the other end has shown who it is; before that `read` hands out nothing.
    fn proven(&self) -> bool;

    /// What the handshake agreed on.
    fn facts(&self) -> Facts;

    /// The client's: how long a lost connection may stay lost, as the reply says. `None`: as it was asked for.
    fn resume(&self) -> Option<Duration> {
        None
    }
}

/// A client's end that waits for the device's flight and its reply.
pub trait Knocking: Send {
    /// Takes bytes from the relay; returns how many.
    ///
    /// # Errors
    /// What came is no answer to our ClientHello.
    fn read(&mut self, tls: &[u8]) -> Result<usize, EndFault>;

    /// True once the reply is here whole and waits to be believed.
    fn answered(&self) -> bool;
}

/// What a handshake agreed on, as people read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Name of the key exchange group: `X25519MLKEM768`.
    pub key_exchange: String,
    /// Name of the cipher suite: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
}

/// Why a TLS end gave up. The text says what was wrong and may be shown to the user.
#[derive(Debug)]
pub struct EndFault(pub Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for EndFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for EndFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl From<io::Error> for EndFault {
    fn from(error: io::Error) -> Self {
        Self(error.into())
    }
}
