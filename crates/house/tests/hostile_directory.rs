//! A directory or atServer that shows other keys than those that are known.

use anyhow::ensure;
use postern_house::in_house;
use postern_testkit::limits::COMMAND;
use postern_testkit::{Options, Output, World, run};

fn postern(world: &World, words: &[&str]) -> anyhow::Result<Output> {
    let mut command = world.postern(World::CLIENT);
    command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME").args(words);
    run(command, COMMAND)
}

/// The last word of the line that says what the server shows.
fn shown(line: &str) -> anyhow::Result<String> {
    let word = line.split_whitespace().nth(2).filter(|word| word.starts_with("SHA256:"));
    Ok(word.ok_or_else(|| anyhow::anyhow!("no fingerprint in {line:?}"))?.to_owned())
}

#[test]
fn a_server_that_shows_another_key_is_noticed_until_a_person_accepts_it() -> anyhow::Result<()> {
    in_house(Options::default(), |world| {
        let root = world.root();
        let ask = ["fingerprint", World::DEVICE, "-r", &root];
        let now = shown(&postern(world, &ask)?.success()?.text())?;
        let other = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
        postern(world, &["pin", "accept", World::DEVICE, other])?.success()?;
        let refused = postern(world, &ask)?.exited(3)?;
        ensure!(refused.stderr.contains(&format!("postern pin accept {} {now}", World::DEVICE)), "{}", refused.stderr);
        postern(world, &["pin", "accept", World::DEVICE, &now])?.success()?;
        postern(world, &ask)?.success()?;
        let list = postern(world, &["pin", "list", "--json"])?.success()?.text();
        ensure!(list.contains(&now) && !list.contains(other), "{list}");
        postern(world, &["pin", "remove", World::DEVICE])?.success()?;
        postern(world, &["pin", "remove", World::DEVICE])?.exited(1)?;
        postern(world, &["pin", "accept", "nobody", &now])?.exited(2)?;
        Ok(())
    })
}
