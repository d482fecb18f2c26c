//! One thing that was looked at.

use serde_json::{Value as Json, json};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Could not be looked at, or does not apply; `why` says which.
    Skip,
    /// As it should be.
    Ok,
    /// It works, but not for long or not well.
    Warn,
    /// It does not work.
    Fail,
}

/// What was looked at, how it is, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable name, for programs: `clock`, `certificate`, `sshd`, …
    pub id: &'static str,
    /// How it is.
    pub level: Level,
    /// What is the case, one line.
    pub what: String,
    /// Why that is bad, or why it was not looked at.
    pub why: Option<String>,
    /// What to do next.
    pub todo: Option<String>,
}

impl Level {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn ok(id: &'static str, what: impl Into<String>) -> Self {
        Self { id, level: Level::Ok, what: what.into(), why: None, todo: None }
    }

    /// Not looked at.
    #[must_use]
    pub fn skip(id: &'static str, why: impl Into<String>) -> Self {
        Self { id, level: Level::Skip, what: why.into(), why: None, todo: None }
    }

    /// Works, but.
    #[must_use]
    pub fn warn(id: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { id, level: Level::Warn, what: what.into(), why: None, todo: Some(todo.into()) }
    }

    /// Does not work.
    #[must_use]
    pub fn fail(id: &'static str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { id, level: Level::Fail, what: what.into(), why: None, todo: Some(todo.into()) }
    }

    /// With the reason.
    #[must_use]
    pub fn because(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// `{"id","level","what","why","todo"}`; what is not there is null.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "id": self.id,
            "level": self.level.as_str(),
            "what": self.what,
            "why": self.why,
            "todo": self.todo,
        })
    }
}
