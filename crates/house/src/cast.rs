//! Recordings of terminals for asciinema, version 2 of its format, made from what `script` writes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::json;

/// What a terminal showed, and when.
#[derive(Debug)]
pub struct Cast {
    /// Seconds from the beginning, and the text.
    events: Vec<(f64, String)>,
}

impl Cast {
    /// Reads the two files of `script --log-timing … --log-out …`.
    ///
    /// # Errors
    /// They do not fit together.
    pub fn read(timing: &Path, output: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(output)?;
        // `script` frames what was shown by a line above and one below.
        let begin = if text.starts_with(b"Script started") {
            text.iter().position(|byte| *byte == b'\n').context("one line")? + 1
        } else {
            0
        };
        let mut rest = text.get(begin..).unwrap_or_default();
        let (mut events, mut now, mut open) = (Vec::new(), 0.0, Vec::new());
        for line in std::fs::read_to_string(timing)?.lines() {
            let mut words = line.split(' ').peekable();
            // The newer form names the stream first.
            if words.next_if(|word| *word == "O").is_none()
                && words.peek().is_some_and(|word| word.parse::<f64>().is_err())
            {
                continue;
            }
            let (Some(pause), Some(bytes)) = (words.next(), words.next()) else { continue };
            now += pause.parse::<f64>()?;
            let bytes = bytes.parse::<usize>()?.min(rest.len());
            let (piece, later) = rest.split_at(bytes);
            rest = later;
            open.extend_from_slice(piece);
            // A character that is cut in two waits for its other half.
            let whole = match std::str::from_utf8(&open) {
                Ok(_) => open.len(),
                Err(error) => error.valid_up_to(),
            };
            let shown: Vec<u8> = open.drain(..whole).collect();
            events.push((now, String::from_utf8(shown)?));
        }
        ensure!(!events.is_empty(), "nothing was recorded");
        Ok(Self { events })
    }

    /// Writes `NAME.cast` beside the test's build, to be played by `asciinema play`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, name: &str) -> anyhow::Result<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("we lie in the workspace")?;
        let folder = root.join("target/casts");
        std::fs::create_dir_all(&folder)?;
        let mut text = format!("{}\n", json!({"version": 2, "width": 100, "height": 60, "title": name}));
        for (at, shown) in &self.events {
            text.push_str(&format!("{}\n", json!([at, "o", shown])));
        }
        let path = folder.join(format!("{name}.cast"));
        std::fs::write(&path, text)?;
        Ok(path)
    }
}
