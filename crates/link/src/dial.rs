//! The way to the relay.

use std::io;
use std::sync::Arc;

use postern_crypto::Iv;
use postern_net::proxy;
use postern_rendezvous::escr::ACCEPTED;
use postern_rendezvous::limits::PROVE_WITHIN;
use postern_rendezvous::{Challenge, EscrProver, SignedLine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::limits::{AUTH_WRITE, DIAL, VERDICT_CHARS};

/// One side's port of a session at the relay.
#[derive(Clone)]
pub struct RelayPort {
    /// Host name or address.
    pub host: String,
    /// This side's port.
    pub port: u16,
    /// How each socket begins.
    pub auth: RelayAuth,
    /// Says which connection of the session each socket belongs to; older programs do not.
    pub numbered: bool,
}

/// How a socket to the relay proves whose it is.
#[derive(Clone)]
pub enum RelayAuth {
    /// This relay asks for nothing.
    Nothing,
    /// A signed line. The relay does not answer; data may follow at once.
    Line(Arc<SignedLine>),
    /// A line that somebody else has signed, with its newline.
    Ready(Arc<Zeroizing<String>>),
    /// The answer to its challenge. Data follows its `ok`.
    Escr(Arc<EscrProver>),
}

impl RelayPort {
    /// Opens the socket of the `number`th connection and authenticates it. The first, 0, is the only one of ssh or the
    /// control channel.
    pub async fn dial(&self, number: u32) -> io::Result<TcpStream> {
        let mut socket = proxy::connect_tcp(&self.host, self.port, DIAL).await?;
        match &self.auth {
            RelayAuth::Nothing => {}
            RelayAuth::Line(line) => {
                let line = if self.numbered { line.numbered(number) } else { line.plain() };
                timeout(AUTH_WRITE, socket.write_all(line.as_bytes())).await??;
            }
            RelayAuth::Ready(line) => timeout(AUTH_WRITE, socket.write_all(line.as_bytes())).await??,
            RelayAuth::Escr(prover) => {
                let number = self.numbered.then_some(number);
                let proved = timeout(PROVE_WITHIN, prove(&mut socket, prover, number)).await;
                proved.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it did not authenticate us in time"))??;
            }
        }
        Ok(socket)
    }
}

async fn prove(socket: &mut TcpStream, prover: &EscrProver, number: Option<u32>) -> io::Result<()> {
    let text = line(socket, Challenge::CHARS).await?;
    let nonsense = || refused("it did not ask for a proof of who we are");
    let challenge = Challenge::parse(&text).ok_or_else(nonsense)?;
    let answer = prover.answer(&challenge, number, Iv::generate());
    socket.write_all(answer.map_err(|_| refused("our key cannot sign"))?.as_bytes()).await?;
    if line(socket, VERDICT_CHARS).await? == ACCEPTED {
        return Ok(());
    }
    Err(refused("it refused our proof of who we are"))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// One line, and nothing behind it: what follows belongs to the peer.
async fn line(socket: &mut TcpStream, longest: usize) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(longest);
    loop {
        match socket.read_u8().await? {
            b'\n' => break,
            byte if bytes.len() < longest && byte.is_ascii_graphic() || byte == b' ' => bytes.push(byte),
            _ => return Err(refused("it does not speak the protocol of a relay")),
        }
    }
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_crypto::AesKey;
    use postern_proto::SigningKeyName;
    use postern_rendezvous::{ChallengeSigner, Side};

    async fn dial_to(said: &'static [&'static [u8]]) -> io::Result<TcpStream> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            for part in said {
                socket.write_all(part).await.unwrap();
                if *part != *said.last().unwrap() {
                    socket.read_u8().await.unwrap();
                }
            }
            socket
        };
        let name = SigningKeyName::parse("public:_apsk.primary.a.__e@a").unwrap();
        let signer = ChallengeSigner::new(name, |_| Ok("c2ln".into()));
        let prover = EscrProver::new("6f", Side::A, AesKey::generate(), signer);
        let auth = RelayAuth::Escr(Arc::new(prover));
        let port = RelayPort { host: "127.0.0.1".into(), port, auth, numbered: true };
        let (socket, _relay) = tokio::join!(port.dial(0), relay);
        socket
    }

    const CHALLENGE: &[u8] = b"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n";

    #[tokio::test]
    async fn bytes_behind_the_verdict_are_the_peers() {
        let mut socket = dial_to(&[CHALLENGE, b"ok\nhello"]).await.unwrap();
        let mut text = [0; 5];
        socket.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
    }

    #[tokio::test]
    async fn whatever_is_not_ok_is_a_refusal() {
        for said in [
            &[CHALLENGE, b"Socket auth failed\n"][..],
            &[CHALLENGE, b"okay\n"],
            &[b"_6f9619ff-8b86-4d01-b42d-00cf4fc964ff@a:0f\n"],
            &[b"SSH-2.0-OpenSSH_9.6\r\n"],
        ] {
            let error = dial_to(said).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        }
    }
}
