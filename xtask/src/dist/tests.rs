//! Packages as their users meet them: Debian's own tools install and remove them, OpenWrt's shell runs the script, and the
//! same input gives the same bytes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use postern_testkit::say;
use serde_json::Value;
use tempfile::TempDir;

use super::files::digest;
use super::{Artefact, Build, Source, deb, image, index, ipk};
use crate::install::is_there;
use crate::steps::root;

const EPOCH: u64 = 1_700_000_000;

/// Stands for the binary: the packages do not look into it.
fn stand_in(dir: &Path) -> PathBuf {
    let path = dir.join("postern");
    fs::write(&path, "#!/bin/sh\necho \"$0 $*\"\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn source<'a>(binary: &'a Path, target: &'a str, build: Build) -> Source<'a> {
    Source { binary, target, build, version: "0.9.1", epoch: EPOCH }
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// True when all are there; else says which test is left out, and why.
fn have(what: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !is_there(program)).collect();
    if !missing.is_empty() {
        say(format_args!("skipped: {what}: this machine has no {missing:?}"));
    }
    missing.is_empty()
}

/// True in a place where file systems can be mounted.
fn may_mount(what: &str) -> bool {
    let tried = run(Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]));
    if !tried.status.success() {
        say(format_args!("skipped: {what}: mounting is not allowed here: {}", text(&tried.stderr).trim()));
    }
    tried.status.success()
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let make = |dir: &TempDir| -> Vec<(String, Vec<u8>)> {
        let binary = stand_in(dir.path());
        let out = dir.path().join("out");
        let mut made: Vec<Artefact> =
            super::pack(source(&binary, "aarch64-unknown-linux-musl", Build::Full), &out).unwrap();
        made.extend(super::pack(source(&binary, "aarch64-unknown-linux-musl", Build::Server), &out).unwrap());
        made.extend(super::pack(source(&binary, "x86_64-unknown-linux-musl", Build::DeviceFull), &out).unwrap());
        made.extend(super::pack(source(&binary, "armv7-unknown-linux-musleabihf", Build::Device), &out).unwrap());
        made.extend(super::pack(source(&binary, "mipsel-unknown-linux-musl", Build::Device), &out).unwrap());
        let name = |artefact: &Artefact| artefact.path.file_name().unwrap().to_str().unwrap().to_owned();
        made.iter().map(|artefact| (name(artefact), fs::read(&artefact.path).unwrap())).collect()
    };
    let (one, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (first, second) = (make(&one), make(&other));
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "postern_0.9.1_arm64.deb",
            "postern-client_0.9.1_arm64.image.tar",
            "postern-server_0.9.1_arm64.deb",
            "postern-server_0.9.1_arm64.image.tar",
            "postern-device-full_0.9.1_amd64.deb",
            "postern-device-full_0.9.1_x86_64.ipk",
            "postern-device-full-openwrt_0.9.1_x86_64.tar.gz",
            "postern-device_0.9.1_amd64.image.tar",
            "postern-device_0.9.1_armhf.deb",
            "postern-device_0.9.1_armv7l.ipk",
            "postern-device-openwrt_0.9.1_armv7l.tar.gz",
            "postern-device_0.9.1_mipsel_24kc.ipk",
            "postern-device-openwrt_0.9.1_mipsel_24kc.tar.gz"
        ]
    );
    assert!(first == second);
}

#[test]
fn units_are_understood_and_locked_up() {
    if !have("systemd's opinion of the units", &["systemd-analyze"]) {
        return;
    }
    let dir = TempDir::new().unwrap();
    // Exposure from 0 to 10; what is known today, rounded up.
    for (unit, exposure) in [("sshnpd", 1.6), ("srvd", 1.9), ("postern-server", 1.8)] {
        let written = fs::read_to_string(root().join(format!("packaging/systemd/{unit}.service"))).unwrap();
        let there = ["sshnpd", "srvd", "postern"].iter().fold(written, |text, program| {
            text.replace(&format!("ExecStart=/usr/bin/{program}"), "ExecStart=/bin/true")
        });
        let path = dir.path().join(format!("{unit}.service"));
        fs::write(&path, there).unwrap();
        if unit == "sshnpd" {
            let more = dir.path().join("sshnpd.service.d");
            fs::create_dir(&more).unwrap();
            fs::copy(root().join("packaging/systemd/builtin-ssh.conf"), more.join("builtin-ssh.conf")).unwrap();
            let verify = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
            assert!(!text(&verify.stderr).contains("builtin-ssh"), "{}", text(&verify.stderr));
            fs::remove_dir_all(more).unwrap();
        }
        let verify = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path));
        let complaints = text(&verify.stderr);
        assert!(verify.status.success() && !complaints.contains(unit), "{complaints}");
        let security =
            run(Command::new("systemd-analyze").args(["security", "--offline=true", "--no-pager"]).arg(&path));
        let told = text(&security.stdout);
        let level = told.lines().rev().find_map(|line| line.split_once(".service: ")).map(|(_, level)| level);
        let level: f32 =
            level.and_then(|level| level.split(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{told}"));
        assert!(level <= exposure, "{unit}: exposure {level}\n{told}");
    }
}

/// In this machine's own system, seen through a layer that takes all the changes and is thrown away.
#[test]
fn debian_installs_it_runs_it_and_takes_it_away() {
    let what = "installing the deb";
    if !have(what, &["dpkg", "unshare", "useradd"]) || !may_mount(what) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let binary = stand_in(dir.path());
    let made = deb::make(source(&binary, "x86_64-unknown-linux-musl", Build::Full), dir.path()).unwrap();
    let script = r##"
        set -e
        mkdir -p "$1"; mount -t tmpfs none "$1"; mkdir "$1/up" "$1/work" "$1/root"
        mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
        cp "$2" "$1/root/package.deb"
        exec chroot "$1/root" sh -c '
            set -e
            test "$(dpkg-deb -f /package.deb Depends)" = ""
            dpkg --force-architecture -i /package.deb >&2
            echo "version: $(sshnpd --version)"
            test -L /etc/systemd/system/multi-user.target.wants/sshnpd.service && echo enabled: sshnpd
            test -e /etc/systemd/system/multi-user.target.wants/srvd.service || echo not enabled: srvd
            echo "home: $(stat -c "%U %a" /var/lib/postern)"
            echo "# mine" >>/etc/default/sshnpd
            touch /var/lib/postern/key /etc/noports/sshnpd.yaml
            dpkg --force-architecture -i /package.deb >&2
            echo "kept: $(tail -n 1 /etc/default/sshnpd)"
            dpkg -r postern >&2
            test ! -e /usr/bin/sshnpd && test ! -L /usr/bin/sshnpd && echo removed
            test -e /var/lib/postern/key && test -e /etc/noports/sshnpd.yaml && echo keys: stay
            dpkg -P postern >&2
            test ! -e /var/lib/postern && test ! -e /etc/noports && test ! -e /etc/default/sshnpd && echo purged
            getent passwd postern || echo no user
        '
    "##;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(dir.path().join("layers")).arg(&made.path);
    let output = run(command.env("DEBIAN_FRONTEND", "noninteractive"));
    let told = text(&output.stderr);
    if told.contains("mount: ") {
        return say(format_args!("skipped: {what}: {}", told.trim()));
    }
    let expected = "version: /usr/bin/sshnpd --version\nenabled: sshnpd\nnot enabled: srvd\nhome: postern 700\nkept: # mine\nremoved\nkeys: stay\npurged\nno user\n";
    assert_eq!(text(&output.stdout), expected, "{told}");
}

#[test]
fn an_ipk_is_three_members_and_keeps_keys_over_sysupgrade() {
    let dir = TempDir::new().unwrap();
    let binary = stand_in(dir.path());
    let made = ipk::make(source(&binary, "mipsel-unknown-linux-musl", Build::Device), dir.path()).unwrap();
    let unpack = |archive: &Path, to: &str| {
        let to = dir.path().join(to);
        fs::create_dir_all(&to).unwrap();
        let output = run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&to));
        assert!(output.status.success(), "{}", text(&output.stderr));
        to
    };
    let members = unpack(&made.path, "members");
    assert_eq!(fs::read_to_string(members.join("debian-binary")).unwrap(), "2.0\n");
    let control = fs::read_to_string(unpack(&members.join("control.tar.gz"), "control").join("control")).unwrap();
    assert!(control.contains("Architecture: mipsel_24kc\n") && !control.contains("Depends"), "{control}");
    let system = unpack(&members.join("data.tar.gz"), "system");
    let keep = fs::read_to_string(system.join("lib/upgrade/keep.d/postern")).unwrap();
    // A gateway that is reached by nothing else must come back: the program is kept as well, not only its keys.
    for needed in ["/etc/postern/", "/etc/noports/", "/etc/config/sshnpd", "/etc/init.d/sshnpd", "/usr/bin/postern"] {
        assert!(keep.lines().any(|line| line == needed), "{needed} is not kept");
        assert!(system.join(&needed[1..]).exists(), "{needed} is not in the package");
    }
    assert_eq!(fs::metadata(system.join("etc/postern")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_link(system.join("usr/bin/sshnpd")).unwrap(), Path::new("postern"));
}

/// The init script under a stand-in for rc.common that writes down what procd is asked.
#[test]
fn procd_starts_what_uci_says() {
    let shell = if is_there("busybox") { vec!["busybox", "sh"] } else { vec!["sh"] };
    let dir = TempDir::new().unwrap();
    let home = dir.path().join("home");
    let yaml = dir.path().join("sshnpd.yaml");
    let script = fs::read_to_string(root().join("packaging/openwrt/sshnpd.init")).unwrap();
    let script = script
        .replace("HOME_DIR=/etc/postern", &format!("HOME_DIR={}", home.display()))
        .replace("RUN_DIR=/var/run", &format!("RUN_DIR={}", dir.path().display()))
        .replace("STATE_DIR=/var/lib", &format!("STATE_DIR={}", dir.path().display()));
    let stub = r##"
        procd_open_instance() { echo "instance $1"; }
        procd_set_param() { echo "set $*"; }
        procd_append_param() { echo "append $*"; }
        procd_close_instance() { echo close; }
        config_load() { :; }
        config_foreach() { "$1" main; "$1" off; "$1" empty; }
        config_get() { eval "$1=\${uci_$2_$3:-$4}"; }
        config_get_bool() { eval "$1=\${uci_$2_$3:-$4}"; }
        config_list_foreach() { eval "set -- \$3 \$uci_$1_$2"; local each=$1; shift; local v; for v in "$@"; do $each "$v"; done; }
        uci_main_atsign=@dev uci_main_manager="@alice @bob" uci_main_device=gw-17 uci_main_sshpublickey=1
        uci_main_permit_open="localhost:22 localhost:80" uci_main_flags="--resume 60" uci_main_ca_file=/etc/ca.pem
        uci_off_enabled=0 uci_off_atsign=@dev uci_main_config=NOWHERE uci_empty_config=YAML
    "##;
    let stub = stub.replace("YAML", yaml.to_str().unwrap());
    let asked = || {
        let mut command = Command::new(shell[0]);
        let output = run(command.args(&shell[1..]).arg("-c").arg(format!("{stub}\n{script}\nstart_service")));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stderr), "");
        text(&output.stdout)
    };
    let told = asked();
    let command: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("append command ").or(line.strip_prefix("set command ")))
        .collect();
    assert_eq!(
        command.join(" "),
        "/usr/bin/sshnpd -a @dev -m @alice,@bob --permit-open localhost:22,localhost:80 -d gw-17 -s --resume 60"
    );
    assert_eq!(told.matches("instance ").count(), 1, "one is off and one knows nothing: {told}");
    assert!(told.contains("set respawn 3600 10 0\n") && told.contains("POSTERN_CA_FILE=/etc/ca.pem"), "{told}");
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
    // `postern join` wrote its file: that is enough.
    fs::write(&yaml, "").unwrap();
    assert!(asked().contains(&format!("append command --config {}\n", yaml.display())));
}

#[test]
fn an_image_is_what_engines_read() {
    let dir = TempDir::new().unwrap();
    let binary = stand_in(dir.path());
    let made = image::make(
        source(&binary, "armv7-unknown-linux-musleabihf", Build::DeviceFull),
        image::Role::Device,
        dir.path(),
    );
    let made = made.unwrap();
    let members = dir.path().join("members");
    fs::create_dir(&members).unwrap();
    assert!(run(Command::new("tar").arg("-xf").arg(&made.path).arg("-C").arg(&members)).status.success());
    let json = |path: &str| -> Value { serde_json::from_slice(&fs::read(members.join(path)).unwrap()).unwrap() };
    let manifest = json("manifest.json");
    assert_eq!(manifest[0]["RepoTags"][0], "postern/device:latest");
    let config = json(manifest[0]["Config"].as_str().unwrap());
    assert_eq!((&config["architecture"], &config["variant"]), (&"arm".into(), &"v7".into()));
    assert_eq!(config["config"]["User"], "1024:1024");
    assert_eq!(config["config"]["Healthcheck"]["Test"][2], "status");
    assert_eq!(config["created"], "2023-11-14T22:13:20Z");
    let layer = members.join(manifest[0]["Layers"][0].as_str().unwrap());
    let listed = text(&run(Command::new("tar").args(["-tvzf"]).arg(layer)).stdout);
    assert!(
        listed.lines().any(|line| line.starts_with("drwx------ 1024/1024") && line.ends_with(" atsign/.atsign/keys/")),
        "{listed}"
    );
    assert!(listed.contains(" usr/local/bin/sshnpd -> postern"), "{listed}");
    assert!(!listed.contains("bin/sh"), "{listed}");
}

#[test]
fn an_image_for_several_machines_has_a_part_for_each() {
    let dir = TempDir::new().unwrap();
    let binary = stand_in(dir.path());
    let of = |target| source(&binary, target, Build::Server);
    let sources =
        [of("x86_64-unknown-linux-musl"), of("aarch64-unknown-linux-musl"), of("armv7-unknown-linux-musleabihf")];
    let made = index::make(&sources, image::Role::Server, dir.path()).unwrap();
    let members = dir.path().join("members");
    fs::create_dir(&members).unwrap();
    assert!(run(Command::new("tar").arg("-xf").arg(&made.path).arg("-C").arg(&members)).status.success());
    let read = |path: &str| fs::read(members.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    // What a descriptor points at is there, and has the size and the digest that it says.
    let follow = |descriptor: &Value| -> Value {
        let bytes = read(&format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/")));
        assert_eq!(descriptor["size"], bytes.len());
        assert_eq!(descriptor["digest"], format!("sha256:{}", digest(&bytes)));
        serde_json::from_slice(&bytes).unwrap_or(Value::Null)
    };
    let outer: Value = serde_json::from_slice(&read("index.json")).unwrap();
    let index = follow(&outer["manifests"][0]);
    let mut machines = Vec::new();
    for descriptor in index["manifests"].as_array().unwrap() {
        let manifest = follow(descriptor);
        let config = follow(&manifest["config"]);
        assert_eq!(config["architecture"], descriptor["platform"]["architecture"]);
        assert_eq!(follow(&manifest["layers"][0]), Value::Null);
        machines.push(config["architecture"].as_str().unwrap().to_owned());
    }
    assert_eq!(machines, ["amd64", "arm64", "arm"]);
    if have("skopeo's opinion of the image", &["skopeo"]) {
        let place = format!("oci-archive:{}", made.path.display());
        let mut copy = Command::new("skopeo");
        copy.args(["--insecure-policy", "--tmpdir"]).arg(dir.path()).args(["copy", "--all", "--quiet", &place]);
        let output = run(copy.arg(format!("dir:{}", dir.path().join("copy").display())));
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
}

/// OpenWrt's own package manager, in a root of its own with a stand-in for procd.
#[test]
fn opkg_installs_it_keeps_what_was_changed_and_takes_it_away() {
    let what = "installing the ipk";
    if !have(what, &["opkg", "busybox", "chroot"]) || !may_mount(what) {
        return;
    }
    let dir = TempDir::new().unwrap();
    let binary = stand_in(dir.path());
    let made = ipk::make(source(&binary, "x86_64-unknown-linux-musl", Build::Device), dir.path()).unwrap();
    let script = r##"
        set -e
        mkdir -p "$1/proc" "$1/tmp" "$1/etc/rc.d" "$1/var/lock" "$1/usr/lib/opkg" "$1/bin"
        for place in bin lib lib64 usr/lib; do
            [ ! -d "/$place" ] || { mkdir -p "$1/host/$place"; mount --bind "/$place" "$1/host/$place"; }
        done
        [ ! -d /lib64 ] || ln -s host/lib64 "$1/lib64"
        ln -s host/lib "$1/lib"
        cp "$(command -v busybox)" "$(command -v opkg)" "$1/bin/"
        for name in sh cp mv rm ln ls cat mkdir basename tail uname env gzip gunzip; do ln -s busybox "$1/bin/$name"; done
        printf 'dest root /\ndest ram /tmp\nlists_dir ext /var/opkg-lists\narch all 1\n' >"$1/etc/opkg.conf"
        printf '%s\n' '#!/bin/sh' '. "$1"; name=$(basename "$1"); case "$2" in' \
            'enable) ln -sf "../init.d/$name" "/etc/rc.d/S$START$name" ;;' 'disable) rm -f "/etc/rc.d/S$START$name" ;;' \
            '*) echo "init: $2" ;;' 'esac' >"$1/etc/rc.common"
        chmod +x "$1/etc/rc.common"
        cp "$2" "$1/tmp/postern.ipk"
        exec chroot "$1" /bin/sh -c '
            set -e
            export PATH=/bin:/usr/bin
            opkg install /tmp/postern.ipk
            echo "version: $(sshnpd --version)"
            ls /etc/rc.d
            echo "# mine" >>/etc/config/sshnpd; echo key >/etc/postern/key
            opkg install --force-reinstall /tmp/postern.ipk
            echo "kept: $(tail -n 1 /etc/config/sshnpd) $(cat /etc/postern/key)"
            opkg remove postern-device
            ls /etc/rc.d /usr/bin
            echo "kept: $(cat /etc/postern/key)"
        '
    "##;
    let mut command = Command::new("unshare");
    let output = run(command.args(["-m", "sh", "-c", script, "sh"]).arg(dir.path().join("root")).arg(&made.path));
    let told = format!("{}\n{}", text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{told}");
    for line in ["version: /usr/bin/sshnpd --version", "S95sshnpd", "init: start", "kept: # mine key", "kept: key"] {
        assert!(told.lines().any(|one| one == line), "{line:?} is not in:\n{told}");
    }
    let after = told.split("/etc/rc.d:").last().unwrap();
    assert!(!after.contains("sshnpd\n"), "it was not taken away:\n{told}");
}
