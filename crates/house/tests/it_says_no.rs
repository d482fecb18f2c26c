//! Refusals, and what people are told.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::ensure;
use postern_house::in_house;
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, Process, run, say};

/// Somebody with an atSign and no business at this device.
const STRANGER: &str = "@stranger";
/// A device does not answer strangers; our own client says soon why it may be silent.
const PATIENCE: Duration = Duration::from_secs(3);
/// A port that no permit names.
const CLOSED_PORT: u16 = 9;

#[test]
fn a_stranger_gets_nothing_and_soon_hears_why() -> anyhow::Result<()> {
    in_house(Options { strangers: vec![STRANGER.to_owned()], ..Options::default() }, |world| {
        // Without -u the client asks for a record that only managers can read; with it, it knocks.
        for user in [None, Some("root")] {
            let mut sshnp = world.sshnp_as(STRANGER);
            sshnp.args(user.iter().flat_map(|user| ["-u", *user])).args(["--", "echo inside"]);
            let mut process = Process::start(sshnp)?;
            let line = process.wait_for_line(PATIENCE, |line| line.contains("manager"))?;
            say(format_args!("a stranger is told: {line}"));
            let output = process.wait(SESSION)?.exited(1)?;
            say(format_args!("a stranger's client ended after {:.2?}", output.took));
            ensure!(output.stdout.is_empty(), "a stranger got {:?}", output.text());
        }
        // The device goes on for those who may.
        world.on_device(&["true"])?.success()?;
        Ok(())
    })
}

#[test]
fn a_port_that_is_not_permitted_is_refused_with_both_names() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let mut npt = world.npt(CLOSED_PORT);
        npt.args(["-x"]);
        let output = run(npt, SESSION)?.exited(1)?;
        ensure!(output.stdout.is_empty(), "it printed {:?}", output.text());
        let asked = format!("localhost:{CLOSED_PORT}");
        let permitted = format!("localhost:{}", world.ssh_port());
        for name in [asked, permitted] {
            ensure!(output.stderr.contains(&name), "the refusal does not name {name}:\n{}", output.stderr);
        }
        ensure!(output.took < Duration::from_secs(10), "it took {:?}", output.took);
        say(format_args!("refused after {:.2?}: {}", output.took, output.stderr));
        Ok(())
    })
}

#[test]
fn a_pushed_key_lands_once_on_a_line_of_its_own() -> anyhow::Result<()> {
    in_house(Options { authorize_client: false, ..Options::default() }, |world| {
        // Somebody edited the file with an editor that ends no lines.
        let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl somebody@else";
        std::fs::write(world.authorized_keys(), other)?;
        for _ in 0..2 {
            let mut sshnp = world.sshnp();
            sshnp.args(["-s", "--", "echo inside"]);
            let output = run(sshnp, SESSION)?.success()?;
            ensure!(output.stdout == b"inside\n", "stdout: {:?}", output.text());
        }
        let public = std::fs::read_to_string(world.identity().with_extension("pub"))?;
        let blob = public.split_whitespace().nth(1).unwrap_or_default();
        let text = std::fs::read_to_string(world.authorized_keys())?;
        say(format_args!("authorized_keys:\n{text}"));
        let lines: Vec<&str> = text.lines().collect();
        ensure!(lines.first() == Some(&other), "the other key was touched");
        ensure!(lines.iter().filter(|line| line.contains(blob)).count() == 1, "not once");
        ensure!(text.ends_with('\n'), "no newline at the end");
        let mode = std::fs::metadata(world.authorized_keys())?.permissions().mode() & 0o777;
        ensure!(mode & 0o077 == 0 || mode == 0o644, "mode {mode:o}");
        Ok(())
    })
}
