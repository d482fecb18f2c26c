//! What the record with an enrolment's signing key says.

use postern_crypto::RsaPublicKey;
use serde_json::Value as Json;

use crate::limits::ADVERTISED_BYTES;

/// The keys of a record that [`SigningKeyName`](postern_proto::SigningKeyName) names, at most one of which we can use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedKeys {
    rsa: Option<RsaPublicKey>,
    stronger: bool,
}

impl AdvertisedKeys {
    /// Reads base64 of an RSA key, or a JSON list of keys with their algorithms.
    ///
    /// Of the JSON form only this is known: it holds keys and says their algorithms. So every object in it that names an
    /// algorithm counts; one that we do not know counts as stronger than RSA.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > ADVERTISED_BYTES {
            return None;
        }
        if !text.starts_with(['{', '[']) {
            let rsa = RsaPublicKey::from_base64(text).ok()?;
            return Some(Self { rsa: Some(rsa), stronger: false });
        }
        let mut found = Self { rsa: None, stronger: false };
        // JSON readers bound the depth, the length is bounded above.
        let json: Json = serde_json::from_str(text).ok()?;
        found.walk(&json);
        (found.rsa.is_some() || found.stronger).then_some(found)
    }

    fn walk(&mut self, json: &Json) {
        match json {
            Json::Array(items) => items.iter().for_each(|item| self.walk(item)),
            Json::Object(members) => {
                let text = |names: &[&str]| names.iter().find_map(|name| members.get(*name)?.as_str());
                match text(&["sa", "alg", "algo", "algorithm", "signingAlgo", "keyAlgorithm"]) {
                    Some("rsa2048") => {
                        let key = text(&["publicKey", "pk", "key", "value"]);
                        self.rsa = key.and_then(|key| RsaPublicKey::from_base64(key).ok());
                    }
                    Some(_) => self.stronger = true,
                    None => members.values().for_each(|member| self.walk(member)),
                }
            }
            _ => {}
        }
    }

    /// The RSA key, when it is the strongest that the record has.
    #[must_use]
    pub fn strongest_is_rsa(&self) -> Option<&RsaPublicKey> {
        self.rsa.as_ref().filter(|_| !self.stronger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_crypto::RsaPrivateKey;
    #[test]
    fn a_stronger_key_forbids_the_weaker_one() {
        let key = RsaPrivateKey::generate().unwrap().public_key().unwrap();
        let text = key.to_base64();
        assert_eq!(AdvertisedKeys::parse(&text).unwrap().strongest_is_rsa(), Some(&key));
        let one = format!(r#"{{"keys":[{{"algorithm":"rsa2048","publicKey":"{text}"}}]}}"#);
        assert_eq!(AdvertisedKeys::parse(&one).unwrap().strongest_is_rsa(), Some(&key));
        let two = one.replace("}]", r#"},{"algorithm":"mldsa65","publicKey":"AAAA"}]"#);
        assert_eq!(AdvertisedKeys::parse(&two).unwrap().strongest_is_rsa(), None);
        for bad in ["", "AAAA", "{}", "[1]", "{\"keys\":"] {
            assert_eq!(AdvertisedKeys::parse(bad), None, "{bad}");
        }
    }
}
