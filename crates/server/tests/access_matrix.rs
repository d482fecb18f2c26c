//! Every verb × every kind of caller, over real connections: who gets what.
//!
//! A row is a line as it is sent; a cell is what the caller in that column must be answered. A verb of
//! [`Request::VERBS`] without a row fails the test. To add a verb: add its rows. To add a kind of caller: add it to
//! [`Caller`] and a column to each row.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod common;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use common::operator::{Operator, claim};
use common::{Client, KEY, World};
use postern_crypto::SignatureHash;
use postern_proto::{AtKey, AtSign, Metadata, Record, Request, Uuid};
use postern_store::{Batch, LogAs};

/// Who asks. The data are Alice's, unless the line says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// Alice, by the activation secret.
    Cram,
    /// Alice, by the key of the legacy form.
    Legacy,
    /// An enrolment of Alice's with `*` and `__manage`.
    Full,
    /// … with `ns:rw`.
    Writer,
    /// … with `ns:r`.
    Reader,
    /// … with `other:rw`.
    Other,
    /// Bob, whom Alice shares some data with: another household of this server.
    Bob,
    /// Carol, whom she shares nothing with.
    Carol,
    /// The server of Dave, who lives elsewhere and whom she shares `daves.ns` with; as it proved by `pol`.
    Peer,
    /// Nobody.
    Stranger,
}

const CALLERS: [Caller; 10] = [
    Caller::Cram,
    Caller::Legacy,
    Caller::Full,
    Caller::Writer,
    Caller::Reader,
    Caller::Other,
    Caller::Bob,
    Caller::Carol,
    Caller::Peer,
    Caller::Stranger,
];

/// Verb, line, and the answer to each of [`CALLERS`].
///
/// `ok`: any data. `=text`: this data. `~text`: with this in it. `09`: error `AT0009`. `silence`: no answer. `end`: the connection ends.
/// In lines: `{me}` the caller's own atSign, `{n}` a fresh number, `{pending}`, `{approved}`, `{denied}` the id of a
/// fresh enrolment of Alice's in that state, with `ns:rw`.
type Row = (&'static str, &'static str, [&'static str; 10]);

/// What a batch answers for a command that has no place in one.
const NOT_IN_BATCH: &str =
    r#"=[{"id":1,"response":{"error_code":"AT0003","error_message":"Invalid syntax : invalid command"}}]"#;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    //                                                             cram      legacy    full      writer    reader    other     bob       carol     peer     stranger
    ("lookup", "lookup:publickey@alice",                          ["=key",   "=key",   "=key",   "09",     "09",     "09",     "15",     "15", "15",    "=key"  ]),
    ("lookup", "lookup:open.ns@alice",                            ["15",     "15",     "15",     "15",     "15",     "09",     "15",     "15", "15",    "=open" ]),
    ("lookup", "lookup:bobs.ns@alice",                            ["15",     "15",     "15",     "15",     "15",     "09",     "=bobs",  "15", "15",    "15"    ]),
    ("lookup", "lookup:own.ns@alice",                             ["15",     "15",     "15",     "15",     "15",     "09",     "15",     "15", "15",    "15"    ]),
    ("lookup", "lookup:alices.ns@bob",                            ["=alices","=alices","=alices","=alices","=alices","09",     "15",     "15", "07",    "15"    ]),
    ("lookup", "lookup:_hidden@alice",                            ["15",     "15",     "15",     "09",     "09",     "09",     "15",     "15", "15",    "=found"]),
    ("lookup", "lookup:daves.ns@alice",                           ["15",     "15",     "15",     "15",     "15",     "09",     "15",     "15",     "=daves", "15"    ]),
    ("plookup", "plookup:open.ns@alice",                          ["=open",  "=open",  "=open",  "=open",  "=open",  "=open",  "=open",  "=open", "401",   "401"   ]),
    ("plookup", "plookup:own.ns@alice",                           ["15",     "15",     "15",     "15",     "15",     "15",     "15",     "15", "401",   "401"   ]),
    ("plookup", "plookup:bobs.ns@alice",                          ["15",     "15",     "15",     "15",     "15",     "15",     "15",     "15", "401",   "401"   ]),
    ("llookup", "llookup:own.ns@alice",                           ["=own",   "=own",   "=own",   "=own",   "=own",   "09",     "15",     "15", "401",   "401"   ]),
    ("llookup", "llookup:@bob:bobs.ns@alice",                     ["=bobs",  "=bobs",  "=bobs",  "=bobs",  "=bobs",  "09",     "15",     "15", "401",   "401"   ]),
    ("llookup", "llookup:public:open.ns@alice",                   ["=open",  "=open",  "=open",  "=open",  "=open",  "=open",  "15",     "15", "401",   "401"   ]),
    ("llookup", "llookup:private:spp.__otp@alice",                ["15",     "15",     "15",     "09",     "09",     "09",     "15",     "15", "401",   "401"   ]),
    ("llookup", "llookup:{approved}.new.enrollments.__manage@alice",["ok",   "ok",     "09",     "09",     "09",     "09",     "15",     "15", "401",   "401"   ]),
    ("llookup", "llookup:privatekey:at_secret",                   ["03",     "03",     "03",     "03",     "03",     "03",     "03",     "03", "03",    "03"    ]),
    ("update", "update:own.ns@alice own",                         ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("update", "update:@bob:bobs.ns@alice bobs",                  ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("update", "update:public:open.ns@alice open",                ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("update", "update:@bob:shared_key@alice k",                  ["ok",     "ok",     "ok",     "ok",     "09",     "ok",     "16",     "16", "401",   "401"   ]),
    ("update", "update:public:publickey@alice key",               ["ok",     "ok",     "ok",     "09",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("update", "update:public:signing_publickey@alice key",       ["ok",     "ok",     "ok",     "09",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("update", "update:public:_apsk.{approved}.a.__e@alice key",  ["ok",     "ok",     "09",     "09",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("update", "update:private:x@alice v",                        ["16",     "16",     "16",     "16",     "16",     "16",     "16",     "16", "401",   "401"   ]),
    ("update", "update:privatekey:at_secret v",                   ["16",     "16",     "16",     "16",     "16",     "16",     "16",     "16", "401",   "401"   ]),
    ("update", "update:cached:public:open.ns@bob v",              ["16",     "16",     "16",     "16",     "16",     "16",     "16",     "16", "401",   "401"   ]),
    ("update", "update:{approved}.new.enrollments.__manage@alice {}",["16",  "16",     "16",     "16",     "16",     "16",     "16",     "16", "401",   "401"   ]),
    ("update:meta", "update:meta:own.ns@alice:ttl:0",             ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("update:meta", "update:meta:public:publickey@alice:ttl:0",   ["ok",     "ok",     "ok",     "09",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("update:meta", "update:meta:{approved}.new.enrollments.__manage@alice:ttl:5",["16","16","16", "16",  "16",     "16",     "16",     "16", "401",   "401"   ]),
    ("delete", "delete:gone.ns@alice",                            ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("delete", "delete:public:PublicKey@alice",                   ["09",     "09",     "09",     "09",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("delete", "delete:privatekey:at_pkam_publickey",             ["09",     "09",     "09",     "09",     "09",     "09",     "09",     "09", "401",   "401"   ]),
    ("delete", "delete:{approved}.new.enrollments.__manage@alice",["09",     "09",     "09",     "09",     "09",     "09",     "16",     "16", "401",   "401"   ]),
    ("scan", "scan ^own.ns",                                      [r#"=["own.ns@alice"]"#, r#"=["own.ns@alice"]"#, r#"=["own.ns@alice"]"#, r#"=["own.ns@alice"]"#, r#"=["own.ns@alice"]"#, "=[]", "=[]", "=[]", "=[]",   "03"]),
    ("scan", "scan daves",                                        ["ok",     "ok",     "ok",     "ok",     "ok",     "=[]",    "=[]",    "=[]",    r#"=["daves.ns@alice"]"#, "03"]),
    ("scan", "scan:@alice bobs",                                  ["ok",     "ok",     "ok",     "ok",     "ok",     "=[]",    r#"=["bobs.ns@alice"]"#, "=[]", "=[]",   "401"]),
    ("scan", "scan:showHidden:true __manage",                     ["=[]",    "=[]",    "=[]",    "=[]",    "=[]",    "=[]",    "=[]",    "=[]", "=[]",   "03"    ]),
    ("notify", "notify:@bob:hello.ns{me}:v",                      ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "ok",     "ok", "07",    "401"   ]),
    ("notify", "notify:@bob:hello.ns@alice:v",                    ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "09",     "09", "09",    "401"   ]),
    ("notify", "notify:@alice:x.new.enrollments.__manage@alice:v",["ok",     "ok",     "09",     "09",     "09",     "09",     "09",     "09", "09",    "401"   ]),
    ("notify", "notify:id:n{n}:@alice:hello.ns{me}:v",            ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "ok",     "ok",     "ok",     "401"   ]),
    ("notify:all", "notify:all:@bob,@carol:hello.ns{me}:v",       ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "ok",     "ok", "401",   "401"   ]),
    ("notify:all", "notify:all:@bob:hello.ns@alice:v",            ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "09",     "09", "401",   "401"   ]),
    ("notify:status", "notify:status:sent",                       ["=delivered","=delivered","=delivered","=delivered","=delivered","09","=null","=null", "401",   "401"]),
    ("notify:list", "notify:list:heard",                          ["ok",     "ok",     "ok",     "ok",     "ok",     "=null",  "=null",  "=null", "401",   "=null" ]),
    ("notify:fetch", "notify:fetch:heard",                        ["ok",     "ok",     "ok",     "ok",     "ok",     "09",     "ok",     "ok", "401",   "401"   ]),
    ("notify:remove", "notify:remove:heard",                      ["ok",     "ok",     "ok",     "ok",     "09",     "09",     "ok",     "ok", "401",   "401"   ]),
    ("notify:remove", "notify:remove:no-such-id",                 ["ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok", "401",   "401"   ]),
    ("sync", "sync:from:-1:limit:25",                             ["ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok", "401",   "401"   ]),
    ("sync", "sync:from:999999:limit:25:own.ns",                  ["=[]",    "=[]",    "=[]",    "=[]",    "=[]",    "=[]",    "=[]",    "=[]", "401",   "401"   ]),
    ("batch", r#"batch:[{"id":1,"command":"update:own.ns@alice own"}]"#,["~data", "~data", "~data", "~data", "~AT0009", "~AT0009", "~AT0016", "~AT0016", "401", "401"]),
    ("batch", r#"batch:[{"id":1,"command":"otp:get"}]"#,          [NOT_IN_BATCH, NOT_IN_BATCH, NOT_IN_BATCH, NOT_IN_BATCH, NOT_IN_BATCH, NOT_IN_BATCH, NOT_IN_BATCH, NOT_IN_BATCH, "401",   "401"]),
    ("stats", "stats:3",                                          ["ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok", "401",   "401"   ]),
    ("config", "config:block:show",                               ["=null",  "=null",  "=null",  "09",     "09",     "09",     "=null",  "=null", "401",   "401"   ]),
    ("config", "config:block:remove:@eve",                        ["ok",     "ok",     "ok",     "09",     "09",     "09",     "ok",     "ok", "401",   "401"   ]),
    ("config", "config:set:inbound_max_limit=5",                  ["ok",     "ok",     "ok",     "09",     "09",     "09",     "ok",     "ok", "401",   "401"   ]),
    ("monitor", "monitor:strict",                                 ["silence","silence","silence","silence","silence","silence","silence","silence", "401",   "401"   ]),
    ("otp", "otp:get",                                            ["ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok", "401",   "401"   ]),
    ("otp", "otp:put:Secret1",                                    ["ok",     "ok",     "ok",     "09",     "09",     "09",     "ok",     "ok", "401",   "401"   ]),
    ("keys", "keys:get:self",                                     ["11",     "11",     "ok",     "ok",     "ok",     "ok",     "11",     "11", "401",   "401"   ]),
    ("keys", "keys:get:keyName:privatekey:at_pkam_publickey",     ["11",     "11",     "15",     "15",     "15",     "15",     "11",     "11", "401",   "401"   ]),
    ("keys", "keys:get:keyName:own.ns@alice",                     ["11",     "11",     "15",     "15",     "15",     "15",     "11",     "11", "401",   "401"   ]),
    ("keys", "keys:get:keyName:{approved}.default_enc_private_key.__manage@alice",["11","11","15","15",    "15",     "15",     "11",     "11", "401",   "401"   ]),
    ("keys", "keys:put:self:namespace:ns:keyName:k{n} v",         ["11",     "11",     "ok",     "ok",     "09",     "09",     "11",     "11", "401",   "401"   ]),
    ("keys", "keys:delete:keyName:own.ns@alice",                  ["11",     "11",     "15",     "15",     "15",     "15",     "11",     "11", "401",   "401"   ]),
    ("enroll", "enroll:list",                                     ["ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "={}",   "={}", "401",   "401"   ]),
    ("enroll", r#"enroll:fetch:{"enrollmentId":"{approved}"}"#,   ["ok",     "ok",     "ok",     "28",     "28",     "28",     "28",     "28", "401",   "401"   ]),
    ("enroll", r#"enroll:approve:{"enrollmentId":"{pending}","encryptedDefaultEncryptionPrivateKey":"a","encryptedDefaultSelfEncryptionKey":"b"}"#,
                                                                  ["ok",     "ok",     "ok",     "09",     "09",     "09",     "28",     "28", "401",   "401"   ]),
    ("enroll", r#"enroll:deny:{"enrollmentId":"{pending}"}"#,     ["ok",     "ok",     "ok",     "09",     "09",     "09",     "28",     "28", "401",   "401"   ]),
    ("enroll", r#"enroll:revoke:{"enrollmentId":"{approved}"}"#,  ["ok",     "ok",     "ok",     "09",     "09",     "09",     "28",     "28", "401",   "401"   ]),
    ("enroll", r#"enroll:unrevoke:{"enrollmentId":"{revoked}"}"#, ["ok",     "ok",     "ok",     "09",     "09",     "09",     "28",     "28", "401",   "401"   ]),
    ("enroll", r#"enroll:delete:{"enrollmentId":"{denied}"}"#,    ["ok",     "ok",     "ok",     "09",     "09",     "09",     "28",     "28", "401",   "401"   ]),
    ("enroll", r#"enroll:request:{"appName":"app","deviceName":"d{n}","namespaces":{"*":"rw"},"otp":"WRONG1","apkamPublicKey":"{key}","encryptedAPKAMSymmetricKey":"c2"}"#,
                                                                  ["ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok", "401",   "22"    ]),
    ("info", "info",                                              ["ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok", "ok",    "ok"    ]),
    ("noop", "noop:0",                                            ["=ok",    "=ok",    "=ok",    "=ok",    "=ok",    "=ok",    "=ok",    "=ok", "=ok",   "=ok"   ]),
    ("from", "from:@alice",                                       ["ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok",     "ok", "ok",    "ok"    ]),
    ("from", "from:@nobody",                                      ["07",     "07",     "07",     "07",     "07",     "07",     "07",     "07", "ok",    "07"    ]),
    ("cram", "cram:{digest}",                                           ["15",     "15",     "15",     "15",     "15",     "15",     "15",     "15", "15",    "15"    ]),
    ("pkam", "pkam:AAAA",                                         ["15",     "15",     "15",     "15",     "15",     "15",     "15",     "15", "15",    "15"    ]),
    ("pol", "pol",                                                ["03",     "03",     "03",     "03",     "03",     "03",     "03",     "03", "11",    "03"    ]),
    ("@exit", "@exit",                                            ["end",    "end",    "end",    "end",    "end",    "end",    "end",    "end", "end",   "end"   ]),
];

struct House {
    world: World,
    secret: String,
    next: Cell<u32>,
    full: Uuid,
    writer: Uuid,
    reader: Uuid,
    other: Uuid,
    /// Alice again, where servers of other operators come.
    abroad: Operator,
    /// Dave's operator.
    daves: Operator,
}

impl House {
    fn new() -> Self {
        let world = World::start();
        let secret = world.add("alice");
        let mut cram = world.connect();
        cram.cram("alice", &secret);
        let public = KEY.public_key().unwrap().to_base64();
        cram.ask(&format!("update:privatekey:at_pkam_publickey {public}"), "data:-1\n@alice@");
        world.add_activated("bob");
        world.add_activated("carol");
        let [full, writer, reader, other] = [7, 8, 9, 10].map(|n| Uuid::from_random([n; 16]));
        let (mut abroad, mut daves) = (Operator::new("localhost", &["alice"]), Operator::new("127.0.0.1", &["dave"]));
        abroad.start(&[&daves]);
        daves.start(&[&abroad]);
        let house = Self { world, secret, next: Cell::new(100), full, writer, reader, other, abroad, daves };
        for (id, namespaces) in [
            (&house.full, r#"{"*":"rw","__manage":"rw"}"#),
            (&house.writer, r#"{"ns":"rw"}"#),
            (&house.reader, r#"{"ns":"r"}"#),
            (&house.other, r#"{"other":"rw"}"#),
        ] {
            house.enroll(id, "approved", namespaces);
        }
        house.furnish();
        house
    }

    /// What the rows speak of; again before each row, for some rows delete.
    fn furnish(&self) {
        let mut alice = self.login(Caller::Legacy);
        Self::furnish_alice(&mut alice);
        Self::furnish_alice(&mut self.abroad.login("alice"));
        assert!(alice.reply("notify:id:sent:@bob:said.ns@alice:v").starts_with("data:"));
        let mut bob = self.login(Caller::Bob);
        assert!(bob.reply("notify:id:heard:@alice:heard.ns@bob:v").starts_with("data:"));
        assert!(bob.reply("update:@alice:alices.ns@bob alices").starts_with("data:"));
    }

    fn furnish_alice(alice: &mut Client) {
        for line in [
            "update:own.ns@alice own",
            "update:@dave:daves.ns@alice daves",
            "update:@bob:bobs.ns@alice bobs",
            "update:public:open.ns@alice open",
            "update:public:_hidden@alice found",
            "update:@alice:publickey@alice key",
            "update:public:publickey@alice key",
        ] {
            assert!(alice.reply(line).starts_with("data:"), "{line}");
        }
    }

    /// As an approval writes it.
    fn enroll(&self, id: &Uuid, state: &str, namespaces: &str) {
        self.enroll_as(id, state, namespaces, &KEY.public_key().unwrap().to_base64());
    }

    fn enroll_as(&self, id: &Uuid, state: &str, namespaces: &str, public: &str) {
        let alice = AtSign::parse("alice").unwrap();
        let json = format!(
            r#"{{"appName":"made","deviceName":"{id}","namespaces":{namespaces},"apkamPublicKey":"{public}","approval":{{"state":"{state}"}}}}"#
        );
        let key = AtKey::own(&format!("{id}.new.enrollments.__manage"), &alice);
        let batch = Batch::new(0).put(&alice, &key, Record::new(json, Metadata::default(), 0), LogAs::Nothing);
        self.world.runtime.block_on(self.world.store.commit(batch)).unwrap();
    }

    fn fresh(&self, state: &str) -> Uuid {
        let number = self.number();
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let id = Uuid::from_random(bytes);
        // Of a key of its own: the legacy key goes with the enrolment that has the same.
        self.enroll_as(&id, state, r#"{"ns":"rw"}"#, "MIIB");
        id
    }

    fn number(&self) -> u32 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    fn login(&self, caller: Caller) -> Client {
        let enrolled = |id: &Uuid| {
            let mut client = self.world.connect();
            let challenge = client.challenge("alice");
            let signature = KEY.sign(SignatureHash::Sha256, challenge.as_bytes()).unwrap();
            client.ask(&format!("pkam:enrollmentId:{id}:{signature}"), "data:success\n@alice@");
            client
        };
        match caller {
            Caller::Cram => {
                let mut client = self.world.connect();
                client.cram("alice", &self.secret);
                client
            }
            Caller::Legacy => self.world.login("alice"),
            Caller::Full => enrolled(&self.full),
            Caller::Writer => enrolled(&self.writer),
            Caller::Reader => enrolled(&self.reader),
            Caller::Other => enrolled(&self.other),
            Caller::Bob => self.world.login("bob"),
            Caller::Carol => self.world.login("carol"),
            Caller::Peer => {
                let (certificate, key) = self.daves.certificate();
                let mut client = self.abroad.connect_as(&certificate, &key);
                // Whose names a scan means: the server learns it from the question before.
                assert!(client.reply("lookup:open.ns@alice").starts_with("data:"));
                assert_eq!(claim(&mut client, &self.daves, "dave"), "@dave@");
                client
            }
            Caller::Stranger => self.world.connect(),
        }
    }

    fn line(&self, caller: Caller, line: &str) -> String {
        let mut text = line.to_owned();
        for state in ["pending", "approved", "denied", "revoked"] {
            let place = format!("{{{state}}}");
            if text.contains(&place) {
                text = text.replace(&place, self.fresh(state).as_str());
            }
        }
        let me = match caller {
            Caller::Bob => "@bob",
            Caller::Carol => "@carol",
            Caller::Peer => "@dave",
            _ => "@alice",
        };
        let text =
            text.replace("{me}", me).replace("{n}", &self.number().to_string()).replace("{digest}", &"0".repeat(128));
        text.replace("{key}", &KEY.public_key().unwrap().to_base64())
    }

    /// What this caller is answered, in the words of the table.
    fn answer(&self, caller: Caller, line: &str) -> String {
        let mut client = self.login(caller);
        // Whoever gets no answer gets one to the second line.
        client.send(format!("{}\nnoop:0\n", self.line(caller, line)).as_bytes());
        let reply = client.text();
        let first = reply.split('\n').next().unwrap_or_default();
        if reply == "data:ok\n" {
            return "silence".into();
        }
        if let Some(error) = first.strip_prefix("error:AT0").or_else(|| first.strip_prefix("error:AT00")) {
            let code: String = error.chars().take_while(char::is_ascii_digit).collect();
            return code.strip_prefix('0').unwrap_or(&code).to_owned();
        }
        match first.strip_prefix("data:") {
            Some(data) => format!("={data}"),
            None if reply.is_empty() => "end".into(),
            None => reply,
        }
    }
}

/// Whether an answer is what the table says.
fn fits(want: &str, got: &str) -> bool {
    match want {
        "ok" => got.starts_with('='),
        _ if want.starts_with('~') => got.contains(&want[1..]),
        _ => want == got,
    }
}

#[test]
fn every_verb_by_every_caller() {
    let house = House::new();
    let (mut table, mut wrong) = (String::new(), Vec::new());
    for (verb, line, wanted) in ROWS {
        house.furnish();
        let shown = if line.chars().count() > 60 {
            format!("{}…", line.chars().take(59).collect::<String>())
        } else {
            (*line).to_owned()
        };
        let _ = write!(table, "{shown:<62}");
        for (caller, want) in CALLERS.into_iter().zip(wanted) {
            if *verb == "notify:remove" {
                house.furnish(); // the caller before may have taken it away
            }
            let got = house.answer(caller, line);
            let short: String = if got.starts_with('=') { "data".into() } else { got.clone() };
            let _ = write!(table, "{short:<9}");
            if !fits(want, &got) {
                wrong.push(format!("{verb}: {line} by {caller:?}: wanted {want}, got {got}"));
            }
        }
        table.push('\n');
    }
    let head: String = CALLERS.iter().map(|caller| format!("{:<9}", format!("{caller:?}"))).collect();
    println!("{:<62}{head}\n{table}", "line × caller -> answer (error codes without AT0)");
    assert!(wrong.is_empty(), "{} cells are not as they should be:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_verb_is_missing() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|(verb, ..)| *verb).collect();
    for (verb, line, _) in ROWS {
        let line = line.replace("{n}", "1").replace("{me}", "@alice").replace("{key}", "k");
        if let Ok(request) = Request::parse(line.as_bytes()) {
            assert_eq!(request.verb(), *verb, "{line}");
        }
    }
    let missing: Vec<&&str> = Request::VERBS.iter().filter(|verb| !rows.contains(**verb)).collect();
    assert!(missing.is_empty(), "verbs without a row: {missing:?}");
}
