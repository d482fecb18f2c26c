// What the tests that replay the vectors share; each includes it as a module.

use serde_json::Value as Json;

/// Runs every case of a file and tells of all that fail.
pub(crate) fn replay(vectors: &str, run: impl Fn(&Json) -> Result<(), String>) {
    let vectors: Json = serde_json::from_str(vectors).unwrap();
    let cases = vectors["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    let wrong: Vec<String> =
        cases.iter().filter_map(|case| run(case).err().map(|why| format!("{}: {why}", text(case, "name")))).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

pub(crate) fn text<'a>(case: &'a Json, name: &str) -> &'a str {
    case[name].as_str().unwrap_or_else(|| panic!("{name} in {case}"))
}

/// What came out against what was to come out.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> Result<(), String> {
    if got == want { Ok(()) } else { Err(format!("got {got:?}, wanted {want:?}")) }
}
