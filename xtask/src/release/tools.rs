//! Compilers and emulators for other machines, in a folder of our own: the system stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use postern_testkit::say;

use crate::install;
use crate::python;
use crate::steps::{root, run};

/// Debian's packages: a compiler, the sources of its standard library (there is none ready for these machines), emulators.
const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "qemu-user-static"];
/// Says which packages were unpacked; written last.
const STAMP: &str = "packages.txt";

/// Where they lie.
pub(super) struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// Fetches and unpacks what is missing; the first time takes a minute, and 2 GB.
    ///
    /// # Errors
    /// This machine has no apt, or lacks its packages.
    pub(super) fn ready() -> anyhow::Result<Self> {
        let dir = root().join("target/tools");
        python::environments(&root().join("xtask/requirements"), &dir)?;
        unpack(&dir.join("debian"))
            .context("building for other machines needs Debian's packages, of release 12 or later")?;
        Ok(Self { dir })
    }

    /// Root of what Debian's packages brought.
    pub(super) fn debian(&self) -> PathBuf {
        self.dir.join("debian")
    }

    /// `cargo zigbuild` with that compiler: zig is C compiler and linker for every machine.
    pub(super) fn zigbuild(&self) -> Command {
        let (zig, debian) = (self.dir.join("zig/bin"), self.debian());
        let mut command = Command::new(zig.join("cargo-zigbuild"));
        command.arg("zigbuild").current_dir(root());
        // Of the cargo that runs us; it would lead back to the other compiler.
        for name in
            ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUSTUP_HOME", "CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR"]
        {
            command.env_remove(name);
        }
        let path = [zig.as_path(), &debian.join("usr/bin"), Path::new("/usr/bin"), Path::new("/bin")];
        command.env("PATH", path.map(|dir| dir.display().to_string()).join(":"));
        command.env("LD_LIBRARY_PATH", self.libraries());
        // Debian's compiler is a stable one; building the standard library is not a stable function.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.env("ZIG_GLOBAL_CACHE_DIR", self.dir.join("cache/zig")).env("XDG_CACHE_HOME", self.dir.join("cache"));
        command
    }

    /// The version of Rust whose standard library is built.
    pub(super) fn rust(&self) -> anyhow::Result<String> {
        let mut rustc = Command::new(self.debian().join("usr/bin/rustc"));
        let output = rustc.arg("--version").env("LD_LIBRARY_PATH", self.libraries()).output()?;
        let text = String::from_utf8(output.stdout)?;
        text.split(' ').nth(1).map(str::to_owned).with_context(|| format!("rustc says {text:?}"))
    }

    /// The version of the C library that is linked, by zig's sources of it.
    pub(super) fn musl(&self) -> anyhow::Result<String> {
        let mut python = Command::new(self.dir.join("zig/bin/python"));
        let script = "import pathlib, ziglang\nprint((pathlib.Path(ziglang.__file__).parent / 'lib/libc/musl/src/internal/version.h').read_text())";
        let text = String::from_utf8(python.args(["-c", script]).output()?.stdout)?;
        text.split('"').nth(1).map(str::to_owned).context("zig does not tell the version of its musl")
    }

    /// The licence of something that the standard library brings.
    pub(super) fn licence(&self, name: &str, version: &str) -> anyhow::Result<String> {
        let vendor = self.debian().join("usr/lib/rustlib/src/rust/library/vendor");
        let path = vendor.join(format!("{name}-{version}/Cargo.toml"));
        let text = fs::read_to_string(&path).with_context(|| format!("{name} {version} is neither ours nor Rust's"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("license = \""));
        let licence = line
            .and_then(|line| line.strip_suffix('"'))
            .with_context(|| format!("{} names no licence", path.display()))?;
        Ok(licence.replace('/', " OR "))
    }

    fn libraries(&self) -> PathBuf {
        self.debian().join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH))
    }
}

/// An emulator, whether or not it was fetched.
pub(super) fn emulator(name: &str) -> PathBuf {
    root().join("target/tools/debian/usr/bin").join(name)
}

fn unpack(dir: &Path) -> anyhow::Result<()> {
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(dir.join(STAMP)).is_ok_and(|unpacked| unpacked == wanted) {
        return Ok(());
    }
    if !install::is_there("apt-get") || !install::is_there("dpkg") {
        bail!("this machine has no apt");
    }
    say(format_args!("fetching into {} with apt-get: {}", dir.display(), PACKAGES.join(" ")));
    let archives = dir.join("archives");
    fs::create_dir_all(archives.join("partial"))?;
    run(install::apt()?.args(["apt-get", "-q", "update"]))?;
    // Only fetched: what they need and the system has is taken from the system.
    let mut fetch = install::apt()?;
    fetch.args(["apt-get", "-q", "install", "-y", "--no-install-recommends", "--download-only", "--reinstall"]);
    fetch.arg("-o").arg(format!("Dir::Cache::archives={}/", archives.display()));
    fetch.args(["-o", "Debug::NoLocking=1"]).args(PACKAGES);
    run(&mut fetch)?;
    for entry in fs::read_dir(&archives)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg").arg("-x").arg(&path).arg(dir))?;
        }
    }
    fs::remove_dir_all(&archives)?;
    fs::write(dir.join(STAMP), wanted)?;
    Ok(())
}
