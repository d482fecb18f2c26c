//! Every committed fuzz input, through the same functions as the fuzz targets.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use postern_testkit::fuzz::TARGETS;
use postern_testkit::say;

#[test]
fn the_committed_corpus_holds() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut findings = Vec::new();
    for (name, target) in TARGETS {
        let dir = root.join(name);
        let mut inputs: Vec<_> = std::fs::read_dir(&dir)
            .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for path in &inputs {
            let bytes = std::fs::read(path).unwrap();
            if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
                findings.push(format!("{name}: {}", path.display()));
            }
        }
        say(format_args!("{name}: {} inputs", inputs.len()));
    }
    assert!(findings.is_empty(), "findings (see the panics above):\n{}", findings.join("\n"));
}

/// Whatever a vector says, no other reader may fall over it either.
#[test]
fn every_text_of_the_vectors_through_every_target() {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "json") {
            collect(&serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(), &mut texts);
        }
    }
    assert!(texts.len() > 1000, "only {} texts", texts.len());
    let mut findings = Vec::new();
    for (name, target) in TARGETS {
        for text in &texts {
            if catch_unwind(AssertUnwindSafe(|| target(text.as_bytes()))).is_err() {
                findings.push(format!("{name}: {text:?}"));
            }
        }
    }
    assert!(findings.is_empty(), "findings (see the panics above):\n{}", findings.join("\n"));
}

fn collect(json: &serde_json::Value, texts: &mut Vec<String>) {
    match json {
        serde_json::Value::String(text) => texts.push(text.clone()),
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, texts)),
        serde_json::Value::Object(members) => members.values().for_each(|member| collect(member, texts)),
        _ => {}
    }
}

#[test]
fn every_corpus_has_its_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    for entry in std::fs::read_dir(root.join("corpus")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "corpus {name} is run by nobody");
    }
    for (name, _) in TARGETS {
        assert!(root.join(format!("fuzz_targets/{name}.rs")).is_file(), "{name} has no fuzz target");
    }
}
