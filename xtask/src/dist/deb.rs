//! Debian's package. It depends on nothing: the binary is static. Source: deb(5), deb-control(5), Debian policy.

use std::path::Path;

use anyhow::bail;

use super::archive::{Entry, What, ar, gzip, tar_gz, with_folders};
use super::files::{programs, read, write};
use super::{Artefact, Source};

/// Makes the package in `folder`.
///
/// # Errors
/// A file is missing, or Debian has no name for the machine.
pub(crate) fn make(source: Source<'_>, folder: &Path) -> anyhow::Result<Artefact> {
    let package = source.build.package();
    let Some(machine) = machine(source.target) else {
        bail!("Debian has no name for {}", source.target);
    };
    let entries = with_folders(contents(source)?);
    let kib: usize =
        entries.iter().map(|entry| if let What::File(bytes) = &entry.what { bytes.len() } else { 0 }).sum();
    let kib = kib.div_ceil(1024);
    let other = source.build.others();
    let control = format!(
        "Package: {package}\n\
         Version: {version}\n\
         Architecture: {machine}\n\
         Maintainer: The Postern developers <postern@localhost.invalid>\n\
         Installed-Size: {kib}\n\
         Conflicts: {other}\n\
         Replaces: {other}\n\
         Section: net\n\
         Priority: optional\n\
         Description: reach machines that have no open port\n \
         {what}\n \
         .\n \
         Works with the programs of SSH No Ports. One static binary with many names.\n",
        version = source.version,
        what = source.build.summary(),
    );
    let conffiles: String = entries
        .iter()
        .filter(|entry| entry.path.starts_with("etc/") && matches!(entry.what, What::File(_)))
        .map(|entry| format!("/{}\n", entry.path))
        .collect();
    let control = [
        Entry::file("conffiles", conffiles),
        Entry::file("control", control),
        Entry::program("postinst", read("packaging/deb/postinst")?),
        Entry::program("postrm", read("packaging/deb/postrm")?),
        Entry::program("prerm", read("packaging/deb/prerm")?),
    ];
    let control = tar_gz(&control, "./", source.epoch)?;
    let data = tar_gz(&entries, "./", source.epoch)?;
    let members = [("debian-binary", b"2.0\n".as_slice()), ("control.tar.gz", &control), ("data.tar.gz", &data)];
    let name = format!("{package}_{}_{machine}.deb", source.version);
    let path = write(folder, &name, &ar(&members, source.epoch))?;
    Ok(Artefact { path, target: source.target.to_owned(), kind: "deb", unpacked: None })
}

/// What is shown and not installed.
const EXAMPLES: [(&str, &str); 1] = [("builtin-ssh.conf", "packaging/systemd/builtin-ssh.conf")];

fn contents(source: Source<'_>) -> anyhow::Result<Vec<Entry>> {
    let package = source.build.package();
    let mut entries = programs(source, "usr/bin")?;
    for service in source.build.services() {
        let unit = read(&format!("packaging/systemd/{service}.service"))?;
        entries.push(Entry::file(&format!("usr/lib/systemd/system/{service}.service"), unit));
        let words = read(&format!("packaging/deb/default/{service}"))?;
        entries.push(Entry::file(&format!("etc/default/{service}"), words));
    }
    let doc = format!("usr/share/doc/{package}");
    for (name, path) in EXAMPLES {
        entries.push(Entry::file(&format!("{doc}/examples/{name}"), read(path)?));
    }
    entries.push(Entry::folder("etc/noports"));
    let mut copyright = b"Copyright: the Postern developers. Licensed under MIT or Apache-2.0, as you like. The text of Apache-2.0 is in\n/usr/share/common-licenses/Apache-2.0; that of MIT is:\n\n".to_vec();
    copyright.extend(read("LICENSE-MIT")?);
    entries.push(Entry::file(&format!("{doc}/copyright"), copyright));
    let log = format!(
        "{package} ({}) stable; urgency=medium\n\n  * See CHANGELOG.md of the project.\n\n -- The Postern developers <postern@localhost.invalid>  Thu, 01 Jan 1970 00:00:00 +0000\n",
        source.version
    );
    entries.push(Entry::file(&format!("{doc}/changelog.gz"), gzip(log.as_bytes())?));
    Ok(entries)
}

/// Debian's name of a machine.
pub(super) fn machine(target: &str) -> Option<&'static str> {
    Some(match target.split('-').next()? {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7" => "armhf",
        "i686" => "i386",
        "riscv64gc" => "riscv64",
        _ => return None,
    })
}
