//! Records for somebody else: who makes the shared key, who reads.

use anyhow::{Context as _, ensure};
use postern_proto::AtSign;
use serde_json::json;

use crate::agent::Agent;
use crate::case::{Case, Known, Program, SDKS};
use crate::house::{House, Who};

const ZERO_IV: &str = "this version decrypts records with a zero IV and does not look at ivNonce";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a shared record, SDK to SDK, both ways; delete",
        reference: "serves @recipient:name@owner and shared_key to the recipient's atServer; a deleted one is AT0015",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: sdk_to_sdk,
    },
    Case {
        name: "a shared record, SDK to our client",
        reference: "is not concerned: the reader finds the key in shared_key or beside the value",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: sdk_to_ours,
    },
    Case {
        name: "a shared record, our client to SDK",
        reference: "is not concerned: the writer puts the key into shared_key before the first value",
        with: SDKS,
        fails: &[Known { program: Program::Atsdk0233, why: ZERO_IV, says: "AtDecryptionException" }],
        needs_ours: None,
        run: ours_to_sdk,
    },
    Case {
        name: "a shared record for the other version of the SDK",
        reference: "stores ivNonce as it came; a record without one was encrypted with a zero IV",
        with: SDKS,
        fails: &[Known {
            program: Program::Atsdk0281,
            why: "0.2.33, the reader here, decrypts with a zero IV and does not look at ivNonce",
            says: "AtDecryptionException",
        }],
        needs_ours: None,
        run: to_the_other_version,
    },
    Case {
        name: "a shared record that the recipient's server caches",
        reference: "delivers a record with ttr to the recipient's atServer, which serves it from then on",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: cached,
    },
    Case {
        name: "a record for somebody who does not exist",
        reference: "answers AT0007 or AT0015 to plookup:publickey@nobody",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: for_nobody,
    },
];

fn sdk_to_sdk(house: &mut House, program: Program) -> anyhow::Result<()> {
    let (alice, bob) = (house.agent(program, Who::Alice)?, house.agent(program, Who::Bob)?);
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        hand_over(from, to, "greeting", &format!("from {} to {}", from.at_sign(), to.at_sign()))?;
        // What we wrote for another we can read ourselves.
        let own = from.ask_text("get", json!({ "kind": "shared", "name": "greeting", "to": to.at_sign() }))?;
        ensure!(own.starts_with("from "), "its writer reads {own:?}");
        from.ask("delete", json!({ "kind": "shared", "name": "greeting", "to": to.at_sign() }))?;
        let gone = to.try_ask("get", json!({ "kind": "shared", "name": "greeting", "owner": from.at_sign() }))?;
        ensure!(gone.is_err(), "still there after delete: {gone:?}");
    }
    Ok(())
}

fn sdk_to_ours(house: &mut House, program: Program) -> anyhow::Result<()> {
    let ours = house.ours()?;
    let alice = house.agent(program, Who::Alice)?;
    let put = json!({ "kind": "shared", "name": "forours", "to": ours.at_sign(), "value": "written by the SDK" });
    alice.ask("put", put)?;
    let text = ours.wait(ours.client.get_shared(&at_sign(&alice)?, "forours.interop"))?;
    ensure!(*text == "written by the SDK", "our client reads {:?}", *text);
    Ok(())
}

fn ours_to_sdk(house: &mut House, program: Program) -> anyhow::Result<()> {
    let ours = house.ours()?;
    let bob = house.agent(program, Who::Bob)?;
    ours.wait(ours.client.put_shared(&at_sign(&bob)?, "fromours.interop", "written by ours", None))?;
    let text = bob.ask_text("get", json!({ "kind": "shared", "name": "fromours", "owner": ours.at_sign() }))?;
    ensure!(text == "written by ours", "the SDK reads {text:?}");
    Ok(())
}

fn to_the_other_version(house: &mut House, program: Program) -> anyhow::Result<()> {
    let alice = house.agent(program, Who::Alice)?;
    let other = house.agent(program.other_sdk(), Who::Bob)?;
    hand_over(&alice, &other, "acrossversions", "old and new")
}

fn cached(house: &mut House, program: Program) -> anyhow::Result<()> {
    let (alice, bob) = (house.agent(program, Who::Alice)?, house.agent(program, Who::Bob)?);
    let put = json!({ "kind": "shared", "name": "kept", "to": bob.at_sign(), "value": "kept for you", "ttr": -1 });
    alice.ask("put", put)?;
    let text = bob.ask_text("get", json!({ "kind": "shared", "name": "kept", "owner": alice.at_sign() }))?;
    ensure!(text == "kept for you", "the recipient reads {text:?}");
    Ok(())
}

fn for_nobody(house: &mut House, program: Program) -> anyhow::Result<()> {
    let alice = house.agent(program, Who::Alice)?;
    let put = json!({ "kind": "shared", "name": "lost", "to": "@nobody_at_all", "value": "unread" });
    let refused = alice.try_ask("put", put)?;
    ensure!(refused.is_err(), "it was accepted: {refused:?}");
    // And the connection is still in step.
    let answer = alice.ask_text("raw", json!({ "command": "noop:0" }))?;
    ensure!(answer.contains("ok"), "{answer}");
    Ok(())
}

/// Writes for somebody, who reads it.
fn hand_over(from: &Agent, to: &Agent, name: &str, text: &str) -> anyhow::Result<()> {
    from.ask("put", json!({ "kind": "shared", "name": name, "to": to.at_sign(), "value": text }))?;
    let read = to.ask_text("get", json!({ "kind": "shared", "name": name, "owner": from.at_sign() }))?;
    ensure!(read == text, "{} reads {read:?}", to.at_sign());
    Ok(())
}

fn at_sign(agent: &Agent) -> anyhow::Result<AtSign> {
    agent.at_sign().parse().ok().context("an agent's name is an atSign")
}
