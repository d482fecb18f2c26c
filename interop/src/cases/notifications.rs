//! Notifications and monitors, and what becomes of them when the server is killed.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use postern_proto::AtSign;
use serde_json::json;

use crate::agent::Agent;
use crate::case::{Case, Known, Program, SDKS};
use crate::house::{House, Who};
use crate::limits::{HEARD_SECONDS, SDK_RESTARTS_MONITOR_SECONDS};

const OWN_SERVER: &str = "a server that somebody else runs is not ours to kill";

const SPINS: &str =
    "the SDK reads on from the connection that has ended, empty lines without a pause, and never connects again";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a notification, SDK to SDK, both ways",
        reference: "pushes it to the recipient's monitors with key, value and ivNonce",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: sdk_to_sdk,
    },
    Case {
        name: "a notification, SDK to our client",
        reference: "is not concerned: value and ivNonce travel in the push",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: sdk_to_ours,
    },
    Case {
        name: "a notification, our client to SDK",
        reference: "is not concerned: value and ivNonce travel in the push",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: ours_to_sdk,
    },
    Case {
        name: "notify without a nonce set by the caller",
        reference: "is not concerned: the SDK sends nothing",
        with: SDKS,
        fails: &[Known {
            program: Program::Atsdk0233,
            why: "this version takes the nonce from the caller's metadata and fails without one",
            says: "nonce must be bytes-like",
        }],
        needs_ours: None,
        run: notify_as_documented,
    },
    Case {
        name: "the server is killed: a monitor that the application starts anew",
        reference: "keeps notifications and replays those after the time in monitor:TIME; a client that logs in again \
                    misses nothing",
        with: SDKS,
        fails: &[],
        needs_ours: Some(OWN_SERVER),
        run: reconnect_by_application,
    },
    Case {
        name: "the server is killed: a monitor that the SDK starts anew",
        reference: "is not concerned: the SDK makes no new connection",
        with: SDKS,
        fails: &[
            Known { program: Program::Atsdk0281, why: SPINS, says: "'MONITOR_EXCEPTION'" },
            Known { program: Program::Atsdk0233, why: SPINS, says: "'MONITOR_EXCEPTION'" },
        ],
        needs_ours: Some(OWN_SERVER),
        run: reconnect_by_sdk,
    },
];

fn sdk_to_sdk(house: &mut House, program: Program) -> anyhow::Result<()> {
    let (alice, bob) = (house.agent(program, Who::Alice)?, house.agent(program, Who::Bob)?);
    for (from, to) in [(&alice, &bob), (&bob, &alice)] {
        listen(to)?;
        let text = format!("ring {}", to.at_sign());
        notify(from, to.at_sign(), "bell", &text)?;
        heard(to, from.at_sign(), &text)?;
    }
    Ok(())
}

fn sdk_to_ours(house: &mut House, program: Program) -> anyhow::Result<()> {
    let ours = house.ours()?;
    let alice = house.agent(program, Who::Alice)?;
    notify(&alice, &ours.at_sign(), "bell", "ring ours")?;
    ours.wait_for_text(alice.at_sign(), "ring ours", Duration::from_secs(HEARD_SECONDS))
}

fn ours_to_sdk(house: &mut House, program: Program) -> anyhow::Result<()> {
    let ours = house.ours()?;
    let bob = house.agent(program, Who::Bob)?;
    listen(&bob)?;
    let to: AtSign = bob.at_sign().parse().ok().context("an agent's name is an atSign")?;
    ours.wait(ours.client.notify(&to, "bell.interop", "ring from ours", None))?;
    heard(&bob, &ours.at_sign(), "ring from ours")
}

fn notify_as_documented(house: &mut House, program: Program) -> anyhow::Result<()> {
    let (alice, bob) = (house.agent(program, Who::Alice)?, house.agent(program, Who::Bob)?);
    listen(&bob)?;
    alice.ask("notify", json!({ "to": bob.at_sign(), "name": "plain", "value": "no nonce" }))?;
    heard(&bob, alice.at_sign(), "no nonce")
}

/// What an application does that wants to be sure: a new client object, a new monitor.
fn reconnect_by_application(house: &mut House, program: Program) -> anyhow::Result<()> {
    let alice = house.agent(program, Who::Alice)?;
    let (name, secret) = house.subject.fresh(&format!("@carol_{}", program.short()))?;
    let carol = house.new_agent(program, &name)?;
    carol.ask("onboard", json!({ "secret": secret }))?;
    carol.ask("login", json!({}))?;
    listen(&carol)?;
    notify(&alice, &name, "bell", "before")?;
    heard(&carol, alice.at_sign(), "before")?;
    drop(carol);
    notify(&alice, &name, "bell", "while she is away")?;
    house.subject.kill()?;
    house.subject.restart()?;
    alice.ask("login", json!({}))?;
    let carol = house.new_agent(program, &name)?;
    carol.ask("login", json!({}))?;
    listen(&carol)?;
    heard(&carol, alice.at_sign(), "while she is away")?;
    notify(&alice, &name, "bell", "after")?;
    heard(&carol, alice.at_sign(), "after")?;
    // Everybody else's connection has ended too.
    for who in [Who::Alice, Who::Bob] {
        house.forget_agent(program, who);
        house.forget_agent(program.other_sdk(), who);
    }
    Ok(())
}

fn reconnect_by_sdk(house: &mut House, program: Program) -> anyhow::Result<()> {
    let (name, secret) = house.subject.fresh(&format!("@dave_{}", program.short()))?;
    let dave = house.new_agent(program, &name)?;
    dave.ask("onboard", json!({ "secret": secret }))?;
    dave.ask("login", json!({}))?;
    listen(&dave)?;
    let alice = house.agent(program, Who::Alice)?;
    notify(&alice, &name, "bell", "before")?;
    heard(&dave, alice.at_sign(), "before")?;
    house.subject.kill()?;
    house.subject.restart()?;
    for who in [Who::Alice, Who::Bob] {
        house.forget_agent(program, who);
        house.forget_agent(program.other_sdk(), who);
    }
    let alice = house.agent(program, Who::Alice)?;
    notify(&alice, &name, "bell", "after")?;
    let wanted = json!({ "seconds": SDK_RESTARTS_MONITOR_SECONDS, "decryptedValue": "after" });
    dave.ask("heard", wanted).map(drop)
}

/// Starts the monitor of this agent, which may run already.
fn listen(agent: &Agent) -> anyhow::Result<()> {
    agent.ask("monitor", json!({ "regex": ".*" })).map(drop)
}

fn notify(from: &Agent, to: &str, name: &str, text: &str) -> anyhow::Result<()> {
    // A nonce and an id of the caller's: the older SDK makes neither, and the newer replaces the nonce.
    let id = format!("{:x}", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos());
    let words = json!({ "to": to, "name": name, "value": text, "with_nonce": true, "session_id": id });
    from.ask("notify", words).map(drop)
}

fn heard(by: &Agent, from: &str, text: &str) -> anyhow::Result<()> {
    let wanted = json!({ "seconds": HEARD_SECONDS, "from": from, "decryptedValue": text });
    let event = by.ask("heard", wanted)?;
    ensure!(event["operation"] == "update", "{event}");
    Ok(())
}
