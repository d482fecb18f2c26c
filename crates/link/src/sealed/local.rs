//! What stands at this end of a stream.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Anything that bytes can be carried to and from: a local program's connection, standard input and output.
pub struct Local(pub(crate) Box<dyn Io>);

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Local {
    /// Anything that can be read and written. When its reading ends, the stream's direction ends; when the stream's other
    /// direction ends, it is shut down for writing.
    pub fn new(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(io))
    }
}

impl From<TcpStream> for Local {
    fn from(socket: TcpStream) -> Self {
        Self::new(socket)
    }
}

impl From<UnixStream> for Local {
    fn from(socket: UnixStream) -> Self {
        Self::new(socket)
    }
}
