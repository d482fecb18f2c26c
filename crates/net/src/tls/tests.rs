use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::tcp::listen;

const LIMIT: Duration = Duration::from_secs(10);

fn ca() -> PrivateCa {
    PrivateCa::make(&["localhost".to_owned(), "server.example".to_owned()], &["127.0.0.1".parse().unwrap()]).unwrap()
}

/// Accepts one connection, echoes one read, and says whether the client was a Postern.
async fn echo_once(tls: ServerTls) -> (SocketAddr, tokio::task::JoinHandle<io::Result<bool>>) {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut stream = tls.accept(tcp).await?;
        let mut text = [0; 64];
        let n = stream.read(&mut text).await?;
        stream.write_all(&text[..n]).await?;
        stream.shutdown().await?;
        Ok(stream.speaks_postern())
    });
    (address, task)
}

fn server(ca: &PrivateCa) -> ServerTls {
    ServerTls::from_pem(ca.cert_pem.as_bytes(), ca.key_pem.as_bytes()).unwrap()
}

#[tokio::test]
async fn two_posterns_recognise_each_other() {
    let ca = ca();
    let trust = Trust::only_pem(ca.ca_pem.as_bytes()).unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let (address, task) = echo_once(server(&ca)).await;
        let mut stream = connect(&trust, host, address.port(), LIMIT).await.unwrap();
        assert!(stream.speaks_postern());
        stream.write_all(b"hello").await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"hello");
        assert!(task.await.unwrap().unwrap());
    }
}

/// What a connection costs, out and in: the handshake, five bytes and their echo, the end.
async fn cost(trust: &Trust, server: &ServerTls) -> (u64, u64) {
    let (behind, echo) = echo_once(server.clone()).await;
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let counter = tokio::spawn(async move {
        let (mut here, _) = listener.accept().await?;
        let mut there = TcpStream::connect(behind).await?;
        tokio::io::copy_bidirectional(&mut here, &mut there).await
    });
    let mut stream = connect(trust, "localhost", port, LIMIT).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    // To its end: the ticket comes before the echo. The server is gone then, and hears no farewell.
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    drop(stream);
    assert!(echo.await.unwrap().unwrap());
    counter.await.unwrap().unwrap()
}

#[tokio::test]
async fn who_comes_back_is_spared_the_certificates() {
    let ca = ca();
    let server = server(&ca);
    let trust = Trust::only_pem(ca.ca_pem.as_bytes()).unwrap();
    let (first, second) = (cost(&trust, &server).await, cost(&trust, &server).await);
    // Another server of the same name: the ticket is worth nothing there, and nothing is lost by it.
    let other = ServerTls::from_pem(ca.cert_pem.as_bytes(), ca.key_pem.as_bytes()).unwrap();
    let third = cost(&trust, &other).await;
    let certificate = CertificateDer::from_pem_slice(ca.cert_pem.as_bytes()).unwrap().len() as u64;
    assert!(second.1 + certificate <= first.1 && second.1 + certificate <= third.1, "{first:?}, {second:?}, {third:?}");
    assert!(second.0 + second.1 + certificate <= first.0 + first.1, "{first:?}, {second:?}");
}

/// By years since 1970.
#[test]
fn a_clock_of_1970_does_not_lock_a_device_out_and_certificates_still_count() {
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls_pki_types::UnixTime;
    let (ours, other) = (ca(), ca());
    let chain = |ca: &PrivateCa| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(ca.cert_pem.as_bytes()).map(Result::unwrap).collect()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ours.ca_pem.as_bytes()).unwrap()).unwrap();
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let verifier = dated::Dated::new(inner);
    let year = Duration::from_secs(31_556_952);
    let judge = |ca: &PrivateCa, name: &'static str, now: Duration| {
        let chain = chain(ca);
        let now = UnixTime::since_unix_epoch(now);
        verifier.verify_server_cert(&chain[0], &chain[1..], &name.try_into().unwrap(), &[], now)
    };
    let now = Duration::from_secs(UnixTime::now().as_secs());
    // 1970, where it was switched off three years ago, a day behind, right, ten years ahead, another century.
    for clock in [year / 365, now - year * 3, now - year / 365, now, now + year * 10, year * 150] {
        judge(&ours, "localhost", clock).unwrap();
        judge(&ours, "elsewhere.example", clock).unwrap_err();
        judge(&other, "localhost", clock).unwrap_err();
    }
}

#[tokio::test]
async fn clients_without_our_alpn_are_served() {
    let ca = ca();
    for offered in [vec![], vec![b"h2".to_vec(), b"http/1.1".to_vec()]] {
        let (address, task) = echo_once(server(&ca)).await;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.ca_pem.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = offered;
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = "localhost".try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        stream.write_all(b"hi").await.unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"hi");
        assert!(!task.await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_server_that_insists_on_another_protocol_is_asked_without_alpn() {
    let ca = ca();
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let chain = rustls_pki_types::pem::PemObject::pem_slice_iter(ca.cert_pem.as_bytes()).map(Result::unwrap).collect();
    let key = rustls_pki_types::pem::PemObject::from_pem_slice(ca.key_pem.as_bytes()).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let task = tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        assert!(acceptor.accept(first).await.is_err());
        let (second, _) = listener.accept().await.unwrap();
        acceptor.accept(second).await.unwrap();
    });
    let trust = Trust::only_pem(ca.ca_pem.as_bytes()).unwrap();
    let stream = connect(&trust, "localhost", port, LIMIT).await.unwrap();
    assert!(!stream.speaks_postern());
    task.await.unwrap();
}

#[tokio::test]
async fn an_unknown_authority_is_refused_with_a_hint() {
    let (address, _task) = echo_once(server(&ca())).await;
    let stranger = Trust::only_pem(ca().ca_pem.as_bytes()).unwrap();
    let error = connect(&stranger, "localhost", address.port(), LIMIT).await.unwrap_err();
    assert!(error.is_certificate());
    let text = error.to_string();
    assert!(text.contains(&format!("could not connect to localhost:{}", address.port())), "{text}");
    assert!(text.contains("POSTERN_CA_FILE") && text.contains("ca.pem"), "{text}");
}

#[tokio::test]
async fn the_wrong_name_is_refused() {
    let ca = PrivateCa::make(&["elsewhere.example".to_owned()], &[]).unwrap();
    let (address, _task) = echo_once(server(&ca)).await;
    let trust = Trust::only_pem(ca.ca_pem.as_bytes()).unwrap();
    let error = connect(&trust, "localhost", address.port(), LIMIT).await.unwrap_err();
    assert!(error.is_certificate(), "{error}");
}

#[tokio::test]
async fn each_step_has_its_own_failure() {
    let trust = Trust::only_pem(ca().ca_pem.as_bytes()).unwrap();
    let closed = listen("127.0.0.1:0".parse().unwrap()).unwrap().local_addr().unwrap();
    let error = connect(&trust, "127.0.0.1", closed.port(), LIMIT).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tcp { .. }), "{error}");

    let error = connect(&trust, "not a name", 1, LIMIT).await.unwrap_err();
    assert!(matches!(error, ConnectError::Resolve { .. }), "{error}");

    let silent = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = silent.local_addr().unwrap().port();
    let error = connect(&trust, "127.0.0.1", port, Duration::from_millis(100)).await.unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("handshake"), "{error}");

    let (address, task) = echo_once(server(&ca())).await;
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(task.await.unwrap().is_err());
}

#[test]
fn bad_pem_is_told_apart() {
    let ca = ca();
    assert!(matches!(Trust::only_pem(b"nothing"), Err(TlsError::NoCertificate)));
    assert!(matches!(ServerTls::from_pem(b"", ca.key_pem.as_bytes()), Err(TlsError::NoCertificate)));
    assert!(matches!(ServerTls::from_pem(ca.cert_pem.as_bytes(), b""), Err(TlsError::NoKey)));
    let other = self::ca();
    let mixed = ServerTls::from_pem(ca.cert_pem.as_bytes(), other.key_pem.as_bytes());
    assert!(matches!(mixed, Err(TlsError::Unusable(_))));
    assert!(PrivateCa::make(&[], &[]).is_err());
}

#[test]
fn files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let ca = ca();
    std::fs::write(&cert, &ca.cert_pem).unwrap();
    std::fs::write(&key, ca.key_pem.as_bytes()).unwrap();
    ServerTls::from_pem_files(&cert, &key).unwrap();
    let missing = ServerTls::from_pem_files(&dir.path().join("no"), &key).unwrap_err();
    assert!(missing.to_string().contains("no"), "{missing}");
}

/// Accepts one connection and gives what its client showed.
async fn shown_by(trust: &Trust, server_ca: &PrivateCa) -> Option<PeerCertificates> {
    let tls = server(server_ca);
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = tls.accept(tcp).await.unwrap();
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).await.unwrap();
        stream.peer_certificates()
    });
    let mut stream = connect(trust, "localhost", port, LIMIT).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    stream.flush().await.unwrap();
    task.await.unwrap()
}

#[tokio::test]
async fn a_calling_server_shows_its_certificate_and_clients_none() {
    let (here, there, stranger) = (ca(), ca(), ca());
    let both = format!("{}{}", here.ca_pem, there.ca_pem);
    let calling = |who: &PrivateCa| {
        Trust::for_server_only_pem(both.as_bytes(), who.cert_pem.as_bytes(), who.key_pem.as_bytes()).unwrap()
    };
    let trust = calling(&here);
    let shown = shown_by(&calling(&there), &here).await.unwrap();
    for (host, good) in [("server.example", true), ("127.0.0.1", true), ("other.example", false), ("b c", false)] {
        assert_eq!(trust.is_certificate_of(&shown, host), good, "{host}");
    }
    // Of an authority that nobody knows: the handshake passes, the judgement does not.
    let shown = shown_by(&calling(&stranger), &here).await.unwrap();
    assert!(!trust.is_certificate_of(&shown, "server.example"));
    let plain = Trust::only_pem(both.as_bytes()).unwrap();
    assert_eq!(shown_by(&plain, &here).await, None);
}

#[tokio::test]
async fn forbidden_addresses_are_not_dialled() {
    let ca = ca();
    let trust = Trust::only_pem(ca.ca_pem.as_bytes()).unwrap();
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    let outcome = connect_where(&trust, "localhost", port, LIMIT, |ip| !ip.is_loopback()).await;
    assert!(matches!(outcome, Err(ConnectError::Resolve { .. })), "{outcome:?}");
    let nobody = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(nobody.is_err());
}
