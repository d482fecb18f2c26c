//! `sshnp --list-devices`: what a client is told of the devices that let it in.

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, World, run};

#[test]
fn devices_are_listed_and_those_that_run_are_told_apart() -> anyhow::Result<()> {
    in_house(Options { strangers: vec!["@stranger".into()], ..Options::default() }, |world| {
        let mut hidden = world.sshnpd("hidden");
        hidden.arg("--hide");
        let _hidden = world.start_daemon(hidden)?;
        world.start_daemon(world.sshnpd("asleep"))?.kill();

        let list = |at_sign: &str, words: &[&str]| {
            let mut command = world.postern(at_sign);
            command.args(["sshnp", "-f", at_sign, "--list-devices", "--root-domain", &world.root(), "-k"]);
            command.arg(world.key_file(at_sign)).args(words);
            run(command, SESSION)?.success()
        };
        let listed = list(World::CLIENT, &["-t", World::DEVICE])?;
        ensure!(listed.stdout.is_empty(), "the list is talk: {:?}", listed.text());
        let (active, inactive) = listed.stderr.split_once("Inactive Devices:").context("no inactive devices")?;
        let services = format!("  - allowedServices: localhost:{}", world.ssh_port());
        ensure!(active.contains("Active Devices:\n  gateway - v") && active.contains(&services), "{active}");
        ensure!(inactive.contains("  asleep - v") && !listed.stderr.contains("hidden"), "{}", listed.stderr);

        let json = list(World::CLIENT, &["-t", World::DEVICE, "-d", "gateway", "--json"])?.text();
        let wanted = r#"[{"device":"gateway","atSign":"@device","active":true,"info":{"devicename":"gateway""#;
        ensure!(json.starts_with(wanted) && json.lines().count() == 1, "{json}");

        // Without -t, the devices of all atSigns that have told us of themselves.
        let all = list(World::CLIENT, &[])?;
        ensure!(all.stderr.contains("\n  gateway@device - v"), "{}", all.stderr);

        let none = list("@stranger", &["-t", World::DEVICE])?;
        ensure!(none.stderr.contains("[X] No devices found"), "{}", none.stderr);
        Ok(())
    })
}
