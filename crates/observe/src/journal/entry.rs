//! What a line says.

use serde::Serialize;

use crate::limits::TEXT_CHARS;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// The program started.
    Started,
    /// The program stopped in order.
    Stopped,
    /// A session began.
    Began,
    /// A live session goes on over another connection.
    Resumed,
    /// A stream inside a session was over: its target and its bytes.
    Stream,
    /// A client logged in at the built-in ssh server; `why` says as whom.
    Login,
    /// A session is over: why, and its bytes.
    Ended,
    /// Somebody who is known was refused. Strangers leave no line: they could fill the journal.
    Refused,
    /// A pin was made, accepted or removed.
    Pinned,
    /// The rules changed under live sessions.
    Narrowed,
    /// What stood at the end was no whole line and was cut off.
    Torn,
    /// Lines that were there before are gone.
    Gap,
}

/// An entry without its place in the chain, which the journal gives it. Fields that say nothing are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// What happened.
    pub event: Event,
    /// Entries before this one that were not kept; the journal sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<u64>,
    /// Session id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The other end's atSign; at a relay the client's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Whose enrolment signed, as the record of its key: `public:_apsk.….__e@x`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrollment: Option<String>,
    /// The device, as `name@atsign`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// `host:port` as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The address that was dialled for the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The relay's atSign or address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay: Option<String>,
    /// By which rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// True: a sealed session; false: one of 2024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<bool>,
    /// Which connection of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u32>,
    /// Bytes to the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent: Option<u64>,
    /// Bytes from the other end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received: Option<u64>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Entry {
    /// An entry that says nothing but what happened.
    pub fn of(event: Event) -> Self {
        Self {
            event,
            missed: None,
            session: None,
            who: None,
            enrollment: None,
            device: None,
            target: None,
            address: None,
            relay: None,
            rule: None,
            sealed: None,
            epoch: None,
            sent: None,
            received: None,
            seconds: None,
            why: None,
        }
    }

    /// The line without its newline: `{"n":…,"time":…,"prev":…,"event":…}`. `time`: RFC 3339, UTC.
    pub(super) fn line(&self, n: u64, time: &str, prev: &str) -> String {
        let mut entry = self.clone();
        let texts = [
            &mut entry.session,
            &mut entry.who,
            &mut entry.enrollment,
            &mut entry.device,
            &mut entry.target,
            &mut entry.address,
            &mut entry.relay,
            &mut entry.rule,
            &mut entry.why,
        ];
        for text in texts.into_iter().flatten() {
            if let Some((cut, _)) = text.char_indices().nth(TEXT_CHARS) {
                text.truncate(cut);
            }
        }
        let json = serde_json::to_string(&entry).unwrap_or_default();
        format!(r#"{{"n":{n},"time":"{time}","prev":"{prev}",{}"#, json.trim_start_matches('{'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LINE_BYTES;

    #[test]
    fn the_form_of_a_line() {
        let entry = Entry {
            session: Some("6f".into()),
            who: Some("@a".into()),
            target: Some("localhost:22".into()),
            sealed: Some(true),
            received: Some(7),
            ..Entry::of(Event::Ended)
        };
        assert_eq!(
            entry.line(3, "2026-11-23T10:00:00.000Z", "00ff"),
            r#"{"n":3,"time":"2026-11-23T10:00:00.000Z","prev":"00ff","event":"ended","session":"6f","who":"@a","target":"localhost:22","sealed":true,"received":7}"#
        );
    }

    #[test]
    fn no_text_makes_a_line_too_long_or_two() {
        let long = Some("\u{1}\n\"ü".repeat(10_000));
        let entry = Entry {
            session: long.clone(),
            who: long.clone(),
            enrollment: long.clone(),
            device: long.clone(),
            target: long.clone(),
            address: long.clone(),
            relay: long.clone(),
            rule: long.clone(),
            why: long,
            ..Entry::of(Event::Refused)
        };
        let line = entry.line(u64::MAX, "", "");
        assert!(line.len() < LINE_BYTES && !line.contains('\n'), "{}", line.len());
    }
}
