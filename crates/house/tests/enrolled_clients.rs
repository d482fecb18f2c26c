//! Clients with an enrolment of their own: their requests are signed by it, and their sessions end with it.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::ensure;
use postern_house::enrolment::{decide, enrol};
use postern_house::in_house;
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Piece, Process, World, run, say};

/// Within this time after a revocation nothing of a session is left.
const GONE: Duration = Duration::from_secs(10);
/// The revocation itself takes a login.
const MARGIN: Duration = Duration::from_secs(2);

#[test]
fn a_revoked_client_loses_its_live_sessions() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut unwatched = world.sshnpd("unwatched");
        unwatched.args(["--client-key-check-secs", "0"]);
        let _unwatched = world.start_daemon(unwatched)?;
        let (key_file, id) = enrol(world)?;
        let npt = |device: &str| {
            let mut npt = world.npt(world.ssh_port());
            npt.args(["-d", device, "-k"]).arg(&key_file);
            npt
        };
        let (_watched, port) = world.start_npt(npt(World::DEVICE_NAME))?;
        let (_other, other_port) = world.start_npt(npt("unwatched"))?;
        let mut live = through(port)?;
        let mut other = through(other_port)?;

        decide(world, "revoke", &id)?;
        let revoked = Instant::now();
        ensure!(has_closed(&mut live, GONE + MARGIN)?, "a live connection outlives the enrolment by {GONE:?}");
        say(format_args!("a live connection ended {:.1?} after the revocation", revoked.elapsed()));
        ensure!(through(port).is_err(), "a new connection after the revocation");
        let again = run(npt(World::DEVICE_NAME), SESSION)?.exited(1)?;
        ensure!(!again.stderr.contains("listening"), "a new session after the revocation: {}", again.stderr);
        // Told not to look, a daemon lets a session go on.
        let rest = (GONE + MARGIN).saturating_sub(revoked.elapsed()).max(Duration::from_secs(1));
        ensure!(!has_closed(&mut other, rest)?, "it ended although nobody was to look");
        through(other_port)?;
        // The atSign itself has lost nothing.
        world.on_device(&["true"])?.success()?;
        Ok(())
    })
}

#[test]
fn a_device_that_demands_the_enrolments_signature_says_so() -> anyhow::Result<()> {
    let device_words = vec!["--require-enrollment-signature".to_owned()];
    in_house(Options { device_words, ..Options::default() }, |world| {
        let mut older = world.sshnp();
        older.args(["--dialect", "5.11", "--", "true"]);
        let refused = run(older, SESSION)?.exited(1)?;
        let words = "This daemon requires session requests signed with the client's enrollment key";
        ensure!(refused.stderr.contains(words), "{}", refused.stderr);
        world.on_device(&["true"])?.success()?;
        Ok(())
    })
}

#[test]
fn of_two_instances_one_answers() -> anyhow::Result<()> {
    const SESSIONS: usize = 6;
    in_house(Options::default(), |world| {
        let mut twin = world.sshnpd(World::DEVICE_NAME);
        twin.arg("-s");
        let twin = world.start_daemon(twin)?;
        for _ in 0..SESSIONS {
            world.on_device(&["true"])?.success()?;
        }
        let started = |process: &Process| process.tail().matches("session started").count();
        let counts = [started(world.piece(Piece::Device)?), started(&twin)];
        say(format_args!("{SESSIONS} sessions at two instances: {counts:?}"));
        ensure!(counts.iter().sum::<usize>() == SESSIONS, "not one each: {counts:?}");
        Ok(())
    })
}

/// A connection on which the device's ssh server has said its name.
fn through(port: u16) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(SESSION))?;
    let mut name = [0; 8];
    stream.read_exact(&mut name)?;
    ensure!(&name == b"SSH-2.0-", "not sshd: {name:?}");
    Ok(stream)
}

/// Whether a connection closes within this time; what it says meanwhile is passed over.
fn has_closed(stream: &mut TcpStream, within: Duration) -> anyhow::Result<bool> {
    let end = Instant::now() + within;
    let mut bytes = [0; 256];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(false),
            Err(_) => return Ok(true),
        }
    }
}
