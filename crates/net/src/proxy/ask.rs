//! Asking a proxy for a connection. Nothing behind its answer is read: those bytes are the other end's.

use std::io;
use std::net::IpAddr;

use base64ct::{Base64, Encoding};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use zeroize::Zeroizing;

use super::Login;
use crate::limits::PROXY_ANSWER_BYTES;

/// HTTP CONNECT (RFC 9110 section 9.3.6).
pub(super) async fn http(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    port: u16,
    login: Option<&Login>,
) -> io::Result<()> {
    let to = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = Zeroizing::new(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n"));
    if let Some(Login { user, password }) = login {
        let both = Zeroizing::new(format!("{user}:{}", password.as_str()));
        let encoded = Zeroizing::new(Base64::encode_string(both.as_bytes()));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&encoded);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // One by one, for what follows the empty line is not ours.
    while !answer.ends_with(b"\r\n\r\n") && !answer.ends_with(b"\n\n") {
        if answer.len() >= PROXY_ANSWER_BYTES {
            return Err(nonsense());
        }
        answer.push(socket.read_u8().await.map_err(|_| refused("it ended the connection without an answer"))?);
    }
    let line = String::from_utf8_lossy(answer.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned();
    let mut words = line.trim_end().splitn(3, ' ');
    let (Some(version), Some(status)) = (words.next(), words.next()) else { return Err(nonsense()) };
    if !version.starts_with("HTTP/1.") {
        return Err(nonsense());
    }
    match status.parse::<u16>() {
        Ok(200..=299) => Ok(()),
        Ok(407) => {
            Err(refused("it wants another user or password (407); write them as http://user:password@host:port"))
        }
        Ok(403) => Err(refused("it does not let us connect there (403)")),
        Ok(status) => Err(refused(&format!("it could not connect there ({status})"))),
        Err(_) => Err(nonsense()),
    }
}

/// SOCKS5 (RFC 1928) with user and password (RFC 1929).
pub(super) async fn socks5(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    host: &str,
    port: u16,
    login: Option<&Login>,
) -> io::Result<()> {
    let methods: &[u8] = if login.is_some() { &[5, 2, 0, 2] } else { &[5, 1, 0] };
    socket.write_all(methods).await?;
    match (read(socket).await?, login) {
        ([5, 0], _) => {}
        ([5, 2], Some(Login { user, password })) => {
            let mut text = Zeroizing::new(vec![1]);
            for part in [user.as_bytes(), password.as_bytes()] {
                text.push(u8::try_from(part.len()).map_err(|_| nonsense())?);
                text.extend_from_slice(part);
            }
            socket.write_all(&text).await?;
            let [_, status] = read(socket).await?;
            if status != 0 {
                return Err(refused("it wants another user or password"));
            }
        }
        ([5, _], _) => return Err(refused("it wants a user and password: socks5://user:password@host:port")),
        _ => return Err(nonsense()),
    }
    let mut request = vec![5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            request.push(1);
            request.extend(ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            request.push(4);
            request.extend(ip.octets());
        }
        Err(_) => {
            request.extend([3, u8::try_from(host.len()).map_err(|_| refused("the host's name is too long for it"))?]);
            request.extend(host.as_bytes());
        }
    }
    request.extend(port.to_be_bytes());
    socket.write_all(&request).await?;
    let [version, status, _, kind] = read(socket).await?;
    if version != 5 {
        return Err(nonsense());
    }
    if status != 0 {
        return Err(refused(match status {
            2 => "its rules do not let us connect there",
            3 => "it has no route to that network",
            4 => "it cannot reach that host, or does not know the name",
            5 => "the host refused the connection",
            6 => "the host does not answer it",
            _ => "it could not connect there",
        }));
    }
    let rest = match kind {
        1 => 4,
        4 => 16,
        3 => usize::from(read::<1>(socket).await?[0]),
        _ => return Err(nonsense()),
    };
    let mut where_it_is = vec![0; rest + 2];
    socket.read_exact(&mut where_it_is).await.map(drop)
}

async fn read<const N: usize>(socket: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    match socket.read_exact(&mut bytes).await {
        Ok(_) => Ok(bytes),
        Err(_) => Err(refused("it ended the connection without an answer")),
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what it answers is not the protocol of a proxy of this kind")
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn login() -> Login {
        Login { user: "me".into(), password: Zeroizing::new("secret".into()) }
    }

    /// A proxy that says this, whatever it hears. Gives what it heard and what is left to read behind its answer.
    async fn at(proxy: &[u8], socks: bool, login: Option<&Login>, host: &str) -> (io::Result<()>, Vec<u8>, Vec<u8>) {
        let (mut ours, mut its) = tokio::io::duplex(64 * 1024);
        its.write_all(proxy).await.unwrap();
        let outcome = {
            // It has said everything: a question more finds the end.
            its.shutdown().await.unwrap();
            if socks { socks5(&mut ours, host, 443, login).await } else { http(&mut ours, host, 443, login).await }
        };
        let mut left = Vec::new();
        ours.read_to_end(&mut left).await.unwrap();
        drop(ours);
        let mut heard = Vec::new();
        its.read_to_end(&mut heard).await.unwrap();
        (outcome, heard, left)
    }

    #[tokio::test]
    async fn connect_is_pinned() {
        let (outcome, heard, left) =
            at(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nhello", false, Some(&login()), "2001:db8::1")
                .await;
        outcome.unwrap();
        assert_eq!(left, b"hello");
        let expected = "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\
                        Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n";
        assert_eq!(String::from_utf8(heard).unwrap(), expected);
    }

    #[tokio::test]
    async fn what_an_http_proxy_refuses_is_told() {
        for (answer, told) in [
            (&b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..], "user or password"),
            (b"HTTP/1.0 403 Forbidden\n\n", "does not let us"),
            (b"HTTP/1.1 502 Bad\r\n\r\n", "502"),
            (b"SSH-2.0-x\r\n\r\n", "not the protocol"),
            (b"HTTP/1.1 \r\n\r\n", "not the protocol"),
            (b"", "without an answer"),
            (&[b'x'; PROXY_ANSWER_BYTES + 1], "not the protocol"),
        ] {
            let told_us = at(answer, false, None, "a.example").await.0.unwrap_err().to_string();
            assert!(told_us.contains(told), "{told_us}");
        }
    }

    #[tokio::test]
    async fn socks_is_pinned() {
        let (outcome, heard, left) =
            at(b"\x05\x02\x01\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50hello", true, Some(&login()), "a.example")
                .await;
        outcome.unwrap();
        assert_eq!(left, b"hello");
        assert_eq!(heard, b"\x05\x02\x00\x02\x01\x02me\x06secret\x05\x01\x00\x03\x09a.example\x01\xbb");
        let (outcome, heard, _) = at(b"\x05\x00\x05\x00\x00\x03\x02xy\x00\x50", true, None, "10.0.0.1").await;
        outcome.unwrap();
        assert_eq!(heard, b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x01\x01\xbb");
    }

    #[tokio::test]
    async fn what_a_socks_proxy_refuses_is_told() {
        let login = login();
        for (answer, login, told) in [
            (&b"\x05\x02\x01\x01"[..], Some(&login), "user or password"),
            (b"\x05\xff", None, "user and password"),
            (b"\x05\x00\x05\x02\x00\x01", None, "rules"),
            (b"HTTP/1.1 400", None, "not the protocol"),
            (b"\x05\x00\x05\x00\x00\x09", None, "not the protocol"),
            (b"\x05", None, "without an answer"),
        ] {
            let told_us = at(answer, true, login, "a.example").await.0.unwrap_err().to_string();
            assert!(told_us.contains(told), "{told_us}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(answer in prop::collection::vec(any::<u8>(), 0..60), socks: bool) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (_either, _, _) = runtime.block_on(at(&answer, socks, None, "a.example"));
        }
    }
}
