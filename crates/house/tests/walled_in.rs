//! A client whose network lets out nothing but one port: a proxy's, or the relay's that speaks TLS.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use postern_net::tls::PrivateCa;
use postern_testkit::limits::SESSION;
use postern_testkit::{NatNetwork, Options, Place, Places, World, run, say};

/// The server's port.
const SERVER: u16 = 6464;
/// What is let out nearly everywhere.
const HTTPS: u16 = 443;
/// The proxy's port.
const PROXY: u16 = 3128;
/// Who is let out fails at once, or is waited for.
const AT_ONCE: Duration = Duration::from_secs(20);

fn walled_in(
    relay_words: impl FnOnce(&NatNetwork) -> anyhow::Result<Vec<String>>,
    test: impl FnOnce(&NatNetwork, &World) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Some(network) = NatNetwork::build_or_skip()? else { return Ok(()) };
    let places = Places { client: network.client(), server: network.server(), device: network.device() };
    let world = World::start(Options { places, relay_words: relay_words(&network)?, ..Options::default() })?;
    let outcome = test(&network, &world);
    outcome.with_context(|| world.last_words())
}

#[test]
fn ssh_through_a_proxy_where_nothing_else_is_let_out() -> anyhow::Result<()> {
    let usual = |_: &NatNetwork| Ok(Vec::new());
    walled_in(usual, |network, world| {
        network.let_client_reach_only(&[PROXY])?;
        let command = |proxy: Option<String>| {
            let mut sshnp = world.sshnp();
            if let Some(proxy) = proxy {
                sshnp.env("https_proxy", proxy);
            }
            sshnp.args(["--", "echo through"]);
            run(sshnp, SESSION)
        };
        let without = command(None)?.exited(1)?;
        ensure!(without.took < AT_ONCE, "it took {:?}", without.took);

        let server = network.server();
        let proxy = Proxy::start(&server)?;
        let address = server.address();
        for scheme in ["http", "socks5"] {
            let before = proxy.connections();
            let output = command(Some(format!("{scheme}://me:s%3Acret@{address}:{PROXY}")))?.success()?;
            ensure!(output.text().contains("through"), "{:?}", output.text());
            let connections = proxy.connections() - before;
            say(format_args!("{scheme}: {connections} connections of the proxy, {:.2?}", output.took));
            ensure!(connections >= 2, "server and relay are reached through the proxy: {connections}");
            let wrong = command(Some(format!("{scheme}://me:wrong@{address}:{PROXY}")))?.exited(1)?;
            ensure!(wrong.stderr.contains("user or password"), "{}", wrong.stderr);
            ensure!(!wrong.stderr.contains("me:wrong"), "the password is shown: {}", wrong.stderr);
        }
        Ok(())
    })
}

#[test]
fn ssh_through_the_relay_behind_tls_where_nothing_else_is_let_out() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    let certified = |network: &NatNetwork| {
        let ca = PrivateCa::make(&[], &[network.server().address()])?;
        for (name, pem) in [("ca.pem", &ca.ca_pem), ("cert.pem", &ca.cert_pem), ("key.pem", &*ca.key_pem)] {
            std::fs::write(path(name), pem)?;
        }
        let file = |name| path(name).display().to_string();
        let port = HTTPS.to_string();
        let words = ["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem"), "--tls-port", &port];
        Ok(words.map(str::to_owned).to_vec())
    };
    walled_in(certified, |network, world| {
        network.let_client_reach_only(&[SERVER, HTTPS])?;
        // The relay's certificate is of another authority than the server's: both are to be believed.
        let both = path("both.pem");
        let authorities = [std::fs::read(world.ca_file())?, std::fs::read(path("ca.pem"))?].concat();
        std::fs::write(&both, authorities)?;
        let command = |ca: Option<&Path>| {
            let mut sshnp = world.sshnp();
            if let Some(ca) = ca {
                sshnp.env("POSTERN_CA_FILE", ca);
            }
            sshnp.args(["--", "echo through"]);
            run(sshnp, SESSION)
        };
        let output = command(Some(&both))?.success()?;
        ensure!(output.text().contains("through"), "{:?}", output.text());
        say(format_args!("behind TLS at port {HTTPS}: {:.2?}", output.took));
        let stranger = command(None)?.exited(1)?;
        ensure!(stranger.stderr.contains("certificate not accepted"), "{}", stranger.stderr);
        Ok(())
    })
}

/// A proxy of both kinds, for tests: it runs in a place, and knows one user.
struct Proxy {
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    /// Lives as long as the process.
    fn start(place: &Place) -> anyhow::Result<Self> {
        let listener = place.within(|| Ok(TcpListener::bind(("0.0.0.0", PROXY))?))?;
        let connections = Arc::<AtomicUsize>::default();
        let (counts, place) = (Arc::clone(&connections), place.clone());
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (counts, place) = (Arc::clone(&counts), place.clone());
                std::thread::spawn(move || {
                    if let Err(error) = serve(socket, &place, &counts) {
                        say(format_args!("the proxy: {error:#}"));
                    }
                });
            }
        });
        Ok(Self { connections })
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn serve(mut socket: TcpStream, place: &Place, counts: &AtomicUsize) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut first = [0];
    socket.read_exact(&mut first)?;
    let to = if first[0] == 5 { socks5(&mut socket)? } else { http(&mut socket)? };
    let Some(to) = to else { return Ok(()) };
    let far = place.within(|| Ok(TcpStream::connect(&to)?)).with_context(|| format!("to {to}"))?;
    far.set_nodelay(true)?;
    counts.fetch_add(1, Ordering::Relaxed);
    let answer: &[u8] =
        if first[0] == 5 { &[5, 0, 0, 1, 0, 0, 0, 0, 0, 0] } else { b"HTTP/1.1 200 Connection established\r\n\r\n" };
    socket.write_all(answer)?;
    std::thread::scope(|scope| {
        scope.spawn(|| pump(&socket, &far));
        pump(&far, &socket);
    });
    Ok(())
}

fn pump(mut from: &TcpStream, mut to: &TcpStream) {
    // Whatever ends it, the other side hears of it.
    let _ended = std::io::copy(&mut from, &mut to);
    let _gone = to.shutdown(Shutdown::Write);
}

fn http(socket: &mut TcpStream) -> anyhow::Result<Option<String>> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        text.push(byte[0]);
    }
    let text = String::from_utf8(text)?;
    // me:s:cret
    if !text.contains("Proxy-Authorization: Basic bWU6czpjcmV0\r\n") {
        socket.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")?;
        return Ok(None);
    }
    Ok(Some(text.split(' ').nth(1).context("no target")?.to_owned()))
}

fn socks5(socket: &mut TcpStream) -> anyhow::Result<Option<String>> {
    let read = |n: usize| -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; n];
        (&*socket).read_exact(&mut bytes)?;
        Ok(bytes)
    };
    let methods = usize::from(read(1)?[0]);
    ensure!(read(methods)?.contains(&2), "no user and password");
    (&*socket).write_all(&[5, 2])?;
    let user = usize::from(read(2)?[1]);
    let user = read(user)?;
    let password = usize::from(read(1)?[0]);
    if (user.as_slice(), read(password)?.as_slice()) != (b"me", b"s:cret") {
        (&*socket).write_all(&[1, 1])?;
        return Ok(None);
    }
    (&*socket).write_all(&[1, 0])?;
    let host = match read(4)?[3] {
        1 => read(4)?.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
        3 => {
            let length = usize::from(read(1)?[0]);
            String::from_utf8(read(length)?)?
        }
        other => bail!("address of kind {other}"),
    };
    let port = read(2)?;
    Ok(Some(format!("{host}:{}", u16::from_be_bytes([port[0], port[1]]))))
}
