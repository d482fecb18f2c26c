//! Programs from the Python package index, each set in a virtual environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use postern_testkit::say;

use crate::install;
use crate::steps::run;

/// Says which requirements an environment was made from; written last.
const STAMP: &str = "made-from.txt";

/// One virtual environment for each file in `requirements`, kept until the file changes. They lie in `environments` under
/// the names of the files.
pub(crate) fn environments(requirements: &Path, environments: &Path) -> anyhow::Result<()> {
    install::install(&[("python3", "python3")])?;
    for entry in fs::read_dir(requirements).with_context(|| format!("cannot read {}", requirements.display()))? {
        let file = entry?.path();
        let name = file.file_stem().context("a requirements file has a name")?;
        environment(&file, environments.join(name))?;
    }
    Ok(())
}

fn environment(file: &Path, dir: PathBuf) -> anyhow::Result<()> {
    let wanted = fs::read_to_string(file)?;
    if fs::read_to_string(dir.join(STAMP)).is_ok_and(|made_from| made_from == wanted) {
        return Ok(());
    }
    install::install_venv()?;
    say(format_args!("installing from the Python package index: {}", wanted.trim()));
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&dir))?;
    let mut pip = Command::new(dir.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(file);
    run(&mut pip)?;
    fs::write(dir.join(STAMP), wanted)?;
    Ok(())
}
