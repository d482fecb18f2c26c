//! The shared vectors of the text protocol.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "../../../vectors/replay.rs"]
mod replay;

use postern_proto::{
    AtKey, AtSign, DirectoryAnswer, DirectoryQuery, ErrorCode, KeyError, MessageType, Metadata, Notification, Request,
    ServerLine, Visibility,
};
use serde_json::{Value as Json, json};

use replay::{replay, same, text};

#[test]
fn key_names() {
    replay(include_str!("../../../vectors/key_names.json"), |case| {
        let key = match AtKey::parse(text(case, "text")) {
            Ok(key) => key,
            Err(error) => {
                let error = match error {
                    KeyError::Malformed => "malformed",
                    KeyError::TooLong => "too long",
                    KeyError::AtSign => "atsign",
                    _ => "another",
                };
                return same(Some(error), case["error"].as_str());
            }
        };
        let kind = match key.visibility() {
            Visibility::Public => "public",
            Visibility::Shared(_) => "shared",
            Visibility::Own => "own",
            Visibility::Private => "private",
            Visibility::PrivateKey => "privatekey",
            Visibility::Local => "local",
        };
        same(Some(key.to_string().as_str()), case["prints"].as_str())?;
        same(Some(kind), case["kind"].as_str())?;
        same(Some(key.is_cached()), case["cached"].as_bool())?;
        same(AtKey::parse(&key.to_string()), Ok(key))
    });
}

#[test]
fn at_signs() {
    replay(include_str!("../../../vectors/at_signs.json"), |case| {
        let name = AtSign::parse(text(case, "text")).ok();
        same(name.as_ref().map(AtSign::as_str), case["at_sign"].as_str())?;
        let again = name.as_ref().map(|name| AtSign::parse(name.as_str()));
        same(again, name.map(Ok))
    });
}

#[test]
fn metadata() {
    replay(include_str!("../../../vectors/metadata.json"), |case| {
        let mut metadata = Metadata::default();
        for pair in case["stored"].as_array().unwrap() {
            let name = Metadata::known(pair[0].as_str().unwrap()).unwrap();
            metadata.set(name, pair[1].as_str().unwrap()).unwrap();
        }
        let update = match Request::parse(text(case, "line").as_bytes()) {
            Ok(Request::Update(update)) => update,
            Ok(other) => return Err(format!("understood as {other:?}")),
            Err(error) => return same(Some(error.code.code()), case["error"].as_str()),
        };
        same(update.key.to_string().as_str(), "@bob:k.ns@alice")?;
        same(update.value.as_str(), "v")?;
        metadata.apply(&update.metadata);
        same(json!(metadata.entries()), case["after"].clone())
    });
}

#[test]
fn notifications() {
    replay(include_str!("../../../vectors/notifications.json"), |case| {
        let got = match ServerLine::parse(text(case, "line")) {
            ServerLine::Push(push) => {
                let again = Notification::from_push(push.push_line().trim_start_matches("notification: "));
                same(again.as_ref(), Some(&*push))?;
                shown(&push)
            }
            ServerLine::Other => "other".into(),
            other => return Err(format!("{other:?}")),
        };
        same(got, case["expect"].clone())
    });
}

fn shown(push: &Notification) -> Json {
    json!({
        "id": push.id.as_str(),
        "from": push.from.as_str(),
        "to": push.to.as_str(),
        "key": push.key,
        "bare": push.bare_key(),
        "value": push.value,
        "operation": push.operation.as_str(),
        "type": if push.message_type == MessageType::Text { "text" } else { "key" },
        "at": push.at,
        "encrypted": push.is_encrypted,
        "metadata": push.metadata.entries(),
    })
}

#[test]
fn replies() {
    replay(include_str!("../../../vectors/replies.json"), |case| {
        let got = match ServerLine::parse(text(case, "line")) {
            ServerLine::Data(data) => json!({ "data": data }),
            ServerLine::Error(error) => {
                same(error.code.map(ErrorCode::code), error.code.map(|_| error.code_text.as_str()))?;
                json!({"error": error.code_text, "message": error.message, "known": error.code.is_some()})
            }
            ServerLine::Other => "other".into(),
            ServerLine::Push(_) => "push".into(),
        };
        same(got, case["expect"].clone())
    });
}

#[test]
fn directory() {
    replay(include_str!("../../../vectors/directory.json"), |case| {
        let got = match case["question"].as_str() {
            Some(question) => match DirectoryQuery::parse(question.as_bytes()) {
                DirectoryQuery::Find(name) => json!({ "find": name.as_str() }),
                DirectoryQuery::Nonsense => "nonsense".into(),
                DirectoryQuery::Exit => "exit".into(),
            },
            None => match DirectoryAnswer::parse(text(case, "answer")) {
                Some(DirectoryAnswer::Found(address)) => json!({"host": address.host, "port": address.port}),
                Some(DirectoryAnswer::Unknown) => "null".into(),
                None => "unusable".into(),
            },
        };
        same(got, case["expect"].clone())
    });
}
