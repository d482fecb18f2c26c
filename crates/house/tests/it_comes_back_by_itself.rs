//! After every fault, a new session works within ten seconds of its end. Nobody helps.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use postern_house::{NatHouse, behind_nat};
use postern_testkit::limits::{POLL, RECOVERY};
use postern_testkit::{Piece, Process, say};

/// How long the device's link is dead: longer than every keep-alive, so that all believe it.
const LINK_DEAD: Duration = Duration::from_secs(60);
/// How long a supervisor waits before it starts a killed program again. Time enough for the others to
/// fall into their back-off.
const SUPERVISOR_PAUSE: Duration = Duration::from_secs(5);
/// A person tries again this often.
const NEW_ATTEMPT: Duration = Duration::from_secs(1);

#[test]
fn a_new_session_works_within_ten_seconds_of_every_fault() -> anyhow::Result<()> {
    behind_nat(|house| {
        house.on_device(&["true"])?.success()?;

        for piece in [Piece::Server, Piece::Relay, Piece::Device] {
            house.kill_piece(piece)?;
            std::thread::sleep(SUPERVISOR_PAUSE);
            house.respawn_piece(piece)?;
            recovers(house, &format!("{piece} killed and started again"))?;
        }

        house.network().cut_device_link()?;
        std::thread::sleep(LINK_DEAD);
        house.network().mend_device_link()?;
        recovers(house, &format!("link dead for {LINK_DEAD:?}"))?;
        Ok(())
    })
}

/// Tries new sessions until one works, each from its own start, as a person would.
fn recovers(house: &NatHouse, fault: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut attempts: Vec<Process> = Vec::new();
    let mut first_words = None;
    loop {
        if start.elapsed() >= NEW_ATTEMPT * u32::try_from(attempts.len())? {
            let mut sshnp = house.sshnp();
            sshnp.args(["--", "echo back"]);
            attempts.push(Process::start(sshnp)?);
        }
        for (number, attempt) in attempts.iter_mut().enumerate() {
            match attempt.try_wait()? {
                Some(status) if status.success() => {
                    let took = start.elapsed();
                    say(format_args!("{fault}: a session after {took:.2?} (attempt {})", number + 1));
                    ensure!(took < RECOVERY, "too late");
                    return Ok(());
                }
                Some(_) if first_words.is_none() => {
                    let after = start.elapsed();
                    first_words = Some(format!("attempt {} failed after {after:.2?}:\n{}", number + 1, attempt.tail()));
                }
                _ => {}
            }
        }
        if start.elapsed() > RECOVERY {
            let last = attempts.last().map(Process::tail).unwrap_or_default();
            bail!("{fault}: no session within {RECOVERY:?}\n{}\n{last}", first_words.unwrap_or_default());
        }
        std::thread::sleep(POLL);
    }
}
