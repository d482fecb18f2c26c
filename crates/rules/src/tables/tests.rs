use proptest::prelude::*;
use serde_json::json;

use super::*;

fn put(tables: &mut Tables, kind: RowKind, json: serde_json::Value) -> Result<String, BadRule> {
    tables.put(kind.row(&json).expect("a row")).map(|row| row.id().to_owned())
}

/// `@c` is in group 1, which may reach port 22 of `@d`'s `pi`, which is in no group.
fn sample() -> Tables {
    let mut tables = Tables::default();
    for (kind, row) in [
        (RowKind::Client, json!({"name": "C", "atSign": "@C"})),
        (RowKind::ClientGroup, json!({"name": "admins"})),
        (RowKind::ClientGroupMember, json!({"clientId": "1", "clientGroupId": "1"})),
        (RowKind::Daemon, json!({"atSign": "@d"})),
        (RowKind::Service, json!({"daemonId": "1", "deviceName": "Pi"})),
        (RowKind::ServiceAcl, json!({"serviceId": "1", "clientGroupId": "1", "permitOpen": "localhost:22"})),
    ] {
        assert_eq!(put(&mut tables, kind, row).unwrap(), "1");
    }
    tables
}

fn question(client: &str, daemon: &str, device: &str, group: &str) -> Question {
    let at_sign = |text| AtSign::parse(text).unwrap();
    Question { daemon: at_sign(daemon), device: device.into(), group: group.into(), client: at_sign(client) }
}

#[test]
fn name_and_group_must_both_be_the_services() {
    let tables = sample();
    let ask = |c, d, device, group| tables.answer(&question(c, d, device, group)).authorized;
    assert_eq!(tables.answer(&question("@c", "@d", "pi", "__none__")).permit_open.unwrap(), ["localhost:22"]);
    assert!(!ask("@c", "@d", "pi", "lab"));
    assert!(!ask("@c", "@d", "attic", "__none__"));
    assert!(!ask("@c", "@e", "pi", "__none__"));
    assert!(!ask("@x", "@d", "pi", "__none__"));
}

#[test]
fn a_row_needs_what_it_names() {
    let mut tables = sample();
    let told = put(&mut tables, RowKind::Service, json!({"daemonId": "9", "deviceName": "pi"})).unwrap_err();
    assert_eq!(told.to_string(), "Service: there is no Daemon with the id \"9\"");
    assert!(put(&mut tables, RowKind::ClientGroupMember, json!({"clientId": "1", "clientGroupId": "2"})).is_err());
    let acl = json!({"serviceId": "1", "clientGroupId": "1", "permitOpen": "localhost"});
    assert!(put(&mut tables, RowKind::ServiceAcl, acl).is_err());
    assert!(put(&mut tables, RowKind::Client, json!({"id": "../1", "atSign": "@c"})).is_err());
    assert_eq!(tables, sample());
}

#[test]
fn a_number_given_again_does_not_bring_back_old_rights() {
    let mut tables = sample();
    let gone = tables.delete(RowKind::Client, "1");
    assert_eq!(gone, [(RowKind::Client, "1".to_owned()), (RowKind::ClientGroupMember, "1".to_owned())]);
    assert_eq!(put(&mut tables, RowKind::Client, json!({"atSign": "@eve"})).unwrap(), "1");
    assert!(!tables.answer(&question("@eve", "@d", "pi", "__none__")).authorized);

    let mut tables = sample();
    tables.delete(RowKind::Daemon, "1");
    assert!(tables.rows(RowKind::Service).is_empty() && tables.rows(RowKind::ServiceAcl).is_empty());
    assert!(tables.delete(RowKind::Daemon, "1").is_empty());
}

#[test]
fn stored_rows_that_cannot_be_are_left_out_and_told() {
    let mut rows: Vec<Row> = RowKind::ALL.into_iter().flat_map(|kind| sample().rows(kind)).collect();
    rows.reverse();
    assert_eq!(Tables::from_rows(rows.clone()), (sample(), Vec::new()));
    rows.retain(|row| row.kind() != RowKind::Daemon);
    let (tables, bad) = Tables::from_rows(rows);
    assert_eq!(bad.len(), 2, "{bad:?}");
    assert!(!tables.answer(&question("@c", "@d", "pi", "__none__")).authorized);
}

#[test]
fn the_stored_forms() {
    let rows: Vec<String> =
        RowKind::ALL.into_iter().flat_map(|kind| sample().rows(kind)).map(|row| row.to_json().to_string()).collect();
    assert_eq!(
        rows,
        [
            r#"{"id":"1","name":"C","atSign":"@c"}"#,
            r#"{"id":"1","name":"admins"}"#,
            r#"{"id":"1","clientId":"1","clientGroupId":"1"}"#,
            r#"{"id":"1","atSign":"@d"}"#,
            r#"{"id":"1","daemonId":"1","deviceName":"pi","deviceGroupName":"__none__"}"#,
            r#"{"id":"1","serviceId":"1","clientGroupId":"1","permitOpen":"localhost:22"}"#,
        ]
    );
    let text = serde_json::to_string(&sample()).unwrap();
    assert_eq!(serde_json::from_str::<Tables>(&text).unwrap().check(), Ok(sample()));
}

proptest! {
    /// However rows come and go, an answer of yes always has a chain of rows behind it, and no row dangles.
    #[test]
    fn nothing_dangles(steps in proptest::collection::vec((0..6usize, 1..5u8, 1..5u8, any::<bool>()), 0..60)) {
        let mut tables = Tables::default();
        for (kind, a, b, delete) in steps {
            let kind = RowKind::ALL[kind];
            let (a, b) = (a.to_string(), b.to_string());
            if delete {
                tables.delete(kind, &a);
                continue;
            }
            let row = match kind {
                RowKind::Client | RowKind::Daemon => json!({"id": a, "atSign": format!("@x{b}")}),
                RowKind::ClientGroup => json!({"id": a, "name": b}),
                RowKind::ClientGroupMember => json!({"clientId": a, "clientGroupId": b}),
                RowKind::Service => json!({"daemonId": a, "deviceName": b}),
                RowKind::ServiceAcl => json!({"serviceId": a, "clientGroupId": b, "permitOpen": "*:22"}),
            };
            let _ = put(&mut tables, kind, row);
        }
        for row in RowKind::ALL.into_iter().flat_map(|kind| tables.rows(kind)) {
            for (kind, id) in row.needs() {
                prop_assert!(tables.has(kind, id), "{row:?} dangles");
            }
        }
    }
}
