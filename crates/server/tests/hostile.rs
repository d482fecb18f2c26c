//! Strangers who send too much, too little, or nonsense.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use common::{PATIENCE, World};
use postern_server::Limits;
use socket2::{Domain, Socket, Type};

fn rss_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn nonsense_is_answered_and_nothing_breaks() {
    let world = World::start();
    world.add_activated("alice");
    let invalid = "error:AT0003-Exception: invalid command\n@";
    let mut client = world.connect();
    client.ask("noop:0", "data:ok\n@");
    for line in [
        "",
        "\r",
        "hello",
        "pol",
        "stats 1",
        "config:reboot:now",
        "sync:7",
        "update:",
        "batch:{}",
        "notify:@:",
        "\0\0\0",
        "cram:12",
        "monitor:soon",
    ] {
        client.ask(line, invalid);
    }
    client.send(b"\xff\xfe\xfd:\x80\n");
    client.expect(invalid);
    client.send("🦄🦄\n".as_bytes());
    client.expect(invalid);
    for line in ["from:", "from:@a b", "from:@x@y", "scan (", "lookup:k@"] {
        assert!(client.reply(line).starts_with("error:AT0003-"), "{line}");
    }
    client.ask("noop:9999", "error:AT0022-Exception: noop waits at most 5000 milliseconds\n@");
    // Not even TLS.
    let mut raw = TcpStream::connect(world.address).unwrap();
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Write::write_all(&mut raw, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    let _ = raw.read_to_end(&mut rest);
    world
        .login("alice")
        .ask("llookup:x@alice", "error:AT0015-key not found : x@alice does not exist in keystore\n@alice@");
}

#[test]
fn a_line_without_end_is_cut_off() {
    let world = World::start();
    world.add_activated("alice");
    let before = rss_kib();
    let piece = vec![b'a'; 1 << 20];
    // Anonymous: 16 KiB, a directory conversation: 255 bytes, an owner: 10 MB.
    let mut sent = [0usize; 3];
    for (who, sent) in sent.iter_mut().enumerate() {
        let mut client = match who {
            0 => world.connect(),
            1 => {
                let mut client = world.connect();
                client.ask("nobody", "null\r\n@");
                client
            }
            _ => world.login("alice"),
        };
        client.send(b"update:k@alice ");
        while *sent < 1 << 30 && client.try_send(&piece).is_ok() {
            *sent += piece.len();
        }
        assert!(*sent < 200 << 20, "{who}: {sent} bytes were taken");
    }
    let grown = rss_kib().saturating_sub(before);
    assert!(grown < 100 * 1024, "{grown} KiB more");
    // The reply is told before the end.
    let mut client = world.connect();
    client.send(&vec![b'a'; 17 * 1024]);
    client.expect("error:AT0005-Exception: a request is longer than this server reads : connection closed\n@");
    client.expect_end();
    let mut alice = world.login("alice");
    let value = "x".repeat(10_000_000);
    alice.ask(&format!("update:big@alice {value}"), "data:0\n@alice@");
}

#[test]
fn silence_is_reaped_and_drops_do_not_help() {
    let limits = Limits { anonymous_idle: Duration::from_millis(500), ..Limits::default() };
    let world = World::with(limits);
    world.add_activated("alice");
    let mut alice = world.login("alice");
    let mut silent = world.connect();
    let mut dripping = world.connect();
    let start = Instant::now();
    while dripping.try_send(b"x").is_ok() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(start.elapsed() < Duration::from_secs(5));
    silent.expect_end();
    // Owners may be silent.
    alice.ask("noop:0", "data:ok\n@alice@");
}

#[test]
fn guessing_names_is_slow_and_blocks_nobody() {
    let world = World::start();
    world.add_activated("alice");
    let port = world.address.port();
    let mut guesser = world.connect();
    for n in 0..20 {
        guesser.ask(&format!("guess{n}"), "null\r\n@");
    }
    let start = Instant::now();
    guesser.send(b"one_more\nanother\n");
    world.connect().ask("alice", &format!("localhost:{port}\r\n@"));
    assert!(start.elapsed() < Duration::from_millis(900), "others wait");
    guesser.expect("null\r\n@");
    guesser.expect("null\r\n@");
    assert!(start.elapsed() > Duration::from_secs(1), "the guesser does not");
}

/// Connects from an address of its own: all of 127.0.0.0/8 is this machine.
fn silent_from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket)
}

#[test]
fn thousands_of_silent_connections_keep_nobody_out() {
    let world = World::start();
    world.add_activated("alice");
    let to = world.address;
    let mut silent = Vec::new();
    // Both ends are ours: 10,000 connections are at most 18,192 descriptors, for the server lets only 8,192 strangers sit.
    for n in 0..10_000u32 {
        let source = Ipv4Addr::new(127, 0, 1, u8::try_from(n % 40 + 1).unwrap());
        silent.push(silent_from(source, to).unwrap());
        if n % 1000 == 999 {
            let start = Instant::now();
            let mut alice = world.login("alice");
            alice.ask("noop:0", "data:ok\n@alice@");
            assert!(start.elapsed() < Duration::from_secs(2), "login took {:?} beside {n} others", start.elapsed());
        }
    }
}
