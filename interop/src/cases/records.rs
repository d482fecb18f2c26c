//! Records of one's own and public ones.

use std::time::Instant;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::case::{Case, Program, SDKS};
use crate::house::{House, Who};
use crate::limits::{EXPIRED, POLL};

const NOT_FOUND: &str = "AtKeyNotFoundException";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a public record: put, read by its owner and by another, delete",
        reference: "serves it to everybody, with metadata in lookup:all; a deleted one is AT0015",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: public,
    },
    Case {
        name: "a self record: put, get, overwrite, delete",
        reference: "keeps ciphertext and metadata as they came",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: own,
    },
    Case {
        name: "text of every kind comes back as it was",
        reference: "is 8-bit clean up to a value of 10,230,000 bytes",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: texts,
    },
    Case {
        name: "a record with a time to live is gone after it",
        reference: "hides it from that moment on",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: expiry,
    },
    Case {
        name: "scan lists what was put, with metadata",
        reference: "lists own names of the regex; llookup:meta gives a JSON object",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: scan,
    },
    Case {
        name: "a wrong word does not cost the connection",
        reference: "answers error:AT0003 and goes on",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: wrong_word,
    },
];

fn public(house: &mut House, program: Program) -> anyhow::Result<()> {
    let (alice, bob) = (house.agent(program, Who::Alice)?, house.agent(program, Who::Bob)?);
    let hers = json!({ "kind": "public", "name": "phone", "owner": alice.at_sign() });
    alice.ask("put", with(&hers, "value", "+44 1234"))?;
    for reader in [&alice, &bob] {
        let read = reader.ask_text("get", hers.clone())?;
        ensure!(read == "+44 1234", "{} reads {read:?}", reader.at_sign());
    }
    alice.ask("delete", hers.clone())?;
    alice.ask_refused("get", hers, NOT_FOUND).map(drop)
}

fn own(house: &mut House, program: Program) -> anyhow::Result<()> {
    let alice = house.agent(program, Who::Alice)?;
    let key = json!({ "kind": "self", "name": "diary" });
    for text in ["first", "second"] {
        alice.ask("put", with(&key, "value", text))?;
        let read = alice.ask_text("get", key.clone())?;
        ensure!(read == text, "it reads {read:?}");
    }
    alice.ask("delete", key.clone())?;
    alice.ask_refused("get", key, NOT_FOUND).map(drop)
}

fn texts(house: &mut House, program: Program) -> anyhow::Result<()> {
    let alice = house.agent(program, Who::Alice)?;
    let long = "0123456789abcdef".repeat(20_000);
    for text in ["", " ", "null", "data:", "@alice@", "two\nlines\r\n", "ünï ☎ 🛠", r#"{"a":"b\\"}"#, &long] {
        let key = json!({ "kind": "self", "name": "text" });
        alice.ask("put", with(&key, "value", text))?;
        let read = alice.ask_text("get", key)?;
        ensure!(read == text, "{:.40?} came back as {:.40?}", text, read);
    }
    for text in [" leading", "a:b c@d", "ünï ☎", &long] {
        let key = json!({ "kind": "public", "name": "text", "owner": alice.at_sign() });
        alice.ask("put", with(&key, "value", text))?;
        let read = alice.ask_text("get", key)?;
        ensure!(read == text, "public {:.40?} came back as {:.40?}", text, read);
    }
    Ok(())
}

fn expiry(house: &mut House, program: Program) -> anyhow::Result<()> {
    let alice = house.agent(program, Who::Alice)?;
    let key = json!({ "kind": "self", "name": "shortlived" });
    let put = with(&with(&key, "value", "soon gone"), "ttl", 1500);
    let start = Instant::now();
    alice.ask("put", put)?;
    let read = alice.try_ask("get", key.clone())?;
    // A machine that was asleep in between proves nothing.
    ensure!(read.is_ok() || start.elapsed().as_millis() > 1500, "gone too early: {read:?}");
    while start.elapsed() < EXPIRED {
        if alice.try_ask("get", key.clone())?.is_err() {
            ensure!(start.elapsed().as_millis() >= 1500, "gone after {:?}", start.elapsed());
            return Ok(());
        }
        std::thread::sleep(POLL);
    }
    anyhow::bail!("it is still there after {:?}", start.elapsed())
}

fn scan(house: &mut House, program: Program) -> anyhow::Result<()> {
    let alice = house.agent(program, Who::Alice)?;
    let me = alice.at_sign();
    alice.ask("put", json!({ "kind": "public", "name": "scanned", "value": "1" }))?;
    alice.ask("put", json!({ "kind": "self", "name": "scanned", "value": "2" }))?;
    for metadata in [false, true] {
        let found = alice.ask("scan", json!({ "regex": "scanned.interop", "metadata": metadata }))?;
        let wanted = json!([format!("public:scanned.interop{me}"), format!("scanned.interop{me}")]);
        ensure!(found == wanted, "found {found}");
    }
    Ok(())
}

fn wrong_word(house: &mut House, program: Program) -> anyhow::Result<()> {
    let alice = house.agent(program, Who::Alice)?;
    let answer = alice.ask_text("raw", json!({ "command": "nonsense:here" }))?;
    ensure!(answer.contains("AT0003"), "{answer}");
    let answer = alice.ask_text("raw", json!({ "command": "noop:0" }))?;
    ensure!(answer.contains("ok"), "{answer}");
    Ok(())
}

/// The same object with one member more.
fn with(object: &Value, name: &str, value: impl Into<Value>) -> Value {
    let mut object = object.clone();
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value.into());
    }
    object
}
