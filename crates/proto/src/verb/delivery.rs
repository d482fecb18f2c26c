//! One notification from atServer to atServer.

use std::fmt;

use crate::{MessageType, Metadata, MetadataChange, Millis, Notification};

/// `notify:id:…:⟨update|delete⟩:messageType:…:notifier:…:ttln:…⟨metadata⟩:⟨full key⟩[:⟨value⟩]`, as the reference's
/// servers send it to each other. Read on arrival by [`super::Notify`].
#[derive(Clone, Copy)]
pub struct Delivery<'a> {
    /// What is delivered.
    pub notification: &'a Notification,
    /// What is left of its life, milliseconds.
    pub life_ms: Millis,
}

impl fmt::Display for Delivery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.notification;
        write!(f, "notify:id:{}:{}", n.id, n.operation.as_str())?;
        let (kind, notifier) = (n.message_type.as_str(), n.routing.notifier());
        write!(f, ":messageType:{kind}:notifier:{notifier}:ttln:{}", self.life_ms)?;
        write!(f, "{}", MetadataChange::from(travelling(n)))?;
        if n.message_type == MessageType::Key && n.key.starts_with("public:") {
            // The stored name of a public key does not say whom it is for.
            write!(f, ":{}", n.to)?;
        }
        write!(f, ":{}", n.key)?;
        match &n.value {
            Some(value) if n.message_type == MessageType::Key => write!(f, ":{value}"),
            _ => Ok(()),
        }
    }
}

/// What the reference's grammar between servers has room for; it wants `ttr` and `ccd` together.
fn travelling(n: &Notification) -> Metadata {
    let m = &n.metadata;
    let ccd = m.ttr.map(|_| m.ccd.unwrap_or(false));
    Metadata {
        ttl: m.ttl,
        ttb: m.ttb,
        ttr: m.ttr,
        ccd,
        is_encrypted: Some(n.is_encrypted),
        shared_key_enc: m.shared_key_enc.clone(),
        pub_key_cs: m.pub_key_cs.clone(),
        enc_key_name: m.enc_key_name.clone(),
        enc_algo: m.enc_algo.clone(),
        iv_nonce: m.iv_nonce.clone(),
        ske_enc_key_name: m.ske_enc_key_name.clone(),
        ske_enc_algo: m.ske_enc_algo.clone(),
        ..Metadata::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::Target;
    use crate::{AtSign, NotificationId, Operation, Request, Routing};

    fn sample() -> Notification {
        Notification {
            id: NotificationId::parse("3f1c").unwrap(),
            from: AtSign::parse("@alice").unwrap(),
            to: AtSign::parse("@bob").unwrap(),
            key: "@bob:Ping.dev1.sshnp@alice".into(),
            value: Some("Vt==:x".into()),
            operation: Operation::Update,
            message_type: MessageType::Key,
            at: 0,
            expires_at: 900_000,
            is_encrypted: true,
            is_self: false,
            metadata: Metadata { ttl: Some(10_000), iv_nonce: Some("8m==".into()), ..Metadata::default() },
            routing: Routing::default(),
        }
    }

    fn line(n: &Notification) -> String {
        Delivery { notification: n, life_ms: 900_000 }.to_string()
    }

    #[test]
    fn the_line_of_the_worked_dialogue_and_back() {
        let text = line(&sample());
        assert_eq!(
            text,
            "notify:id:3f1c:update:messageType:key:notifier:SYSTEM:ttln:900000:ttl:10000:isEncrypted:true:ivNonce:8m==:@bob:Ping.dev1.sshnp@alice:Vt==:x"
        );
        let Ok(Request::Notify(read)) = Request::parse(text.as_bytes()) else { panic!("{text}") };
        assert_eq!(read.target, Target::AtSign(sample().to));
        assert_eq!(
            (read.key.as_str(), read.from, read.value),
            ("Ping.dev1.sshnp", Some(sample().from), sample().value)
        );
    }

    #[test]
    fn texts_deletions_and_public_keys() {
        let text = Notification {
            message_type: MessageType::Text,
            key: "@bob:hello: @you".into(),
            value: None,
            is_encrypted: false,
            metadata: Metadata::default(),
            ..sample()
        };
        assert!(
            line(&text).ends_with(":messageType:text:notifier:SYSTEM:ttln:900000:isEncrypted:false:@bob:hello: @you")
        );
        let deleted = Notification {
            operation: Operation::Delete,
            value: None,
            metadata: Metadata { ttr: Some(-1), ..Metadata::default() },
            ..sample()
        };
        assert!(line(&deleted).starts_with("notify:id:3f1c:delete:"));
        assert!(line(&deleted).contains(":ttr:-1:ccd:false:"));
        let public = Notification { key: "public:name.ns@alice".into(), ..sample() };
        let Ok(Request::Notify(read)) = Request::parse(line(&public).as_bytes()) else { panic!() };
        assert_eq!((read.target, read.key.as_str()), (Target::AtSign(sample().to), "public:name.ns"));
    }
}
