//! A line from a client, understood.

use std::fmt;

use crate::ProtocolError;
use crate::verb::{
    BatchRequest, ConfigRequest, Cram, Delete, Enroll, From, Info, Keys, Llookup, Lookup, Monitor, Noop, Notify,
    NotifyAll, NotifyFetch, NotifyList, NotifyRemove, NotifyStatus, Otp, Pkam, Scan, Stats, Sync, Update, UpdateMeta,
};

/// Everything a client can ask of an atServer. One file per verb in [`crate::verb`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// `from:@alice`
    From(From),
    /// `cram:⟨digest⟩`
    Cram(Cram),
    /// `pkam:[enrollmentId:…:]⟨signature⟩`
    Pkam(Pkam),
    /// `pol`: another atServer has published its proof.
    Pol,
    /// `lookup:…`
    Lookup(Lookup),
    /// `plookup:…`
    Plookup(Lookup),
    /// `llookup:…`
    Llookup(Llookup),
    /// `update:…`
    Update(Update),
    /// `update:meta:…`
    UpdateMeta(UpdateMeta),
    /// `delete:…`
    Delete(Delete),
    /// `scan…`
    Scan(Scan),
    /// `notify:…`
    Notify(Box<Notify>),
    /// `notify:all:…`
    NotifyAll(Box<NotifyAll>),
    /// `notify:status:⟨id⟩`
    NotifyStatus(NotifyStatus),
    /// `notify:list…`
    NotifyList(NotifyList),
    /// `notify:fetch:⟨id⟩`
    NotifyFetch(NotifyFetch),
    /// `notify:remove:⟨id⟩`
    NotifyRemove(NotifyRemove),
    /// `sync:from:…`
    Sync(Sync),
    /// `batch:[…]`
    Batch(BatchRequest),
    /// `stats…`
    Stats(Stats),
    /// `config:…`
    Config(ConfigRequest),
    /// `monitor…`
    Monitor(Monitor),
    /// `noop:⟨ms⟩`
    Noop(Noop),
    /// `info`, `info:brief`
    Info(Info),
    /// `enroll:…`
    Enroll(Enroll),
    /// `otp:…`
    Otp(Otp),
    /// `keys:…`
    Keys(Keys),
    /// `@exit`: close without a reply.
    Exit,
}

/// One list of names for [`Request::verb`] and [`Request::VERBS`], so that neither can lack one.
macro_rules! verbs {
    ($($variant:ident $(($any:tt))? => $name:literal,)+) => {
        impl Request {
            /// The verb of every request there is.
            pub const VERBS: &[&str] = &[$($name),+];

            /// The verb, fit for logs and counters: never an argument.
            pub fn verb(&self) -> &'static str {
                match self {
                    $(Self::$variant $(($any))? => $name,)+
                }
            }
        }
    };
}

verbs! {
    From(_) => "from",
    Cram(_) => "cram",
    Pkam(_) => "pkam",
    Pol => "pol",
    Lookup(_) => "lookup",
    Plookup(_) => "plookup",
    Llookup(_) => "llookup",
    Update(_) => "update",
    UpdateMeta(_) => "update:meta",
    Delete(_) => "delete",
    Scan(_) => "scan",
    Notify(_) => "notify",
    NotifyAll(_) => "notify:all",
    NotifyStatus(_) => "notify:status",
    NotifyList(_) => "notify:list",
    NotifyFetch(_) => "notify:fetch",
    NotifyRemove(_) => "notify:remove",
    Sync(_) => "sync",
    Batch(_) => "batch",
    Stats(_) => "stats",
    Config(_) => "config",
    Monitor(_) => "monitor",
    Noop(_) => "noop",
    Info(_) => "info",
    Enroll(_) => "enroll",
    Otp(_) => "otp",
    Keys(_) => "keys",
    Exit => "@exit",
}

impl Request {
    /// Reads one line. The part before the first `:` may have any case and
    /// spaces; the rest is taken as sent.
    ///
    /// Errors are what the reference answers: `AT0003` for anything unreadable,
    /// the empty line included (C clients open with one and wait for that).
    pub fn parse(line: &[u8]) -> Result<Self, ProtocolError> {
        let text = std::str::from_utf8(line).map_err(|_| ProtocolError::invalid_command())?.trim();
        let word_end = text.find([':', ' ']).unwrap_or(text.len());
        let (word, after) = text.split_at(word_end);
        let args = after.strip_prefix(':').unwrap_or(after);
        let has_args = after.starts_with(':');
        let bad = || Err(ProtocolError::invalid_command());
        match word.to_ascii_lowercase().as_str() {
            "from" if has_args => From::parse(args).map(Self::From),
            "cram" if has_args => Cram::parse(args).map(Self::Cram),
            "pkam" if has_args => Pkam::parse(args).map(Self::Pkam),
            "pol" if after.is_empty() => Ok(Self::Pol),
            "lookup" if has_args => Lookup::parse(args).map(Self::Lookup),
            "plookup" if has_args => Lookup::parse(args).map(Self::Plookup),
            "llookup" if has_args => Llookup::parse(args).map(Self::Llookup),
            "update" if has_args => match strip_word(args, "meta") {
                Some(args) => UpdateMeta::parse(args).map(Self::UpdateMeta),
                None => Update::parse(args).map(Self::Update),
            },
            "delete" if has_args => Delete::parse(args).map(Self::Delete),
            "scan" => Scan::parse(after).map(Self::Scan),
            "notify" if has_args => notify(args),
            "sync" if has_args => Sync::parse(args).map(Self::Sync),
            "batch" if has_args => BatchRequest::parse(args).map(Self::Batch),
            "stats" => Stats::parse(after).map(Self::Stats),
            "config" if has_args => ConfigRequest::parse(args).map(Self::Config),
            "monitor" => Monitor::parse(after).map(Self::Monitor),
            "noop" if has_args => Noop::parse(args).map(Self::Noop),
            "info" => Info::parse(after).map(Self::Info),
            "enroll" if has_args => Enroll::parse(args).map(Self::Enroll),
            "otp" if has_args => Otp::parse(args).map(Self::Otp),
            "keys" if has_args => Keys::parse(args).map(Self::Keys),
            "@exit" if after.is_empty() => Ok(Self::Exit),
            _ => bad(),
        }
    }

    /// The first words of requests, whether or not they may stand alone. On a port that
    /// serves the directory too they cannot be names to look up.
    pub fn is_bare_verb(word: &str) -> bool {
        [
            "scan", "monitor", "info", "pol", "stats", "from", "cram", "pkam", "noop", "@exit", "lookup", "plookup",
            "llookup", "update", "delete", "notify", "enroll", "otp", "keys", "sync", "batch", "config", "stream",
        ]
        .iter()
        .any(|verb| word.eq_ignore_ascii_case(verb))
    }
}

/// `notify` and its sub-forms; `args`: behind the first colon.
fn notify(args: &str) -> Result<Request, ProtocolError> {
    let (word, rest) = args.split_once(':').unwrap_or((args, ""));
    match word.to_ascii_lowercase().as_str() {
        "all" => NotifyAll::parse(rest).map(|n| Request::NotifyAll(Box::new(n))),
        "status" => NotifyStatus::parse(rest).map(Request::NotifyStatus),
        "list" => NotifyList::parse(rest).map(Request::NotifyList),
        "fetch" => NotifyFetch::parse(rest).map(Request::NotifyFetch),
        "remove" => NotifyRemove::parse(rest).map(Request::NotifyRemove),
        _ => Notify::parse(args).map(|n| Request::Notify(Box::new(n))),
    }
}

/// `word:rest` → `rest`, the word in any case.
pub(crate) fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_once(':')?;
    head.eq_ignore_ascii_case(word).then_some(rest)
}

/// The line without its end, as a client sends it.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(v) => v.fmt(f),
            Self::Cram(v) => v.fmt(f),
            Self::Pkam(v) => v.fmt(f),
            Self::Pol => f.write_str("pol"),
            Self::Lookup(v) => write!(f, "lookup:{v}"),
            Self::Plookup(v) => write!(f, "plookup:{v}"),
            Self::Llookup(v) => v.fmt(f),
            Self::Update(v) => v.fmt(f),
            Self::UpdateMeta(v) => v.fmt(f),
            Self::Delete(v) => v.fmt(f),
            Self::Scan(v) => v.fmt(f),
            Self::Notify(v) => v.fmt(f),
            Self::NotifyAll(v) => v.fmt(f),
            Self::NotifyStatus(v) => v.fmt(f),
            Self::NotifyList(v) => v.fmt(f),
            Self::NotifyFetch(v) => v.fmt(f),
            Self::NotifyRemove(v) => v.fmt(f),
            Self::Sync(v) => v.fmt(f),
            Self::Batch(v) => v.fmt(f),
            Self::Stats(v) => v.fmt(f),
            Self::Config(v) => v.fmt(f),
            Self::Monitor(v) => v.fmt(f),
            Self::Noop(v) => v.fmt(f),
            Self::Info(v) => v.fmt(f),
            Self::Enroll(v) => v.fmt(f),
            Self::Otp(v) => v.fmt(f),
            Self::Keys(v) => v.fmt(f),
            Self::Exit => f.write_str("@exit"),
        }
    }
}

/// Requests carry values and proofs; only the verb is shown.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())
    }
}
