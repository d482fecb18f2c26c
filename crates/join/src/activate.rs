//! `postern activate`: what is done before and after the keys are made.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use postern_client::trust::Places;
use postern_identity::Activation;
use postern_identity::limits::LINE_CHARS;
use postern_observe::say;
use zeroize::Zeroizing;

use crate::activate_cli::Flags;
use crate::anchor::{self, Addition};
use crate::fail::Fail;
use crate::files;

const LINE_VARIABLE: &str = "POSTERN_ACTIVATE";

/// A line that was read, from a server that is the one it speaks of.
pub(crate) struct Activating {
    activation: Activation,
    /// This user's folder of settings.
    settings: PathBuf,
}

impl Activating {
    /// Reads the line, and has this user's programs believe the server that it names.
    pub(crate) async fn begin(flags: &Flags) -> Result<Self, Fail> {
        let activation = Activation::parse(&line(flags)?).map_err(Fail::usage)?;
        let settings = Places::of_user().config.ok_or_else(|| Fail::usage("HOME is not set"))?;
        let believed = anchor::believe(&activation.directory, activation.anchor, flags.patience).await?;
        if let Some(pem) = &believed.pem {
            let file = settings.join("ca.pem");
            files::make_folders(&settings, 0o700).map_err(|error| unwritten(&settings, &error))?;
            let added = anchor::add(pem, &file).map_err(|error| unwritten(&file, &error))?;
            if added != Addition::None {
                say(format_args!(
                    "{} is who the line says: its certificate is in {}",
                    activation.directory,
                    file.display()
                ));
            }
        }
        Ok(Self { activation, settings })
    }

    /// Command lines of `at_activate`, one for each atSign. They never leave this process.
    pub(crate) fn words(&self) -> impl Iterator<Item = Vec<OsString>> {
        let directory = self.activation.directory.to_string();
        self.activation.at_signs.iter().map(move |(at_sign, secret)| {
            let words = ["at_activate", "onboard", "--if-missing", "-a", at_sign.as_str(), "-r", &directory, "-c"];
            words.into_iter().chain([secret.digits().as_str()]).map(OsString::from).collect()
        })
    }

    /// Writes the clients' configuration, where there is none, and says what comes next.
    pub(crate) fn end(&self) -> Result<(), Fail> {
        let file = self.settings.join("config.yaml");
        let lines = self.lines();
        if file.exists() {
            say(format_args!("{} is there already, and stays as it is. The line says:\n{lines}", file.display()));
        } else {
            let text = format!(
                "# Written by `postern activate`; it is yours from now on. All that may stand here: postern config default client\n{lines}"
            );
            files::make_folders(&self.settings, 0o700).map_err(|error| unwritten(&self.settings, &error))?;
            files::replace(&file, &text, 0o644).map_err(|error| unwritten(&file, &error))?;
            say(format_args!("{} is written:\n{lines}", file.display()));
        }
        say(
            "Next:\n  postern ssh-config --install     once: ssh knows your devices as NAME.np\n  postern invite NAME              a line with which a machine becomes your device",
        );
        Ok(())
    }

    fn lines(&self) -> String {
        let Activation { directory, relay, at_signs, .. } = &self.activation;
        let mut names = at_signs.iter().map(|(at_sign, _)| at_sign.as_str());
        let (from, to) = (names.next(), names.next());
        let directory = directory.to_string();
        let relay = relay.as_ref().map(postern_proto::AtSign::as_str);
        let mut text = String::new();
        for (name, value) in [("from", from), ("to", to), ("relay", relay), ("root", Some(directory.as_str()))] {
            // A JSON string is a YAML string as well.
            let _ = value.map(|value| writeln!(text, "{name}: {}", serde_json::Value::from(value)));
        }
        text
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Fail {
    Fail::world(format!("{} cannot be written: {error}; mend that and run the same line again", path.display()))
}

/// As typed, piped or in the environment.
fn line(flags: &Flags) -> Result<Zeroizing<String>, Fail> {
    match flags.line.as_deref() {
        Some("-") => {
            let mut text = Zeroizing::new(String::new());
            // Whoever pipes more than a line pipes something else.
            let mut input = std::io::stdin().lock().take(2 * LINE_CHARS as u64);
            input.read_to_string(&mut text).map_err(|error| Fail::usage(format!("standard input: {error}")))?;
            Ok(text)
        }
        Some(typed) => Ok(Zeroizing::new(typed.to_owned())),
        None => {
            let line = std::env::var(LINE_VARIABLE).ok().filter(|line| !line.is_empty());
            let line = line.ok_or_else(|| {
                Fail::usage(format!("give the line that the server's operator printed by `postern server add --line`, or set {LINE_VARIABLE}"))
            })?;
            Ok(Zeroizing::new(line))
        }
    }
}
