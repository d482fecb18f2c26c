//! Configuration files of the programs: YAML into checked types.
//!
//! A reader says what is wrong with line and column, and refuses names it does not know (when the type does), names given
//! twice, and files without end. Which flag beats which line is the business of each program.

mod tree;

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Longest file in bytes: rules for some ten thousand devices have about 1 MiB.
pub const CONFIG_BYTES: u64 = 4 * 1024 * 1024;

/// Text that is not what the program wants to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadConfig(String);

/// Why a file gives nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// It cannot be read.
    Read(PathBuf, std::io::Error),
    /// It is longer than [`CONFIG_BYTES`], or not UTF-8.
    Unfit(PathBuf),
    /// Its text is wrong.
    Text(PathBuf, BadConfig),
}

/// Reads a YAML text. An empty one, or one of comments alone, is an empty mapping.
///
/// # Errors
/// With line and column, and the line itself.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, BadConfig> {
    let is_blank = |line: &str| matches!(line.trim_start().chars().next(), None | Some('#'));
    let text = if text.lines().all(is_blank) { "{}" } else { text };
    tree::parse(text).map_err(|fault| BadConfig(fault.explain(text)))
}

/// Reads a YAML file; `None` when there is no file of that name.
///
/// # Errors
/// See [`ConfigError`].
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ConfigError> {
    match read_text(path)? {
        Some(text) => parse(&text).map(Some).map_err(|error| ConfigError::Text(path.to_owned(), error)),
        None => Ok(None),
    }
}

/// The text of a file, at most [`CONFIG_BYTES`] long; `None` when there is no file of that name.
///
/// # Errors
/// See [`ConfigError`].
pub fn read_text(path: &Path) -> Result<Option<String>, ConfigError> {
    let unreadable = |error| ConfigError::Read(path.to_owned(), error);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    file.take(CONFIG_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let unfit = || ConfigError::Unfit(path.to_owned());
    if u64::try_from(bytes.len()).is_ok_and(|length| length > CONFIG_BYTES) {
        return Err(unfit());
    }
    String::from_utf8(bytes).map(Some).map_err(|_| unfit())
}

/// A commented default file with every option set: `#key: value` and `#  key: value` without the `#`; lines of prose begin
/// with `# ` and one space alone.
#[must_use]
pub fn every_option(text: &str) -> String {
    let set = |line: &str| match line.strip_prefix('#') {
        Some(option) if !option.starts_with(' ') || option.starts_with("  ") => format!("{option}\n"),
        _ => "\n".to_owned(),
    };
    text.lines().map(set).collect()
}

impl BadConfig {
    /// The name that is not known, and those that are; `None`: something else is wrong.
    #[must_use]
    pub fn unknown(&self) -> Option<(&str, Vec<&str>)> {
        let (_, rest) = self.0.split_once("unknown field `")?;
        let (unknown, rest) = rest.lines().next()?.split_once('`')?;
        // "expected `a`", "expected `a` or `b`", "expected one of `a`, `b`, `c`": as serde says it.
        let (_, known) = rest.split_once("expected ")?;
        Some((unknown, known.split('`').skip(1).step_by(2).collect()))
    }

    /// The known name that is nearest to the one that is not.
    fn meant(&self) -> Option<&str> {
        let (unknown, known) = self.unknown()?;
        let (distance, name) = known.into_iter().map(|name| (distance(unknown, name), name)).min()?;
        (distance <= unknown.chars().count() / 3 + 1).then_some(name)
    }
}

/// Letters to insert, remove or change until one word is the other; swapped neighbours count twice. Both are short.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, letter) in one.chars().enumerate() {
        let mut before = at;
        let mut left = at + 1;
        for (place, theirs) in other.iter().enumerate() {
            let above = row.get(place + 1).copied().unwrap_or_default();
            let here = (before + usize::from(letter != *theirs)).min(above + 1).min(left + 1);
            before = above;
            if let Some(cell) = row.get_mut(place) {
                *cell = left;
            }
            left = here;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end())?;
        if let Some(name) = self.meant() {
            write!(f, "\n  = did you mean {name}?")?;
        }
        if self.0.contains("unexpected character: `@'") {
            f.write_str("\n  = put names that begin with @ in quotes: \"@alice\"")?;
        }
        Ok(())
    }
}

impl std::error::Error for BadConfig {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Unfit(path) => {
                write!(f, "{} is no text of at most {} MiB", path.display(), CONFIG_BYTES / 1024 / 1024)
            }
            Self::Text(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        names: Vec<String>,
        ports: BTreeMap<String, u16>,
    }

    #[test]
    fn yaml_as_people_write_it() {
        let text = "# who\nnames:\n  - '@alice'\n  - \"@bob\"\n  - carol\nports: {ssh: 22, \"web\": 80}\n";
        let sample: Sample = parse(text).unwrap();
        assert_eq!(sample.names, ["@alice", "@bob", "carol"]);
        assert_eq!(sample.ports["web"], 80);
        for empty in ["", "\n", "# nothing yet\n  # really"] {
            assert_eq!(parse::<Sample>(empty).unwrap(), Sample::default());
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, place, word) in [
            ("names: [a]\nnmaes: [b]\n", "line 2 column 1", "nmaes"),
            ("names: [a]\nnames: [b]\n", "line 2 column 1", "duplicate"),
            ("ports: {ssh: 70000}\n", "line 1 column 14", ""),
            ("names:\n  - @alice\n", "line 2 column 5", "in quotes"),
        ] {
            let told = parse::<Sample>(text).unwrap_err().to_string();
            assert!(told.contains(place) && told.contains(word), "{text:?}: {told}");
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_told_with_the_one_that_was_meant() {
        let unknown = parse::<Sample>("nmaes: [b]\n").unwrap_err();
        assert_eq!(unknown.unknown(), Some(("nmaes", vec!["names", "ports"])));
        assert!(unknown.to_string().ends_with("did you mean names?"), "{unknown}");
        assert!(!parse::<Sample>("zebra: 1\n").unwrap_err().to_string().contains("did you mean"));
        for (one, other, wanted) in
            [("", "abc", 3), ("abc", "abc", 0), ("permit-open", "permitopen", 1), ("ab", "ba", 2)]
        {
            assert_eq!(distance(one, other), wanted, "{one} {other}");
        }
    }

    #[test]
    fn a_commented_file_with_every_option_set() {
        assert_eq!(every_option("# Prose.\n\n#a:\n# More.\n#  b: 1\n"), "\n\na:\n\n  b: 1\n");
    }

    #[test]
    fn aliases_cannot_grow_without_end() {
        let mut text = String::from("names: [x]\nports: {}\na0: &a0 [lol, lol]\n");
        for level in 1..40 {
            text.push_str(&format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1));
        }
        #[derive(Debug, Deserialize)]
        struct Anything {
            #[expect(dead_code, reason = "only read into")]
            a39: Vec<Nested>,
        }
        #[derive(Debug, Deserialize)]
        #[serde(untagged)]
        enum Nested {
            #[expect(dead_code, reason = "only read into")]
            Text(String),
            #[expect(dead_code, reason = "only read into")]
            List(Vec<Nested>),
        }
        assert!(parse::<Anything>(&text).is_err());
    }

    #[test]
    fn a_file_may_be_absent_but_not_endless() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.yaml");
        assert_eq!(read::<Sample>(&path).unwrap(), None);
        std::fs::write(&path, "names: [a]").unwrap();
        assert_eq!(read::<Sample>(&path).unwrap().unwrap().names, ["a"]);
        let told = read::<Sample>(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(told.contains("4 MiB"), "{told}");
        assert!(read::<Sample>(dir.path()).unwrap_err().to_string().starts_with("cannot read"));
    }
}
