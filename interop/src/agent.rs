//! A Python program with a published SDK, asked line by line.

use std::cell::RefCell;
use std::io::Write as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context as _, anyhow, bail};
use postern_testkit::Process;
use serde_json::{Value, json};

use crate::limits::ANSWER;

/// One atSign in the hands of an SDK.
pub(crate) struct Agent {
    talk: RefCell<Talk>,
    at_sign: String,
}

struct Talk {
    process: Process,
    stdin: ChildStdin,
    /// Answers taken so far.
    answers: usize,
}

/// What the SDK raised instead of doing what it was asked.
#[derive(Debug)]
pub(crate) struct Raised {
    pub(crate) class: String,
    pub(crate) text: String,
}

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the SDK raised {}: {}", self.class, self.text)
    }
}

impl std::error::Error for Raised {}

impl Agent {
    /// Starts it with this home directory; the SDK finds key files there.
    pub(crate) fn start(
        python: &Path,
        script: &Path,
        at_sign: &str,
        root: &str,
        files: &Files,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(python);
        command.arg(script).args([at_sign, root]);
        command.env("HOME", &files.home).env("SSL_CERT_FILE", &files.ca_file);
        command.env("PYTHONUNBUFFERED", "1").current_dir(&files.home);
        let mut process = Process::start_with(command, Stdio::piped())?;
        let stdin = process.stdin().context("standard input was asked for")?;
        Ok(Self { talk: RefCell::new(Talk { process, stdin, answers: 0 }), at_sign: at_sign.to_owned() })
    }

    /// The atSign it acts for.
    pub(crate) fn at_sign(&self) -> &str {
        &self.at_sign
    }

    /// Asks for something; the answer, or what the SDK raised.
    pub(crate) fn try_ask(&self, what: &str, arguments: Value) -> anyhow::Result<Result<Value, Raised>> {
        let mut asked = json!({ "do": what });
        let members = asked.as_object_mut().context("it is an object")?;
        if let Value::Object(arguments) = arguments {
            members.extend(arguments);
        }
        let mut talk = self.talk.borrow_mut();
        writeln!(talk.stdin, "{asked}").with_context(|| format!("the agent of {} has gone", self.at_sign))?;
        let number = talk.answers;
        let text = talk
            .process
            .wait_for_stdout(ANSWER, |text| text.matches('\n').count() > number)
            .with_context(|| format!("{} was asked to {asked}", self.at_sign))?;
        talk.answers += 1;
        let line = text.lines().nth(number).context("a line was waited for")?;
        let answer: Value = serde_json::from_str(line).with_context(|| format!("no answer: {line}"))?;
        if let Some(value) = answer.get("ok") {
            return Ok(Ok(value.clone()));
        }
        let member = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Err(Raised { class: member("error"), text: member("text") }))
    }

    /// Asks for something that must succeed.
    pub(crate) fn ask(&self, what: &str, arguments: Value) -> anyhow::Result<Value> {
        let shown = format!("{}: {what} {arguments}", self.at_sign);
        self.try_ask(what, arguments)?.with_context(|| shown)
    }

    /// The same for an answer that is text.
    pub(crate) fn ask_text(&self, what: &str, arguments: Value) -> anyhow::Result<String> {
        let answer = self.ask(what, arguments)?;
        answer.as_str().map(str::to_owned).ok_or_else(|| anyhow!("{what} gave {answer} and no text"))
    }

    /// Asks for something that the SDK must refuse with this exception.
    pub(crate) fn ask_refused(&self, what: &str, arguments: Value, class: &str) -> anyhow::Result<String> {
        match self.try_ask(what, arguments)? {
            Err(raised) if raised.class == class => Ok(raised.text),
            Err(raised) => bail!("{what} raised {}, not {class}: {}", raised.class, raised.text),
            Ok(value) => bail!("{what} gave {value} and raised no {class}"),
        }
    }
}

/// Where an SDK finds what it needs.
pub(crate) struct Files {
    pub(crate) home: std::path::PathBuf,
    pub(crate) ca_file: std::path::PathBuf,
}
