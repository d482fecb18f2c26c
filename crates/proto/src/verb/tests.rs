//! Lines as real clients send them, and the law that what is printed parses to the same.

use proptest::prelude::*;

use crate::verb::{Notify, Target, Update};
use crate::{AtSign, Detail, ErrorCode, ErrorShape, MessageType, Operation, Priority, Request, Visibility};

fn parse(line: &str) -> Request {
    Request::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn update(line: &str) -> Update {
    match parse(line) {
        Request::Update(update) => update,
        other => panic!("{line}: {other:?}"),
    }
}

fn notify(line: &str) -> Notify {
    match parse(line) {
        Request::Notify(notify) => *notify,
        other => panic!("{line}: {other:?}"),
    }
}

/// Forms of the table "which verb forms each real client sends".
const REAL_LINES: &[&str] = &[
    "from:@alice",
    "from:@alice:clientConfig:{\"version\":\"3.0.49\"}",
    "pkam:kJ8==",
    "pkam:enrollmentId:6f9619ff-8b86-4d01-b42d-00cf4fc964ff:kJ8==",
    "pkam:signingAlgo:rsa2048:hashingAlgo:sha256:enrollmentId:6f9619ff-8b86-4d01-b42d-00cf4fc964ff:aB==",
    "scan",
    "scan:showHidden:true device_info",
    "scan:showHidden:true:@bob sshnp",
    "llookup:shared_key.bob@alice",
    "llookup:all:public:publickey@alice",
    "llookup:meta:@bob:phone.ns@alice",
    "lookup:shared_key@bob",
    "lookup:all:device_info.dev1.sshnp@bob",
    "lookup:bypassCache:true:all:username.dev1.sshnp@bob",
    "plookup:publickey@bob",
    "plookup:bypassCache:true:all:publickey@bob",
    "update:isEncrypted:false:public:publickey@alice MIIB",
    "update:ttl:3600000:isEncrypted:true:ivNonce:AAAA==:@bob:device_info.dev1.sshnp@alice AbC=",
    "update:ttr:3888000:isEncrypted:false:@bob:shared_key@alice Zp==",
    "update:privatekey:at_pkam_publickey MIIB",
    "update:meta:@bob:phone.ns@alice:ttl:0:ccd:true",
    "update:ttl:30000:isEncrypted:false:immutable:true:5e0f.session_mutexes.sshnp@alice lock",
    "delete:privatekey:at_secret",
    "delete:force:phone.ns@alice",
    "delete:@bob:username.dev1.sshnp@alice",
    "notify:id:0c1e:update:ttl:10000:isEncrypted:true:ivNonce:8m==:@bob:ping.dev1.sshnp@alice:Vt==",
    "notify:remove:0c1e",
    "notify:update:priority:high:strategy:latest:latestN:2:notifier:app:ttln:5:@bob:k.ns@alice:v",
    "notify:all:update:ttl:1000:@bob,@carol:phone.ns@alice:v",
    "notify:status:0c1e",
    "notify:fetch:0c1e",
    "notify:list",
    "sync:from:-1:limit:25",
    "sync:from:7:limit:10:skipDeletesUntil:5:.*sshnp",
    "batch:[{\"id\":1,\"command\":\"update:k.ns@alice v\"}]",
    "stats",
    "stats:3",
    "stats:1,3,15:ns",
    "config:block:add:@bob @carol",
    "config:block:remove:@bob",
    "config:block:show",
    "config:set:inbound_max_limit=5",
    "notify:list:2024-10-24:2024-10-25:sshnp",
    "notify:list:.ns",
    "monitor",
    "monitor:1729760400123 .dev1.sshnp",
    "monitor:selfNotifications:0",
    "monitor:strict:selfNotifications dev1.sshnp@",
    "noop:0",
    "info:brief",
    "enroll:list:{\"enrollmentStatusFilter\":[\"pending\"]}",
    "otp:get:ttl:300000",
    "keys:get:keyName:6f96.default_enc_private_key.__manage@alice",
    "keys:get:self",
    "keys:delete:keyName:public:k.__public_keys.ns@alice",
    "keys:put:self:namespace:ns:appName:a:deviceName:d:keyType:aes256:encryptionKeyName:e:keyName:k b64==",
    "keys:put:public:namespace:ns:keyName:k b64==",
    "@exit",
];

#[test]
fn real_lines_parse_and_print_back() {
    for line in REAL_LINES {
        assert_eq!(parse(line).to_string(), *line);
    }
}

#[test]
fn any_case_of_the_verb_and_any_line_end() {
    assert_eq!(parse("FROM:alice\r"), parse("from:@alice"));
    assert_eq!(parse("noop:0\r"), parse("noop:0"));
    assert_eq!(parse("scan:showhidden:TRUE"), parse("scan:showHidden:true"));
}

#[test]
fn update_takes_parameters_in_any_order_and_unknown_ones() {
    // The C library puts dataSignature behind isEncrypted and may add hash and algo.
    let u = update("update:isEncrypted:true:dataSignature:Ab==:hash:00ff:algo:sha256:@bob:k.ns@alice v");
    assert_eq!(u.metadata.set.is_encrypted, Some(true));
    assert_eq!(u.metadata.set.data_signature.as_deref(), Some("Ab=="));
    assert_eq!(u.key.to_string(), "@bob:k.ns@alice");
    // Python writes :ttln: and a capital True.
    let u = update("update:ttl:5:ttln:7:ccd:True:public:k.ns@alice a b c");
    assert_eq!((u.metadata.set.ttl, u.metadata.set.ccd), (Some(5), Some(true)));
    assert_eq!(u.value, "a b c");
    // null clears.
    assert_eq!(update("update:encoding:null:k@alice v").metadata.clear, ["encoding"]);
}

#[test]
fn update_values_out_of_range_are_refused() {
    for line in [
        "update:ttl:-1:k@alice v",
        "update:ttr:-2:k@alice v",
        "update:ccd:maybe:k@alice v",
        "update:k@alice",
        "update:k@alice ",
    ] {
        assert!(Request::parse(line.as_bytes()).is_err(), "{line}");
    }
}

#[test]
fn newer_clients_send_dates_and_flags() {
    let u = update("update:nc:ttl:5:cAt:2025-01-02T03:04:05.678Z:uAt:2025-01-02T03:04:05Z:immutable:true:k.ns@alice v");
    assert_eq!((u.metadata.set.ttl, u.metadata.set.immutable), (Some(5), Some(true)));
    assert_eq!(u.key.to_string(), "k.ns@alice");
    // A parameter that has the name of a date and another value.
    assert_eq!(update("update:cAt:x:ttl:5:k.ns@alice v").metadata.set.ttl, Some(5));
    let u = update("update:pubKeyHash:0af:hashingAlgo:sha512:appMetadata:e30=:@bob:k.ns@alice v");
    assert_eq!(u.metadata.set.hashing_algo.as_deref(), Some("sha512"));
    for (line, force) in [
        ("delete:dAt:2025-01-02T03:04:05.678Z:nc:k.ns@alice", false),
        ("delete:nc:k.ns@alice", false),
        ("delete:priority:high:k.ns@alice", false),
        ("delete:force:priority:high:k.ns@alice", true),
    ] {
        let Request::Delete(delete) = parse(line) else { panic!("{line}") };
        assert_eq!((delete.key.to_string().as_str(), delete.force), ("k.ns@alice", force), "{line}");
    }
}

#[test]
fn update_as_json() {
    let u = update(
        r#"update:json:{"atKey":"Phone.ns","value":"1 2","sharedBy":"@alice","sharedWith":"bob","metadata":{"ttl":5,"ttr":-1,"ccd":true,"isPublic":false,"createdAt":"x","encoding":null,"pubKeyHash":{"hash":"0a","hashingAlgo":"sha256"}}}"#,
    );
    assert_eq!((u.key.to_string().as_str(), u.value.as_str()), ("@bob:phone.ns@alice", "1 2"));
    assert_eq!((u.metadata.set.ttl, u.metadata.set.ttr, u.metadata.set.ccd), (Some(5), Some(-1), Some(true)));
    assert_eq!(u.metadata.set.pub_key_hash.as_deref(), Some("0a"));
    let u = update(r#"update:json:{"atKey":"location.ns@alice","value":"v","metadata":{"isPublic":true}}"#);
    assert_eq!(u.key.to_string(), "public:location.ns@alice");
    for bad in [
        "[]",
        "{}",
        r#"{"atKey":"k@alice"}"#,
        r#"{"atKey":"k@alice","value":""}"#,
        r#"{"atKey":"k@alice","value":"a\ndata:forged"}"#,
        r#"{"atKey":"k@alice","value":"v","metadata":{"ttl":-1}}"#,
        r#"{"atKey":"k@alice","value":"v","metadata":{"encoding":"a:b"}}"#,
        r#"{"atKey":"k@alice","value":{"a":1}}"#,
    ] {
        assert!(Request::parse(format!("update:json:{bad}").as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn metadata_alone() {
    let meta = |line: &str| match parse(line) {
        Request::UpdateMeta(meta) => meta,
        other => panic!("{other:?}"),
    };
    let m = meta("update:meta:public:phone.ns@alice:ttl:5:encoding:null:new:x");
    assert_eq!((m.key.to_string().as_str(), m.metadata.set.ttl), ("public:phone.ns@alice", Some(5)));
    assert_eq!(m.metadata.clear, ["encoding"]);
    assert_eq!(meta("update:meta:@bob:phone.ns@alice").key.to_string(), "@bob:phone.ns@alice");
    for bad in ["update:meta:phone.ns", "update:meta:phone.ns@alice:ttl", "update:meta:@bob:phone:ttl:5"] {
        assert!(Request::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn figures_lists_and_pages() {
    for (line, code) in [
        ("stats:0", "AT0003"),
        ("stats:16", "AT0003"),
        ("stats:x", "AT0003"),
        ("stats 3", "AT0003"),
        ("sync:7", "AT0003"),
        ("sync:from:-2", "AT0003"),
        ("sync:from:1:limit:x", "AT0003"),
        ("batch:{}", "AT0003"),
        ("batch:[{\"id\":1}]", "AT0003"),
        ("config:block:add:", "AT0003"),
        ("config:block:add:bob", "AT0003"),
        ("config:block:show:@bob", "AT0003"),
        ("config:set:", "AT0003"),
        ("config:reboot:x", "AT0003"),
    ] {
        let error = Request::parse(line.as_bytes()).unwrap_err();
        assert_eq!(error.code.code(), code, "{line}");
    }
    let many: Vec<String> = (0..101).map(|id| format!("{{\"id\":{id},\"command\":\"\"}}")).collect();
    let error = Request::parse(format!("batch:[{}]", many.join(",")).as_bytes()).unwrap_err();
    assert_eq!(error.code, ErrorCode::IllegalArguments);
    let Request::Stats(stats) = parse("stats:3,3:a:b") else { panic!() };
    assert_eq!((stats.metrics.len(), stats.regex.as_deref()), (1, Some("a:b")));
    assert_eq!(parse("scan:cl:showHidden:true"), parse("scan:showHidden:true"));
}

#[test]
fn notify_forms() {
    let n = notify("notify:update:message_type:key:ttln:60000:isEncrypted:true:@Bob:Ping.Dev1.sshnp@alice:a:b");
    assert_eq!((n.operation, n.message_type, n.ttln), (Operation::Update, MessageType::Key, Some(60000)));
    assert_eq!((n.key.as_str(), n.value.as_deref()), ("Ping.Dev1.sshnp", Some("a:b")));
    let text = notify("notify:messageType:text:@bob:hello: there");
    assert_eq!((text.key.as_str(), text.value), ("hello: there", None));
    let public = notify("notify:update:@bob:public:k.ns@alice:v");
    assert_eq!((public.key.as_str(), public.target), ("public:k.ns", Target::AtSign("@bob".parse().unwrap())));
    assert!(Request::parse(b"notify:strategy:latest:@bob:k@alice").is_err());
    let latest = notify("notify:priority:Medium:latestN:3:notifier:SYSTEM:strategy:latest:public:k.ns@alice");
    assert_eq!((latest.routing.priority, latest.routing.latest), (Priority::Medium, Some(3)));
    assert_eq!((latest.routing.notifier(), latest.target), ("SYSTEM", Target::Public));
    assert_eq!(notify("notify:latestN:3:notifier:a:@bob:k@alice").routing.latest, None);
    for bad in ["priority:urgent", "strategy:some", "latestN:0", "latestN:x", "notifier:", "messageType:x", "ttln:-1"] {
        assert!(Request::parse(format!("notify:{bad}:@bob:k@alice").as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn notifications_to_many_and_in_lists() {
    let Request::NotifyAll(all) = parse("notify:all:delete:messageType:key:ccd:true:@Bob,carol,@bob:k.ns@alice") else {
        panic!()
    };
    assert_eq!(all.recipients.iter().map(AtSign::as_str).collect::<Vec<_>>(), ["@bob", "@carol"]);
    assert_eq!((all.notify.operation, all.notify.metadata.set.ccd), (Operation::Delete, Some(true)));
    let many: Vec<String> = (0..=crate::verb::MAX_RECIPIENTS).map(|n| format!("@a{n}")).collect();
    for bad in [&many.join(","), "@bob,", "@bob,@ca rol", "public", ""] {
        assert!(Request::parse(format!("notify:all:{bad}:k.ns@alice:v").as_bytes()).is_err(), "{bad}");
    }
    let list = |line: &str| match parse(line) {
        Request::NotifyList(list) => list,
        other => panic!("{other:?}"),
    };
    assert_eq!(list("notify:list:2024-1-2").from, Some(1_704_153_600_000));
    assert_eq!(list("notify:list:ns").regex.as_deref(), Some("ns"));
    let day = list("notify:list:2024-01-02:2024-01-02:a:b");
    assert_eq!((day.from == day.to, day.regex.as_deref()), (true, Some("a:b")));
    for (line, code) in [
        ("notify:list:2024-02-30", ErrorCode::IllegalArguments),
        ("notify:list:2024-02-03:2024-02-02", ErrorCode::IllegalArguments),
        ("notify:status:a b", ErrorCode::InvalidSyntax),
        ("notify:status:", ErrorCode::InvalidSyntax),
    ] {
        assert_eq!(Request::parse(line.as_bytes()).unwrap_err().code, code, "{line}");
    }
}

#[test]
fn lookups() {
    let Request::Lookup(l) = parse("lookup:all:Phone.ns@Bob") else { panic!() };
    assert_eq!((l.detail, l.name.as_str(), l.owner.as_str()), (Detail::All, "phone.ns", "@bob"));
    let Request::Llookup(l) = parse("llookup:cached:@alice:shared_key@bob") else { panic!() };
    assert!(l.key.is_cached() && matches!(l.key.visibility(), Visibility::Shared(_)));
    for line in ["lookup:publickey", "lookup:@bob:k@alice", "llookup:privatekey:at_secret"] {
        assert!(Request::parse(line.as_bytes()).is_err(), "{line}");
    }
}

#[test]
fn newer_clients_get_json_errors() {
    for (line, shape) in [
        ("from:@a", ErrorShape::Text),
        ("from:@a:clientConfig:{\"version\":\"3.0.37\"}", ErrorShape::Text),
        ("from:@a:clientConfig:{\"version\":\"3.0.38\",\"new\":1}", ErrorShape::Json),
        ("from:@a:clientConfig:{\"version\":\"4.0.0-rc.1\"}", ErrorShape::Json),
    ] {
        let Request::From(from) = parse(line) else { panic!() };
        assert_eq!(from.client.error_shape(), shape, "{line}");
    }
}

#[test]
fn no_verb_is_taken_for_a_name() {
    for line in REAL_LINES {
        let word = line.split([':', ' ']).next().unwrap();
        assert!(Request::is_bare_verb(&word.to_uppercase()), "{word}");
    }
    assert!(!Request::is_bare_verb("alice"));
}

#[test]
fn regression_a_list_does_not_turn_an_expression_into_a_day() {
    for line in ["notify:list: 2024-01-01", "notify:list:2024-01-01: 2024-01-02", "notify:list::2024-01-01"] {
        assert_eq!(parse(&parse(line).to_string()), parse(line), "{line}");
    }
}

#[test]
fn regression_enroll_prints_what_it_reads_again() {
    for line in ["enroll:list", "enroll:list:force:{}", "enroll:request:{\"unknown\":1}", "enroll:list:force:"] {
        if let Ok(request) = Request::parse(line.as_bytes()) {
            assert_eq!(parse(&request.to_string()), request, "{line}");
        }
    }
}

#[test]
fn nonsense_is_refused_not_guessed() {
    for line in [
        &b""[..],
        b"\r",
        b"hello",
        b"from:",
        b"pkam:",
        b"cram:12",
        b"\xff\xfe:x",
        b"noop:5001",
        b"scan:x",
        b"keys:put:x",
        b"enroll:request",
        b"otp:put:short",
        b"monitor:soon",
    ] {
        assert!(Request::parse(line).is_err(), "{line:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_lines_never_panic_and_print_is_stable(line in "(from|cram|pkam|lookup|plookup|llookup|update|update:meta|update:json|delete|scan|notify|notify:all|notify:list|sync:from|batch|stats|config|monitor|noop|info|enroll|otp|keys)[: ]?[ -~é🦄]{0,80}") {
        if let Ok(request) = Request::parse(line.as_bytes()) {
            let printed = request.to_string();
            let again = Request::parse(printed.as_bytes());
            prop_assert!(again.as_ref() == Ok(&request), "{} -> {}", line, printed);
        }
    }

    #[test]
    fn words_of_the_grammar_in_any_order_read_back_the_same(
        verb in prop::sample::select(vec![
            "update", "update:meta", "update:json", "delete", "notify", "notify:all", "notify:list", "sync:from:5",
            "stats", "config", "scan", "lookup", "plookup", "llookup", "monitor", "batch",
        ]),
        words in prop::collection::vec((prop::sample::select(vec![
            "", "nc", "meta", "json", "force", "ttl", "ttr", "-1", "5", "null", "true", "cAt", "2025-01-02T03:04:05Z",
            "encoding", "hash", "algo", "immutable", "unknown", "public", "cached", "privatekey", "at_secret", "@bob",
            "@bob,@carol", "@alice", "k.ns@alice", "k", "K v", "id", "messageType", "text", "key", "priority", "high",
            "strategy", "latest", "all", "latestN", "notifier", "SYSTEM", "ttln", "2024-01-02", "limit", "regex.*",
            "skipDeletesUntil", "3,15", "block", "add", "show", "set", "showHidden", "page", "bypassCache", "strict",
            "{\"atKey\":\"k\",\"value\":\"v\"}", "[]",
        ]), prop::sample::select(vec![":", ":", ":", " ", "@"])), 0..10),
    ) {
        let line = words.iter().fold(verb.to_owned(), |line, (word, joint)| line + joint + word);
        if let Ok(request) = Request::parse(line.as_bytes()) {
            let again = Request::parse(request.to_string().as_bytes());
            prop_assert!(again.as_ref() == Ok(&request), "{} -> {}", line, request);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(line in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Request::parse(&line);
        let _ = crate::ServerLine::parse(&String::from_utf8_lossy(&line));
        let _ = crate::DirectoryQuery::parse(&line);
    }
}
