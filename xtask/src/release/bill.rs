//! The bill of materials of a build: which libraries of which version, whence, under which licence.
//!
//! Source: CycloneDX 1.5, JSON; package URLs of type cargo. Without a serial number: the same build has the same bill.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::build::{self, Built};
use super::tools::Tools;
use crate::steps::{cargo, root};

/// Libraries by package URL.
#[derive(Default)]
struct Tree {
    libraries: BTreeMap<String, Library>,
    /// The first of the tree.
    top: String,
}

struct Library {
    name: String,
    version: String,
    licence: String,
    needs: BTreeSet<String>,
}

/// The bill of `postern` for a machine, with these features or all. With what was built, the standard library and the C
/// library are in it as well.
///
/// # Errors
/// Cargo does not know; something else was built.
pub(super) fn of(
    target: &str,
    features: Option<&str>,
    name: &str,
    epoch: u64,
    built: Option<(&Built, &Tools)>,
) -> anyhow::Result<String> {
    let mut tree = cargo();
    // What runs at compile time is not handed out.
    let edges = "normal,no-proc-macro";
    tree.args(["tree", "--locked", "-p", "postern", "--target", target, "--edges", edges, "--prefix", "depth"]);
    tree.args(["--format", "\t{p}\t{l}"]);
    if let Some(features) = features {
        tree.args(["--no-default-features", "--features", features]);
    }
    let output = tree.output().context("cannot run cargo tree")?;
    ensure!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let mut tree = Tree::parse(&String::from_utf8(output.stdout)?)?;
    if let Some((built, tools)) = built {
        tree.compare(built, tools)?;
    }
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let mut text = serde_json::to_string_pretty(&tree.bill(&checksums(&lock), name, epoch)?)?;
    text.push('\n');
    Ok(text)
}

impl Tree {
    /// Lines of a depth, a package and its licence. What was there before is not unfolded again.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut tree = Self::default();
        let mut above: Vec<String> = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let odd = || format!("cargo tree says {line:?}");
            let mut fields = line.split('\t');
            let (depth, package, licence) = (fields.next(), fields.next(), fields.next());
            let depth: usize = depth.and_then(|depth| depth.parse().ok()).with_context(odd)?;
            let mut words = package.with_context(odd)?.split(' ');
            let (name, version) = (words.next().with_context(odd)?, words.next().with_context(odd)?);
            let version = version.strip_prefix('v').with_context(odd)?;
            let url = format!("pkg:cargo/{name}@{version}");
            // Old manifests separate alternatives by a slash.
            let licence = licence.unwrap_or_default().trim_end_matches(" (*)").replace('/', " OR ");
            let library =
                Library { name: name.to_owned(), version: version.to_owned(), licence, needs: BTreeSet::new() };
            tree.libraries.entry(url.clone()).or_insert(library);
            ensure!(depth <= above.len(), odd());
            above.truncate(depth);
            match above.last().and_then(|parent| tree.libraries.get_mut(parent)) {
                Some(parent) => drop(parent.needs.insert(url.clone())),
                None => tree.top.clone_from(&url),
            }
            above.push(url);
        }
        ensure!(!tree.top.is_empty(), "cargo tree says nothing");
        Ok(tree)
    }

    /// Holds the tree against what was compiled, and adds what cargo's tree does not show: the standard library with what
    /// it needs, and musl, which is zig's.
    fn compare(&mut self, built: &Built, tools: &Tools) -> anyhow::Result<()> {
        let compiled: BTreeMap<String, &build::Library> =
            built.libraries.iter().map(|library| (library.url(), library)).collect();
        let absent: Vec<&String> =
            self.libraries.keys().filter(|url| **url != self.top && !compiled.contains_key(*url)).collect();
        ensure!(absent.is_empty(), "cargo's tree has what was not compiled: {absent:?}");
        let mut needs = BTreeSet::new();
        for (url, library) in compiled {
            if self.libraries.contains_key(&url) {
                continue;
            }
            let licence = tools.licence(&library.name, &library.version)?;
            self.add(&url, &library.name, &library.version, &licence, BTreeSet::new());
            needs.insert(url);
        }
        let (rust, musl) = (tools.rust()?, tools.musl()?);
        let musl_url = format!("pkg:generic/musl@{musl}");
        self.add(&musl_url, "musl", &musl, "MIT", BTreeSet::new());
        needs.insert(musl_url);
        let url = format!("pkg:generic/rust-std@{rust}");
        self.add(&url, "rust-std", &rust, "MIT OR Apache-2.0", needs);
        self.libraries.get_mut(&self.top).context("the tree has a first line")?.needs.insert(url);
        Ok(())
    }

    fn add(&mut self, url: &str, name: &str, version: &str, licence: &str, needs: BTreeSet<String>) {
        let (name, version, licence) = (name.to_owned(), version.to_owned(), licence.to_owned());
        self.libraries.insert(url.to_owned(), Library { name, version, licence, needs });
    }

    fn bill(&self, checksums: &BTreeMap<String, String>, name: &str, epoch: u64) -> anyhow::Result<Value> {
        let top = self.libraries.get(&self.top).context("the tree has a first line")?;
        let libraries = self.libraries.iter().filter(|(url, _)| **url != self.top);
        let components = libraries.map(|(url, library)| {
            let mut component = json!({
                "type": "library", "bom-ref": url, "name": library.name, "version": library.version, "purl": url,
            });
            if !library.licence.is_empty() {
                component["licenses"] = json!([{ "expression": library.licence }]);
            }
            if let Some(checksum) = checksums.get(url) {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
            }
            component
        });
        let needs = self.libraries.iter().map(|(url, library)| json!({ "ref": url, "dependsOn": library.needs }));
        Ok(json!({
            "bomFormat": "CycloneDX",
            "specVersion": "1.5",
            "version": 1,
            "metadata": {
                "timestamp": Timestamp::from_second(i64::try_from(epoch)?)?.to_string(),
                "component": {
                    "type": "application", "bom-ref": self.top, "name": name, "version": top.version, "purl": self.top,
                },
            },
            "components": components.collect::<Vec<_>>(),
            "dependencies": needs.collect::<Vec<_>>(),
        }))
    }
}

/// Checksums of `Cargo.lock` by package URL. Crates of our own have none.
fn checksums(lock: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = \""));
            line.and_then(|rest| rest.strip_suffix('"'))
        };
        if let (Some(name), Some(version), Some(checksum)) = (field("name"), field("version"), field("checksum")) {
            all.insert(format!("pkg:cargo/{name}@{version}"), checksum.to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_becomes_a_bill() -> anyhow::Result<()> {
        let text = "0\tpostern v0.1.0 (/somewhere)\tApache-2.0 OR MIT\n1\ttokio v1.54.0\tMIT\n2\tbytes v1.12.2\tMIT/Apache-2.0\n1\tbytes v1.12.2\tMIT/Apache-2.0 (*)\n";
        let lock = "version = 4\n\n[[package]]\nname = \"tokio\"\nversion = \"1.54.0\"\nchecksum = \"ab\"\n\n[[package]]\nname = \"postern\"\nversion = \"0.1.0\"\n";
        let bill = Tree::parse(text)?.bill(&checksums(lock), "postern-device", 0)?;
        assert_eq!(bill["metadata"]["component"]["name"], "postern-device");
        assert_eq!(bill["metadata"]["timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(bill["components"].as_array().map(Vec::len), Some(2));
        assert_eq!(bill["components"][0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(bill["components"][1]["hashes"][0]["content"], "ab");
        let top = bill["dependencies"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["ref"] == "pkg:cargo/postern@0.1.0"));
        let top = top.context("the program is in the bill")?;
        assert_eq!(top["dependsOn"], json!(["pkg:cargo/bytes@1.12.2", "pkg:cargo/tokio@1.54.0"]));
        assert!(!bill.to_string().contains("somewhere"));
        Ok(())
    }

    #[test]
    fn the_device_build_has_no_server() -> anyhow::Result<()> {
        let bill = of("aarch64-unknown-linux-musl", Some(crate::small::FEATURES), "postern-device", 0, None)?;
        for absent in ["rusqlite", "postern-server", "postern-tunnel", "regex-automata", "clap_complete"] {
            assert!(!bill.contains(&format!("\"{absent}\"")), "{absent}");
        }
        assert!(bill.contains("\"postern-device\"") && bill.contains("\"aws-lc-sys\""));
        Ok(())
    }
}
