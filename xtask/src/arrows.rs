//! `cargo xtask arrows`: what a crate must not be able to do, it must not be able to name.
//!
//! Each crate says on which floor it lives (`[package.metadata.house] floor`); cargo says what it
//! uses. Arrows go down, sideways only where the plan draws one.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use postern_testkit::say;
use serde_json::Value as Json;

use crate::steps::cargo;

/// From the ground up. `tests` may use everything, and nobody uses `tests`.
const FLOORS: [&str; 6] = ["words", "minds", "hands", "rooms", "door", "tests"];
/// Floors that think: no sockets, no clock.
const PURE: [&str; 2] = ["words", "minds"];
/// What thinking does without.
const HANDS_OF_OTHERS: [&str; 6] = ["tokio", "mio", "socket2", "rustls", "rustix", "rusqlite"];
/// Arrows within a floor: who, whom.
const SIDEWAYS: [(&str, &str); 13] = [
    ("sshd", "net"),
    ("store-sqlite", "store"),
    ("client", "net"),
    ("link", "net"),
    ("doctor", "client"),
    ("doctor", "net"),
    ("doctor", "observe"),
    ("rendezvous", "identity"),
    ("session", "identity"),
    ("session", "rendezvous"),
    ("seal", "identity"),
    ("seal", "session"),
    ("rules", "session"),
];
/// Who must never reach whom, by any way.
const NEVER: [(&str, &str); 16] = [
    // They carry what they cannot read.
    ("relay", "session"),
    ("relay", "link"),
    ("server", "session"),
    ("server", "link"),
    ("relay", "seal"),
    ("relay", "streams"),
    ("server", "seal"),
    ("server", "streams"),
    // A device writes nothing but a key file.
    ("device", "store"),
    ("device", "store-sqlite"),
    ("tunnel", "store"),
    ("tunnel", "store-sqlite"),
    // Sockets for everybody: it cannot become the drawer for everything.
    ("net", "proto"),
    ("net", "crypto"),
    // Bytes in, bytes out.
    ("crypto", "proto"),
    ("proto", "crypto"),
];
/// Libraries that only these crates name.
const OWNERS: [(&str, &[&str]); 5] = [
    ("aws-lc-rs", &["crypto"]),
    ("rustls", &["net", "seal"]),
    ("tokio-rustls", &["net"]),
    ("rcgen", &["net", "seal"]),
    ("russh", &["sshd"]),
];
/// Who thinks with what hands are for: TLS by bytes needs no socket.
const THINKS_WITH: [(&str, &str); 1] = [("seal", "rustls")];
/// Prefix of our packages.
const PREFIX: &str = "postern-";

/// Says what is wrong, or how much was looked at.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let count = check_workspace()?;
    say(format_args!("{count} arrows, all of them down"));
    Ok(ExitCode::SUCCESS)
}

/// Checks the workspace; the number of arrows between its crates.
pub(crate) fn check_workspace() -> anyhow::Result<usize> {
    let output = cargo().args(["metadata", "--format-version", "1"]).output()?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let house = House::read(&serde_json::from_slice(&output.stdout)?)?;
    let wrong = house.check();
    if !wrong.is_empty() {
        bail!("arrows that must not be:\n  {}", wrong.join("\n  "));
    }
    Ok(house.named.values().flatten().filter(|name| house.floors.contains_key(*name)).count())
}

/// What cargo says, by short names (`proto` is `postern-proto`; the door is `postern`).
#[derive(Debug, Default)]
struct House {
    /// Our crates and their floors; empty when a crate does not say.
    floors: BTreeMap<String, String>,
    /// What each of our crates names in its manifest, optional or not; not for tests.
    named: BTreeMap<String, BTreeSet<String>>,
    /// What each package of the whole graph really uses; not for tests.
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl House {
    fn read(metadata: &Json) -> anyhow::Result<Self> {
        let list = |value: &Json, name: &str| value.get(name).and_then(Json::as_array).cloned().unwrap_or_default();
        let text = |value: &Json, name: &str| value.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
        let members: BTreeSet<String> =
            list(metadata, "workspace_members").iter().filter_map(Json::as_str).map(str::to_owned).collect();
        let mut house = Self::default();
        let mut names = BTreeMap::new();
        for package in list(metadata, "packages") {
            let (id, name) = (text(&package, "id"), short(&text(&package, "name")));
            names.insert(id.clone(), name.clone());
            if members.contains(&id) {
                let floor = package.pointer("/metadata/house/floor").and_then(Json::as_str).unwrap_or_default();
                house.floors.insert(name.clone(), floor.to_owned());
                let ours = list(&package, "dependencies").into_iter().filter(|d| text(d, "kind") != "dev");
                house.named.insert(name, ours.map(|d| short(&text(&d, "name"))).collect());
            }
        }
        let nodes = metadata.get("resolve").map(|resolve| list(resolve, "nodes")).unwrap_or_default();
        for node in nodes {
            let name = names.get(&text(&node, "id")).context("a node without a package")?.clone();
            let used = list(&node, "deps").into_iter().filter(|dep| {
                // Normal dependencies have the kind null; tools of a build are not in the program.
                list(dep, "dep_kinds").iter().any(|kind| kind.get("kind").is_none_or(Json::is_null))
            });
            let used = used.filter_map(|dep| names.get(&text(&dep, "pkg")).cloned());
            house.uses.entry(name).or_default().extend(used);
        }
        Ok(house)
    }

    /// Everything that is wrong, a sentence each.
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, floor) in &self.floors {
            let Some(height) = height(floor) else {
                wrong.push(format!("{name} does not say on which floor it lives (one of {})", FLOORS.join(", ")));
                continue;
            };
            for used in self.named.get(name).into_iter().flatten() {
                self.check_arrow((name, height), used, &mut wrong);
            }
            if PURE.contains(&floor.as_str()) {
                let reached = self.reached_from(name);
                let is_free = |hand: &&&str| !THINKS_WITH.contains(&(name.as_str(), **hand));
                let hands = HANDS_OF_OTHERS.iter().filter(|hand| reached.contains(**hand)).filter(is_free);
                wrong.extend(hands.map(|hand| format!("{name} thinks ({floor}) and must not reach {hand}")));
            }
        }
        for (who, whom) in NEVER {
            if self.reached_from(who).contains(whom) {
                wrong.push(format!("{who} must never reach {whom}"));
            }
        }
        wrong
    }

    fn check_arrow(&self, (name, own): (&str, usize), used: &str, wrong: &mut Vec<String>) {
        let is_test = FLOORS.get(own) == Some(&"tests");
        if let Some((_, owners)) = OWNERS.iter().find(|(library, _)| *library == used)
            && !owners.contains(&name)
            && !is_test
        {
            wrong.push(format!("{name} names {used}, which only {} may", owners.join(" and ")));
        }
        let Some(theirs) = self.floors.get(used).and_then(|floor| height(floor)) else { return };
        let is_sideways = own == theirs && (is_test || SIDEWAYS.contains(&(name, used)));
        if theirs >= own && !is_sideways {
            wrong.push(format!("{name} ({}) uses {used} ({})", FLOORS[own], FLOORS[theirs]));
        }
    }

    /// All packages that end up in a program because of this one.
    fn reached_from(&self, name: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut todo = vec![name];
        while let Some(next) = todo.pop() {
            for used in self.uses.get(next).into_iter().flatten() {
                if reached.insert(used.as_str()) {
                    todo.push(used);
                }
            }
        }
        reached
    }
}

fn height(floor: &str) -> Option<usize> {
    FLOORS.iter().position(|name| *name == floor)
}

fn short(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate: name, floor, what it uses. No floor: not one of ours.
    type Crate = (&'static str, &'static str, &'static [&'static str]);

    fn house(crates: &[Crate]) -> House {
        let mut house = House::default();
        for (name, floor, used) in crates {
            let used: BTreeSet<String> = used.iter().map(|name| (*name).to_owned()).collect();
            if !floor.is_empty() {
                house.floors.insert((*name).to_owned(), (*floor).to_owned());
                house.named.insert((*name).to_owned(), used.clone());
            }
            house.uses.insert((*name).to_owned(), used);
        }
        house
    }

    #[test]
    fn a_good_house_is_good() {
        let good = house(&[
            ("proto", "words", &["serde"]),
            ("rendezvous", "minds", &["proto"]),
            ("session", "minds", &["proto", "rendezvous"]),
            ("net", "hands", &["tokio", "rustls"]),
            ("link", "hands", &["session", "net"]),
            ("relay", "rooms", &["rendezvous", "net"]),
            ("postern", "door", &["relay"]),
            ("testkit", "tests", &["proto"]),
            ("house", "tests", &["testkit", "aws-lc-rs"]),
        ]);
        assert_eq!(good.check(), Vec::<String>::new());
    }

    /// Each wrong thing alone, and the one sentence about it.
    #[test]
    fn each_wrong_arrow_is_found() {
        let cases: [(&[Crate], &str); 9] = [
            (&[("a", "words", &["b"]), ("b", "rooms", &[])], "a (words) uses b (rooms)"),
            (&[("a", "rooms", &["b"]), ("b", "rooms", &[])], "a (rooms) uses b (rooms)"),
            (&[("rendezvous", "minds", &["session"]), ("session", "minds", &[])], "rendezvous (minds) uses session"),
            (&[("a", "attic", &[])], "a does not say"),
            (&[("a", "minds", &["x"]), ("x", "", &["tokio"])], "a thinks (minds) and must not reach tokio"),
            (&[("relay", "rooms", &["link"]), ("link", "hands", &[])], "relay must never reach link"),
            (
                &[("server", "rooms", &["x"]), ("x", "", &["session"]), ("session", "minds", &[])],
                "server must never reach session",
            ),
            (&[("a", "rooms", &["aws-lc-rs"])], "a names aws-lc-rs, which only crypto may"),
            (&[("a", "rooms", &["testkit"]), ("testkit", "tests", &[])], "a (rooms) uses testkit (tests)"),
        ];
        for (crates, sentence) in cases {
            let wrong = house(crates).check();
            assert!(wrong.len() == 1 && wrong[0].contains(sentence), "{crates:?}: {wrong:?}");
        }
    }

    /// The reader sees the real thing: names, floors, optional and test-only dependencies.
    #[test]
    fn the_metadata_of_cargo_is_read() {
        let metadata = serde_json::json!({
            "workspace_members": ["ws#postern-a"],
            "packages": [
                { "id": "ws#postern-a", "name": "postern-a", "metadata": { "house": { "floor": "minds" } },
                  "dependencies": [{ "name": "b", "kind": null }, { "name": "t", "kind": "dev" }] },
                { "id": "b", "name": "b", "dependencies": [] },
                { "id": "t", "name": "tokio", "dependencies": [] },
            ],
            "resolve": { "nodes": [
                { "id": "ws#postern-a", "deps": [
                    { "pkg": "b", "dep_kinds": [{ "kind": null }] },
                    { "pkg": "t", "dep_kinds": [{ "kind": "dev" }] },
                ] },
                { "id": "b", "deps": [{ "pkg": "t", "dep_kinds": [{ "kind": "build" }] }] },
            ] },
        });
        let mut house = House::read(&metadata).unwrap();
        assert_eq!(house.check(), Vec::<String>::new());
        house.uses.get_mut("b").unwrap().insert("tokio".to_owned());
        assert_eq!(house.check().len(), 1);
    }

    #[test]
    fn this_house_is_good() {
        check_workspace().unwrap();
    }
}
