//! What the documents promise to a security engineer: that the tests they name exist.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Pieces between back quotes that look like `folder/file.rs::test`.
fn named_tests(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('`').skip(1).step_by(2).filter_map(|piece| piece.split_once(".rs::"))
}

/// Whether a file has a test of this name: an attribute that makes one, and the function behind it.
fn has_test(source: &str, name: &str) -> bool {
    let (plain, generic) = (format!("fn {name}("), format!("fn {name}<"));
    let lines: Vec<&str> = source.lines().map(str::trim_start).collect();
    lines.iter().enumerate().any(|(at, line)| {
        (line.contains(&plain) || line.contains(&generic))
            && lines[..at]
                .iter()
                .rev()
                .take(6)
                .take_while(|line| !line.is_empty() && **line != "}")
                .any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

fn missing(document: &str) -> Vec<String> {
    let text = read(document);
    let named: Vec<_> = named_tests(&text).collect();
    assert!(!named.is_empty(), "{document} names no test: has its notation changed?");
    let exists = |(file, name): &(&str, &str)| {
        let file = format!("{file}.rs");
        let path = ["crates/", ""].iter().map(|top| root().join(top).join(&file)).find(|path| path.is_file());
        path.is_some_and(|path| has_test(&std::fs::read_to_string(path).unwrap_or_default(), name))
    };
    named.iter().filter(|test| !exists(test)).map(|(file, name)| format!("{document}: {file}.rs::{name}")).collect()
}

#[test]
fn the_tests_that_documents_name_exist() {
    let missing: Vec<String> = ["docs/wounds.md", "docs/threat-model.md"].into_iter().flat_map(missing).collect();
    assert!(missing.is_empty(), "named, but there is no such test:\n{}", missing.join("\n"));
}

/// A row with neither a test nor the word "none" and a reason would be a promise that nobody keeps.
#[test]
fn every_wound_has_a_test_or_says_why_not() {
    let text = read("docs/wounds.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    let bare = rows.iter().filter(|row| {
        let shown = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim();
        let is_head = shown == "shown by" || shown.chars().all(|c| c == '-');
        !is_head && named_tests(shown).next().is_none() && !shown.starts_with("*none*")
    });
    let bare: Vec<&&str> = bare.collect();
    assert!(rows.len() > 40, "only {} rows", rows.len());
    assert!(bare.is_empty(), "rows without a test and without *none*:\n{bare:#?}");
}

/// What `deny.toml` forbids, seen in what is really locked.
#[test]
fn forbidden_libraries_are_not_even_locked() {
    let lock = read("Cargo.lock");
    assert!(lock.contains("\nname = \"aws-lc-rs\"\n"), "the form of Cargo.lock has changed");
    for name in ["openssl", "openssl-sys", "rsa", "native-tls"] {
        assert!(!lock.contains(&format!("\nname = \"{name}\"\n")), "{name} is in Cargo.lock");
    }
}

#[test]
fn a_test_is_told_from_what_only_looks_like_one() {
    let source =
        "#[test]\nfn good() {}\n\nfn helper() {}\n// fn talked_about() {}\n#[tokio::test]\nasync fn waits() {}\n";
    assert!(has_test(source, "good") && has_test(source, "waits"));
    assert!(!has_test(source, "helper") && !has_test(source, "talked_about") && !has_test(source, "absent"));
    assert_eq!(named_tests("see `a/b.rs::c` and `plain`").collect::<Vec<_>>(), [("a/b", "c")]);
}
