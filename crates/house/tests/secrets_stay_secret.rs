//! What programs say at their most talkative, what they leave on disk, and what other users see of them: no key is in it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use postern_client::KeyFile;
use postern_house::in_house;
use postern_testkit::limits::{RECOVERY, SESSION};
use postern_testkit::{Options, Output, Piece, World, run};

const RELAY: &str = "@relay2";

/// Texts that nobody may see, by what they are of.
type Secrets = BTreeMap<String, String>;

#[test]
fn the_most_talkative_programs_show_no_key() -> anyhow::Result<()> {
    in_house(Options { strangers: vec![RELAY.to_owned()], ..Options::default() }, |world| {
        world.kill_piece(Piece::Device)?;
        let mut srvd = world.srvd(RELAY);
        srvd.arg("--debug").env("POSTERN_LOG", "trace");
        let relay = world.start_relay(srvd)?;
        let mut sshnpd = world.sshnpd(World::DEVICE_NAME);
        sshnpd.arg("--debug").env("POSTERN_LOG", "trace");
        let daemon = world.start_daemon(sshnpd)?;
        let mut outputs = Vec::new();
        // A session of 2024 first: a device that is known to seal gives no other.
        for words in [["--no-sealed", "--debug"], ["--min-security=sealed", "--debug"]] {
            let mut sshnp = world.sshnp();
            sshnp.env("POSTERN_LOG", "trace").args(["-r", RELAY]).args(words).args(["--", "echo inside"]);
            let output = run(sshnp, SESSION)?.success()?;
            ensure!(output.text().contains("inside"), "{}", output.stderr);
            outputs.push(("sshnp", output));
        }
        let mut npt = world.npt(world.ssh_port());
        npt.env("POSTERN_LOG", "trace").args(["-r", RELAY, "--debug"]);
        let (npt, _) = world.start_npt(npt)?;

        let secrets = secrets(world)?;
        ensure!(secrets.keys().any(|of| of.contains("identity")), "no identity key: {:?}", secrets.keys());
        for process in [&relay, &daemon, &npt] {
            for what in ["cmdline", "environ"] {
                let shown = std::fs::read(format!("/proc/{}/{what}", process.id()))?;
                shows_none(&secrets, &shown, &format!("{what} of a program"))?;
            }
        }
        outputs.push(("npt", npt.terminate(RECOVERY)?));
        outputs.push(("sshnpd", daemon.terminate(RECOVERY)?));
        outputs.push(("srvd", relay.terminate(RECOVERY)?));
        ensure!(outputs.iter().any(|(_, output)| output.stderr.contains("DEBUG")), "nobody was talkative");
        for (who, Output { stdout, stderr, .. }) in &outputs {
            ensure!(!stderr.is_empty(), "{who} said nothing");
            shows_none(&secrets, stdout, who)?;
            shows_none(&secrets, stderr.as_bytes(), who)?;
            // Whoever has a ticket can use it.
            ensure!(!stderr.contains("ticket:eyJ"), "{who} shows a ticket: {stderr}");
        }
        Ok(())
    })
}

/// All private keys below the house, in every form in which they lie there. They are their owners' alone, and no other
/// file holds them.
fn secrets(world: &World) -> anyhow::Result<Secrets> {
    let mut secrets = Secrets::new();
    let (mut keys, mut others) = (Vec::new(), Vec::new());
    walk(world.dir(), &mut |path| {
        let is_key = path.extension().is_some_and(|end| end == "atKeys" || end == "key");
        if is_key { keys.push(path.to_owned()) } else { others.push(path.to_owned()) }
    })?;
    for path in keys {
        let of = path.display().to_string();
        let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
        let text = std::fs::read_to_string(&path)?;
        if of.contains("/identity/") {
            ensure!(mode == 0o600, "{of} has mode {mode:o}");
            // Behind a word that says what it is: base64 of 32 bytes.
            let secret = text.trim().get(text.trim().len().saturating_sub(44)..).context("no key")?;
            secrets.insert(of, secret.to_owned());
        } else if let Ok(keys) = KeyFile::load(&path) {
            ensure!(mode == 0o600, "{of} has mode {mode:o}");
            secrets.insert(format!("{of} login"), keys.pkam.to_base64().to_string());
            secrets.insert(format!("{of} encryption"), keys.encryption.to_base64().to_string());
            secrets.insert(format!("{of} self"), keys.self_encryption.to_base64().to_string());
        }
    }
    for path in others {
        let shown = std::fs::read(&path).with_context(|| path.display().to_string())?;
        shows_none(&secrets, &shown, &path.display().to_string())?;
    }
    Ok(secrets)
}

fn walk(folder: &Path, each: &mut dyn FnMut(&Path)) -> anyhow::Result<()> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let about = std::fs::symlink_metadata(&path)?;
        if about.is_dir() {
            walk(&path, each)?;
        } else if about.is_file() {
            each(&path);
        }
    }
    Ok(())
}

fn shows_none(secrets: &Secrets, shown: &[u8], where_: &str) -> anyhow::Result<()> {
    for (of, secret) in secrets {
        // A part of it will do; the beginning of a private key in DER is the same in all.
        let middle = secret.len() / 2;
        let part =
            secret.as_bytes().get(middle.saturating_sub(14)..(middle + 14).min(secret.len())).unwrap_or_default();
        ensure!(part.len() > 20, "{of} is no secret");
        ensure!(!shown.windows(part.len()).any(|window| window == part), "{where_} shows {of}");
    }
    Ok(())
}
