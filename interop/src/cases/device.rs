//! The Python daemon as a device, reached by our `sshnp` through our relay. It knows neither pings nor encrypted
//! relay traffic, insists on `root.atsign.org:64`, and leads to port 22.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_testkit::{Process, World, run, user_name};

use crate::case::{Case, Known, Program};
use crate::house::House;
use crate::limits::{DAEMON_READY, POLL, SESSION, SOON};

const DEVICE: &[Program] = &[Program::Sshnpd0416];
const OUR_PIECES: &str = "relay, device and sshd of this case are our own";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "two ssh sessions in a row, our sshnp and relay",
        reference: "clients of version 5 reach it with --no-ad --no-et: an ssh tunnel into which an ephemeral key of the \
                    daemon lets them, inside the relay's plain sockets",
        with: DEVICE,
        fails: &[],
        needs_ours: Some(OUR_PIECES),
        run: two_sessions,
    },
    Case {
        name: "the user name comes from the daemon's record",
        reference: "clients read username.DEVICE.sshnp; users of this daemon are told to give -u",
        with: DEVICE,
        fails: &[Known {
            program: Program::Sshnpd0416,
            why: "the daemon encrypts the record with a zero IV and names another in its metadata",
            says: "Remote username record",
        }],
        needs_ours: Some(OUR_PIECES),
        run: user_name_from_record,
    },
    Case {
        name: "a pushed ssh key lets the user in",
        reference: "clients send the public key with -s; the daemon appends it to authorized_keys",
        with: DEVICE,
        fails: &[Known {
            program: Program::Sshnpd0416,
            why: "the daemon calls a method that it does not have and hears nothing from then on",
            says: "AttributeError: 'SSHNPDClient' object has no attribute '_handle_ssh_public_key'",
        }],
        needs_ours: Some(OUR_PIECES),
        run: pushed_key,
    },
    Case {
        name: "a session with our defaults says why it cannot be",
        reference: "clients ping, wait 20 s and say that the daemon does not answer",
        with: DEVICE,
        fails: &[],
        needs_ours: Some(OUR_PIECES),
        run: defaults_are_refused,
    },
    Case {
        name: "the server is killed: the daemon is there again",
        reference: "is not concerned: the daemon makes no new connection",
        with: DEVICE,
        fails: &[Known {
            program: Program::Sshnpd0416,
            why: "its SDK reads on from the connection that has ended and never connects again",
            says: "the session after the restart",
        }],
        needs_ours: Some(OUR_PIECES),
        run: after_a_restart,
    },
];

fn two_sessions(house: &mut House, program: Program) -> anyhow::Result<()> {
    let _daemon = start_daemon(house, program)?;
    let world = house.subject.world()?;
    for number in ["first", "second"] {
        session(world, &["-u", &user_name()], SESSION).with_context(|| format!("the {number} session"))?;
    }
    Ok(())
}

fn user_name_from_record(house: &mut House, program: Program) -> anyhow::Result<()> {
    let _daemon = start_daemon(house, program)?;
    session(house.subject.world()?, &[], SOON)
}

fn pushed_key(house: &mut House, program: Program) -> anyhow::Result<()> {
    let world = house.subject.world()?;
    let before = std::fs::read_to_string(world.authorized_keys())?;
    std::fs::write(world.authorized_keys(), "")?;
    let mut daemon = start_daemon(house, program)?;
    let outcome = session(house.subject.world()?, &["-s", "-u", &user_name()], SOON);
    std::fs::write(house.subject.world()?.authorized_keys(), before)?;
    // What the daemon says of it is the reason; without one, our own words are.
    let said = daemon.wait_for_line(POLL, |line| line.starts_with("AttributeError"));
    outcome.with_context(|| said.map_or_else(|_| daemon.tail(), |line| format!("the daemon: {line}")))
}

fn defaults_are_refused(house: &mut House, program: Program) -> anyhow::Result<()> {
    let _daemon = start_daemon(house, program)?;
    let mut sshnp = house.subject.world()?.sshnp();
    sshnp.args(["--daemon-ping-timeout", "3", "-u", &user_name(), "--", "true"]);
    let output = run(sshnp, SESSION)?.exited(1)?;
    ensure!(output.stderr.contains("@device"), "it does not say who: {}", output.stderr);
    Ok(())
}

fn after_a_restart(house: &mut House, program: Program) -> anyhow::Result<()> {
    let _daemon = start_daemon(house, program)?;
    session(house.subject.world()?, &["-u", &user_name()], SESSION).context("the session before")?;
    house.subject.kill()?;
    house.subject.restart()?;
    session(house.subject.world()?, &["-u", &user_name()], SOON).context("the session after the restart")
}

/// A command on the device, by its user's own key.
fn session(world: &World, more: &[&str], limit: Duration) -> anyhow::Result<()> {
    let mut sshnp: Command = world.sshnp();
    sshnp.args(["--no-ad", "--no-et"]).args(more).args(["--", "echo", "TEST", "PASSED"]);
    let output = run(sshnp, limit)?.success()?;
    ensure!(output.text() == "TEST PASSED", "it printed {:?}", output.text());
    Ok(())
}

/// The daemon as it was published, with the keys of the device.
fn start_daemon(house: &mut House, program: Program) -> anyhow::Result<Process> {
    let binary = house.bin(program, "sshnpd");
    let world = house.subject.world()?;
    let mut command = Command::new(binary);
    command.args(["-a", World::DEVICE, "-m", World::CLIENT, "-d", World::DEVICE_NAME, "-s", "-u"]);
    command.env("HOME", world.home_of(World::DEVICE)).env("SSL_CERT_FILE", world.ca_file());
    command.env("PYTHONUNBUFFERED", "1").current_dir(world.home_of(World::DEVICE));
    let mut daemon = Process::start(command)?;
    daemon.wait_for_stdout(DAEMON_READY, |text| text.contains("Monitor started on"))?;
    Ok(daemon)
}
