//! SOCKS 5, the server's side: without authentication, CONNECT alone. Source: RFC 1928.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use postern_session::HostPort;
use postern_streams::RefusalCode;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::forward::target_host;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Connected = 0,
    Failed = 1,
    NotAllowed = 2,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    CommandUnknown = 7,
    AddressUnknown = 8,
}

impl From<RefusalCode> for Answer {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::NotPermitted | RefusalCode::ForbiddenAddress => Self::NotAllowed,
            RefusalCode::TargetRefused => Self::ConnectionRefused,
            RefusalCode::TargetUnreachable | RefusalCode::NameUnknown => Self::HostUnreachable,
            _ => Self::Failed,
        }
    }
}

/// Hears where a local program wants to go. Names are not resolved here: the device does that. What cannot be served has
/// been answered.
///
/// # Errors
/// The program does not speak SOCKS 5, wants something else, or is gone.
pub(crate) async fn hear(program: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<HostPort> {
    let bad = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
    if program.read_u8().await? != VERSION {
        return Err(bad("it does not speak SOCKS 5"));
    }
    let mut methods = vec![0; program.read_u8().await?.into()];
    program.read_exact(&mut methods).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        program.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(bad("it insists on authentication"));
    }
    program.write_all(&[VERSION, NO_AUTHENTICATION]).await?;
    let mut head = [0; 4];
    program.read_exact(&mut head).await?;
    let [version, command, _, kind] = head;
    if version != VERSION {
        return Err(bad("it does not speak SOCKS 5"));
    }
    let host = match kind {
        IPV4 => Ipv4Addr::from(program.read_u32().await?).to_string(),
        IPV6 => Ipv6Addr::from(program.read_u128().await?).to_string(),
        NAME => {
            let mut name = vec![0; program.read_u8().await?.into()];
            program.read_exact(&mut name).await?;
            String::from_utf8(name).unwrap_or_default()
        }
        _ => {
            answer(program, Answer::AddressUnknown).await?;
            return Err(bad("an address of another kind"));
        }
    };
    let port = program.read_u16().await?;
    if command != CONNECT {
        answer(program, Answer::CommandUnknown).await?;
        return Err(bad("a command other than CONNECT"));
    }
    match target_host(&host).filter(|_| port > 0) {
        Some(host) => Ok(HostPort { host, port }),
        None => {
            answer(program, Answer::AddressUnknown).await?;
            Err(bad("a name that no host has"))
        }
    }
}

/// Tells the program how it went. The address that the device dials from is nobody's business.
pub(crate) async fn answer(program: &mut (impl AsyncWrite + Unpin), answer: Answer) -> io::Result<()> {
    program.write_all(&[VERSION, answer as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn said(bytes: &[u8]) -> (io::Result<HostPort>, Vec<u8>) {
        let (mut program, mut ours) = tokio::io::duplex(1024);
        program.write_all(bytes).await.unwrap();
        program.shutdown().await.unwrap();
        let heard = hear(&mut ours).await;
        drop(ours);
        let mut answers = Vec::new();
        program.read_to_end(&mut answers).await.unwrap();
        (heard, answers)
    }

    #[tokio::test]
    async fn names_and_addresses() {
        let name = b"\x05\x02\x00\x02\x05\x01\x00\x03\x06DB.lan\x15\x38";
        let (heard, answers) = said(name).await;
        assert_eq!(heard.unwrap(), HostPort { host: "db.lan".into(), port: 5432 });
        assert_eq!(answers, [5, 0]);
        let (heard, _) = said(b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50").await;
        assert_eq!(heard.unwrap().to_string(), "10.0.0.1:80");
        let mut six = b"\x05\x01\x00\x05\x01\x00\x04".to_vec();
        six.extend([0; 15]);
        six.extend([1, 0, 80]);
        assert_eq!(said(&six).await.0.unwrap(), HostPort { host: "::1".into(), port: 80 });
    }

    #[tokio::test]
    async fn what_is_not_served_is_answered() {
        let (heard, answers) = said(b"\x05\x01\x02").await;
        assert!(heard.is_err());
        assert_eq!(answers, [5, 0xff]);
        let (heard, answers) = said(b"\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x50").await;
        assert!(heard.is_err());
        assert_eq!(answers.get(2..4), Some(&[5, 7][..]), "BIND");
        let (heard, answers) = said(b"\x05\x01\x00\x05\x01\x00\x03\x02a\n\x00\x50").await;
        assert!(heard.is_err());
        assert_eq!(answers.get(2..4), Some(&[5, 8][..]), "a name with a line end");
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"\x04\x01\x00\x50", b"", b"\x05"] {
            assert!(said(other).await.0.is_err());
        }
    }
}
