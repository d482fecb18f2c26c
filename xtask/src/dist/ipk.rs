//! OpenWrt's package for opkg, and a plain archive for everything else: unpack it over `/`.
//!
//! Source: opkg; an ipk is a compressed tar of three members.

use std::path::Path;

use super::archive::{Entry, tar_gz, with_folders};
use super::files::{copyright, programs, read, write};
use super::{Artefact, Source};

/// Makes the package in `folder`.
///
/// # Errors
/// A file is missing.
pub(crate) fn make(source: Source<'_>, folder: &Path) -> anyhow::Result<Artefact> {
    let package = source.build.package();
    let machine = Machine::of(source.target);
    let entries = with_folders(contents(source)?);
    let control = format!(
        "Package: {package}\nVersion: {version}\nArchitecture: {arch}\nMaintainer: The Postern developers\nSection: net\nPriority: optional\n\
         License: MIT OR Apache-2.0\nConflicts: {others}\nReplaces: {others}\n\
         Description: reach machines that have no open port\n {what}\n",
        version = source.version,
        others = source.build.others(),
        what = source.build.summary(),
        arch = machine.opkg,
    );
    let mut control = vec![
        Entry::file("conffiles", "/etc/config/sshnpd\n"),
        Entry::file("control", control),
        Entry::program("postinst", read("packaging/openwrt/postinst")?),
        Entry::program("prerm", read("packaging/openwrt/prerm")?),
    ];
    if let Some(kernel) = machine.kernel {
        let script = format!(
            "#!/bin/sh\n[ -n \"${{IPKG_INSTROOT}}\" ] || [ \"$(uname -m)\" = {kernel} ] && exit 0\n\
             echo \"{package}: this package is for {kernel}, and this machine is $(uname -m)\" >&2\nexit 1\n"
        );
        control.push(Entry::program("preinst", script));
        control.sort_by(|a, b| a.path.cmp(&b.path));
    }
    let control = tar_gz(&control, "./", source.epoch)?;
    let data = tar_gz(&entries, "./", source.epoch)?;
    let members = [
        Entry::file("debian-binary", "2.0\n"),
        Entry::file("data.tar.gz", data),
        Entry::file("control.tar.gz", control),
    ];
    let name = format!("{package}_{}_{}.ipk", source.version, machine.file);
    let path = write(folder, &name, &tar_gz(&members, "./", source.epoch)?)?;
    Ok(Artefact { path, target: source.target.to_owned(), kind: "ipk", unpacked: None })
}

/// Makes a plain archive in `folder` with the same files: for OpenWrt without opkg.
///
/// # Errors
/// A file is missing.
pub(crate) fn plain(source: Source<'_>, folder: &Path) -> anyhow::Result<Artefact> {
    let name =
        format!("{}-openwrt_{}_{}.tar.gz", source.build.package(), source.version, Machine::of(source.target).file);
    let bytes = tar_gz(&with_folders(contents(source)?), "./", source.epoch)?;
    let path = write(folder, &name, &bytes)?;
    Ok(Artefact { path, target: source.target.to_owned(), kind: "tar.gz", unpacked: None })
}

fn contents(source: Source<'_>) -> anyhow::Result<Vec<Entry>> {
    let mut entries = programs(source, "usr/bin")?;
    entries.push(Entry::program("etc/init.d/sshnpd", read("packaging/openwrt/sshnpd.init")?));
    let config = Entry::file("etc/config/sshnpd", read("packaging/openwrt/sshnpd.config")?);
    entries.push(Entry { mode: 0o600, ..config });
    entries.push(Entry::folder("etc/noports"));
    entries.push(Entry { mode: 0o700, ..Entry::folder("etc/postern") });
    entries.push(Entry::file("lib/upgrade/keep.d/postern", read("packaging/openwrt/postern.keep")?));
    entries.push(Entry::file(&format!("usr/share/licenses/{}", source.build.package()), copyright()?));
    Ok(entries)
}

/// Names of a machine.
struct Machine {
    /// In the names of files.
    file: &'static str,
    /// For opkg. It has a name for each processor, and a static binary runs on all of a kind: these say `all` and look at
    /// the kernel's word when they are installed.
    opkg: &'static str,
    kernel: Option<&'static str>,
}

impl Machine {
    fn of(target: &str) -> Self {
        let all = |kernel| Self { file: kernel, opkg: "all", kernel: Some(kernel) };
        match target.split('-').next().unwrap_or_default() {
            "x86_64" => all("x86_64"),
            "aarch64" => all("aarch64"),
            "armv7" => all("armv7l"),
            // Kernels of both byte orders say `mips`.
            "mipsel" => Self { file: "mipsel_24kc", opkg: "mipsel_24kc", kernel: None },
            _ => Self { file: "all", opkg: "all", kernel: None },
        }
    }
}
