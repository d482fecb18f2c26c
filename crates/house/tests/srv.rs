//! `srv` as a parent of another make starts it: secrets in the environment, a marker to wait for, a log file.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_testkit::limits::SESSION;
use postern_testkit::{Process, postern_bin, run};

const STARTED: &str = "rv started successfully";
const AUTH: &str = r#"{"payload":{"sessionId":"6f"},"signature":"c2ln"}"#;
const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const IV: &str = "AAAAAAAAAAAAAAAAAAAAAA==";
const OTHER_IV: &str = "AQAAAAAAAAAAAAAAAAAAAA==";
/// Nothing that is to happen may take longer.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn both_ends_with_a_line_and_one_key() -> anyhow::Result<()> {
    carries(&["--rv-auth", "--rv-e2ee"], &[("RV_AUTH", AUTH), ("RV_AES", KEY), ("RV_IV", IV)])
}

#[test]
fn both_ends_with_a_key_for_each_direction_and_a_control_channel() -> anyhow::Result<()> {
    let twin = [("RV_AES_C2D", KEY), ("RV_IV_C2D", IV), ("RV_AES_D2C", KEY), ("RV_IV_D2C", OTHER_IV)];
    let environment: Vec<_> = [("RV_AUTH", AUTH)].into_iter().chain(twin).collect();
    carries(&["--rv-auth", "--rv-e2ee", "--multi", "--timeout", "5"], &environment)
}

/// A relay that reads one line of each socket and joins them in order of arrival; it looks at what it carries.
fn carries(words: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<()> {
    let dir = tempfile()?;
    let (port_a, port_b) = relay()?;
    let target = TcpListener::bind("127.0.0.1:0")?;
    let target_port = target.local_addr()?.port().to_string();
    let echo = std::thread::spawn(move || -> anyhow::Result<()> {
        let (mut socket, _) = target.accept()?;
        let mut text = Vec::new();
        socket.read_to_end(&mut text)?;
        socket.write_all(&text)?;
        Ok(())
    });
    let mut device = srv(&dir, port_b, environment)?;
    device.args(["--local-port", &target_port, "--local-host", "127.0.0.1"]).args(words);
    let mut device = Process::start(device)?;
    if !words.contains(&"--multi") {
        // A single session dials its target at once; the relay holds the socket until the client's comes.
        device.wait_for_line(SOON, |line| line == STARTED)?;
    }
    let mut client = srv(&dir, port_a, environment)?;
    client.args(["--bind-local-port", "--local-port", "0", "--local-host", "127.0.0.1"]).args(words);
    let mut client = Process::start(client)?;
    let line = client.wait_for_line(SOON, |line| line.starts_with("listening on "))?;
    client.wait_for_line(SOON, |line| line == STARTED)?;
    device.wait_for_line(SOON, |line| line == STARTED)?;
    let log = dir.path().join(format!("srv.{}.log", client.id()));
    ensure!(std::fs::read_to_string(&log)?.contains(STARTED), "no marker in {}", log.display());

    let mut socket = TcpStream::connect(line.trim_start_matches("listening on "))?;
    socket.set_read_timeout(Some(SOON))?;
    socket.write_all(PLAIN)?;
    socket.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    ensure!(answer == PLAIN, "got {} bytes back", answer.len());
    drop(socket);
    echo.join().expect("the target does not panic")?;
    client.wait(SESSION)?.exited(0)?;
    device.wait(SESSION)?.exited(0)?;
    ensure!(!log.exists(), "{} is left behind", log.display());
    Ok(())
}

const PLAIN: &[u8] = b"nobody on the way may read this, or it would have been seen by the relay of the test";

#[test]
fn what_is_missing_is_told_with_the_right_code() -> anyhow::Result<()> {
    let dir = tempfile()?;
    let mut bare = srv(&dir, 1, &[])?;
    bare.arg("--rv-auth");
    let output = run(bare, SESSION)?.exited(1)?;
    ensure!(output.stderr.contains("--rv-auth required, but RV_AUTH is not in environment"), "{}", output.stderr);
    let mut wrong = srv(&dir, 1, &[])?;
    wrong.arg("--nonsense");
    run(wrong, SESSION)?.exited(1)?;
    // Port 1 of loopback: nobody listens.
    let output = run(srv(&dir, 1, &[])?, SESSION)?.exited(200)?;
    ensure!(output.stderr.contains("Exception running srv"), "{}", output.stderr);
    let logs: Vec<_> = std::fs::read_dir(dir.path())?.collect::<Result<_, _>>()?;
    ensure!(logs.len() == 1, "the log of the failure stays, and no other");
    Ok(())
}

fn srv(dir: &Dir, port: u16, environment: &[(&str, &str)]) -> anyhow::Result<Command> {
    let mut command = Command::new(postern_bin()?);
    command.args(["srv", "-h", "127.0.0.1", "-p", &port.to_string()]);
    command.env("TMPDIR", dir.path()).envs(environment.iter().copied());
    Ok(command)
}

fn relay() -> anyhow::Result<(u16, u16)> {
    let (a, b) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    let ports = (a.local_addr()?.port(), b.local_addr()?.port());
    std::thread::spawn(move || -> anyhow::Result<()> {
        loop {
            let (one, other) = (admitted(&a)?, admitted(&b)?);
            for (from, to) in [(one.try_clone()?, other.try_clone()?), (other, one)] {
                std::thread::spawn(move || carry(from, to));
            }
        }
    });
    Ok(ports)
}

fn admitted(listener: &TcpListener) -> anyhow::Result<TcpStream> {
    let (mut socket, _) = listener.accept()?;
    let mut line = vec![0; AUTH.len() + 1];
    socket.read_exact(&mut line).context("no line")?;
    assert_eq!(line, format!("{AUTH}\n").as_bytes(), "the line in the environment, and a newline");
    Ok(socket)
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        let seen = &bytes[..n];
        assert!(!seen.windows(8).any(|part| PLAIN.windows(8).any(|plain| plain == part)), "plain text at the relay");
        if to.write_all(seen).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A directory of its own for log files, removed at the end.
struct Dir(std::path::PathBuf);

impl Dir {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tempfile() -> anyhow::Result<Dir> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("postern-srv-{}-{number}", std::process::id()));
    std::fs::create_dir(&path)?;
    Ok(Dir(path))
}
