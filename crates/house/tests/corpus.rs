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

/// Inputs made of the committed ones: bytes changed, cut, doubled, joined. The same each time, so that a finding can be
/// looked at; `FUZZ_ROUNDS` and `FUZZ_SEED` search further where there is no fuzzer.
#[test]
fn mutations_of_the_corpus_hold() {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (rounds, mut dice) = (number("FUZZ_ROUNDS", 3000), Dice(number("FUZZ_SEED", 1).max(1)));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut findings = Vec::new();
    for (name, target) in TARGETS {
        let mut paths: Vec<_> =
            std::fs::read_dir(root.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let inputs: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        for _ in 0..rounds {
            let input = dice.mutant(&inputs);
            if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
                findings.push(format!("{name}: {:?}", String::from_utf8_lossy(&input)));
                break;
            }
        }
    }
    assert!(findings.is_empty(), "findings (see the panics above):\n{}", findings.join("\n"));
}

/// Xorshift: fair enough to choose places with.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % end.max(1)
    }

    fn mutant(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        const WORDS: [&[u8]; 24] = [
            b"\0",
            b"\n",
            b"\r\n",
            b":",
            b"@",
            b",",
            b"\"",
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b"null",
            b"true",
            b"-1",
            b"18446744073709551616",
            b"1e999",
            b"\\ud800",
            b"\xff",
            b"\xc3\x28",
            "\u{2028}".as_bytes(),
            "\u{130}".as_bytes(),
            "\u{1f984}".as_bytes(),
            b"public:",
        ];
        let mut bytes = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(16)).min(bytes.len());
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.drain(at..end)),
                2 => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
                3 => {
                    let other = &inputs[self.below(inputs.len())];
                    let from = self.below(other.len() + 1);
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
                _ => {
                    let word = WORDS[self.below(WORDS.len())];
                    bytes.splice(at..at, word.iter().copied());
                }
            }
        }
        bytes.truncate(16 * 1024);
        bytes
    }
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
