//! The shared vectors that need nothing but a cipher.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

#[path = "../../../vectors/replay.rs"]
mod replay;

use postern_crypto::{AesKey, AtKeys, CtrStream, Iv, KeyFileError, RsaPrivateKey, RsaPublicKey, hex_lower};
use serde_json::{Map, Value as Json};

use replay::{replay, same, text};

fn file(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn streams() {
    replay(include_str!("../../../vectors/ctr.json"), |case| {
        let key = AesKey::from_bytes(unhex(text(case, "key")).try_into().unwrap());
        let iv = Iv::from_base64(&postern_crypto::encode_base64(&unhex(text(case, "iv")))).unwrap();
        let (plain, mut stream, mut got) = (unhex(text(case, "plain")), key.stream(iv).unwrap(), Vec::new());
        let mut rest = &plain[..];
        for piece in case["pieces"].as_array().unwrap() {
            let (now, later) = rest.split_at(usize::try_from(piece.as_u64().unwrap()).unwrap());
            let mut out = vec![0; now.len() + CtrStream::SLACK];
            got.extend_from_slice(stream.apply(now, &mut out).unwrap());
            rest = later;
        }
        same(rest.len(), 0)?;
        same(hex_lower(&got), text(case, "cipher").to_owned())
    });
}

#[test]
fn sealed_text() {
    replay(include_str!("../../../vectors/sealed_text.json"), |case| {
        let key = AesKey::from_base64(text(case, "key")).unwrap();
        let opened = Iv::from_base64(text(case, "iv")).and_then(|iv| key.decrypt_text(iv, text(case, "cipher")));
        let Some(want) = case["text"].as_str() else { return same(opened.is_err(), true) };
        same(opened.map(|text| text.to_string()), Ok(want.to_owned()))?;
        let iv = Iv::from_base64(text(case, "iv")).unwrap();
        same(key.encrypt_text(iv, want).unwrap(), text(case, "cipher").to_owned())
    });
}

#[test]
fn key_transport() {
    let keys = file(include_str!("../../../vectors/keys.json"));
    let key = RsaPrivateKey::from_base64(text(&keys["ephemeral"], "private")).unwrap();
    replay(include_str!("../../../vectors/key_transport.json"), |case| {
        let opened = key.decrypt_aes_key(text(case, "cipher")).map(|key| key.to_base64().to_string());
        same(opened.ok(), case["key"].as_str().map(str::to_owned))
    });
}

#[test]
fn keys_of_other_tools_are_read_and_printed_the_same() {
    let keys = file(include_str!("../../../vectors/keys.json"));
    for name in ["signer", "other", "ephemeral"] {
        let private = RsaPrivateKey::from_base64(text(&keys[name], "private")).unwrap();
        assert_eq!(*private.to_base64(), text(&keys[name], "private"));
        assert_eq!(private.public_key().unwrap().to_base64(), text(&keys[name], "public"));
        assert!(RsaPublicKey::from_base64(text(&keys[name], "public")).is_ok());
    }
    assert!(RsaPrivateKey::from_base64(text(&keys["small"], "private")).is_err(), "1024 bits");
}

#[test]
fn key_files() {
    let all = include_str!("../../../vectors/key_files.json");
    let (keys, vectors) = (file(include_str!("../../../vectors/keys.json")), file(all));
    replay(all, |case| {
        let content = match case["text"].as_str() {
            Some(text) => text.to_owned(),
            None => changed(&vectors["base"], case).to_string(),
        };
        let got = AtKeys::parse(&content);
        let want = &case["expect"];
        let Ok(read) = got else {
            let error = match got.err().unwrap() {
                KeyFileError::Malformed => "malformed".to_owned(),
                KeyFileError::Missing(name) => format!("missing {name}"),
                KeyFileError::BadKey(name) => format!("bad {name}"),
                other => other.to_string(),
            };
            return same(Some(error.as_str()), case["error"].as_str());
        };
        if want.is_null() {
            return Err(format!("was read, wanted {}", case["error"]));
        }
        same(&*read.self_encryption.to_base64(), &text(want, "selfEncryptionKey").to_owned())?;
        let named = |name: &str| text(&keys[text(want, name)], "private").to_owned();
        same(read.encryption.to_base64().to_string(), named("encryptPrivate"))?;
        same(read.pkam.to_base64().to_string(), named("pkamPrivate"))?;
        same(read.enrollment_id.as_deref(), want["enrollmentId"].as_str())?;
        let apkam = read.apkam_symmetric.map(|key| key.to_base64().to_string());
        same(apkam.as_deref(), want["apkamSymmetricKey"].as_str())
    });
}

fn changed(base: &Json, case: &Json) -> Json {
    let mut members: Map<String, Json> = base.as_object().unwrap().clone();
    for name in case["remove"].as_array().unwrap() {
        members.shift_remove(name.as_str().unwrap());
    }
    members.extend(case["change"].as_object().unwrap().clone());
    members.into()
}
