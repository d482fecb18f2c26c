//! The control channel of a session with many connections, both ends of it.

use std::io;

use postern_crypto::CtrStream;
use postern_session::{ControlLine, ControlReader};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::pump::Crypt;

/// Writing end: the client's.
pub(crate) struct ControlWriter {
    socket: OwnedWriteHalf,
    cipher: Option<CtrStream>,
}

/// Reading end: the device's.
pub(crate) struct ControlSource {
    socket: OwnedReadHalf,
    cipher: Option<CtrStream>,
    reader: ControlReader,
}

/// Room for a few control lines at once.
const CHUNK: usize = 2048;

/// Takes the control socket apart. `reader`: for what comes in.
pub(crate) fn control_of(socket: TcpStream, crypt: Crypt, reader: ControlReader) -> (ControlSource, ControlWriter) {
    let (read, write) = socket.into_split();
    let (outbound, inbound) = crypt.split();
    (ControlSource { socket: read, cipher: inbound, reader }, ControlWriter { socket: write, cipher: outbound })
}

impl ControlWriter {
    pub(crate) async fn write(&mut self, line: &str) -> io::Result<()> {
        let Some(cipher) = self.cipher.as_mut() else { return self.socket.write_all(line.as_bytes()).await };
        let mut out = vec![0; line.len() + CtrStream::SLACK];
        let bytes = cipher.apply(line.as_bytes(), &mut out).map_err(io::Error::other)?;
        self.socket.write_all(bytes).await
    }
}

impl ControlSource {
    /// Waits for the next bytes and hands out the lines in them. `false`: the channel has ended.
    pub(crate) async fn read(&mut self, each: impl FnMut(ControlLine)) -> io::Result<bool> {
        let mut chunk = [0; CHUNK];
        let n = self.socket.read(&mut chunk).await?;
        if n == 0 {
            return Ok(false);
        }
        let mut plain = [0; CHUNK + CtrStream::SLACK];
        let bytes = chunk.get(..n).unwrap_or_default();
        let bytes = match self.cipher.as_mut() {
            Some(cipher) => cipher.apply(bytes, &mut plain).map_err(io::Error::other)?,
            None => bytes,
        };
        self.reader.feed(bytes, each).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(true)
    }
}
