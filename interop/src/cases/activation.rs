//! Coming in: key files and first activation.

use anyhow::ensure;
use serde_json::json;

use crate::case::{Case, Program, SDKS};
use crate::house::{House, Who};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "login with a key file of our at_activate",
        reference: "stores the first device's PKAM key as privatekey:at_pkam_publickey too, so that clients which ignore \
                    the enrolment id in the file log in",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: |house, program| house.agent(program, Who::Alice).map(drop),
    },
    Case {
        name: "first activation by the SDK",
        reference: "takes from and cram, the PKAM key, from and pkam again on the same connection, the public key, and \
                    forgets the secret",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: |house, program| house.agent(program, Who::Bob).map(drop),
    },
    Case {
        name: "a secret activates once",
        reference: "has deleted privatekey:at_secret and refuses the digest",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: secret_is_used_up,
    },
    Case {
        name: "our client logs in with the SDK's key file",
        reference: "does not mind who wrote the file; without an enrolment id the proof is the legacy one",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: our_client_with_their_file,
    },
    Case {
        name: "a stranger's key is refused",
        reference: "answers error:AT0401",
        with: SDKS,
        fails: &[],
        needs_ours: None,
        run: wrong_key,
    },
];

fn secret_is_used_up(house: &mut House, program: Program) -> anyhow::Result<()> {
    let (name, secret) = house.subject.fresh(&format!("@once_{}", program.short()))?;
    let first = house.new_agent(program, &name)?;
    first.ask("onboard", json!({ "secret": secret }))?;
    let again = house.new_agent(program, &name)?;
    let refused = again.try_ask("onboard", json!({ "secret": secret }))?;
    ensure!(refused.is_err(), "the secret was taken a second time");
    // And the keys of the first are still the right ones.
    first.ask("login", json!({})).map(drop)
}

fn our_client_with_their_file(house: &mut House, program: Program) -> anyhow::Result<()> {
    let bob = house.agent(program, Who::Bob)?;
    let alice = house.agent(program, Who::Alice)?;
    let ours = house.connect(bob.at_sign(), &house.key_file(program, bob.at_sign()))?;
    // Not only logged in: his encryption key opens what is written to him.
    alice
        .ask("put", json!({ "kind": "shared", "name": "forfile", "to": bob.at_sign(), "value": "in his own file" }))?;
    let alice_name = alice.at_sign().parse().map_err(|_| anyhow::anyhow!("no atSign"))?;
    let text = ours.wait(ours.client.get_shared(&alice_name, "forfile.interop"))?;
    ensure!(*text == "in his own file", "it reads {:?}", *text);
    Ok(())
}

fn wrong_key(house: &mut House, program: Program) -> anyhow::Result<()> {
    let alice = house.agent(program, Who::Alice)?;
    let (name, secret) = house.subject.fresh(&format!("@victim_{}", program.short()))?;
    let victim = house.new_agent(program, &name)?;
    victim.ask("onboard", json!({ "secret": secret }))?;
    std::fs::copy(house.key_file(program, alice.at_sign()), house.key_file(program, &name))?;
    let thief = house.new_agent(program, &name)?;
    let refused = thief.try_ask("login", json!({}))?;
    let Err(raised) = refused else { anyhow::bail!("let in with somebody else's key") };
    ensure!(raised.class == "AtUnauthenticatedException", "{raised}");
    Ok(())
}
