//! What a parent hands over in the environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use postern_crypto::{AesKey, Iv, RsaPrivateKey, RsaPublicKey, SignatureHash};
use postern_link::RelayAuth;
use postern_proto::SigningKeyName;
use postern_rendezvous::limits::AUTH_LINE_BYTES;
use postern_rendezvous::{ChallengeSigner, EscrProver, Side};
use postern_session::{DirectionKey, StreamKeys};
use zeroize::Zeroizing;

/// Every name we look at.
const NAMES: [&str; 14] = [
    "RV_AUTH",
    "RV_AES",
    "RV_IV",
    "RV_AES_C2D",
    "RV_IV_C2D",
    "RV_AES_D2C",
    "RV_IV_D2C",
    "REMOTE_AUTH_ESCR_SESSION_ID",
    "REMOTE_AUTH_ESCR_AES_KEY",
    "REMOTE_AUTH_ESCR_PUB_KEY_URI",
    "REMOTE_AUTH_ESCR_SIGNING_PUBKEY",
    "REMOTE_AUTH_ESCR_SIGNING_PRIVKEY",
    "REMOTE_AUTH_ESCR_SIGNING_ALGO",
    "REMOTE_AUTH_ESCR_IS_SIDE_A",
];

/// Longest value read: a private key has some 1,700 characters.
const LONGEST: usize = 8192;

/// Values that are set and not empty.
pub(crate) struct Secrets(BTreeMap<&'static str, Zeroizing<String>>);

/// Reads the environment of this process.
pub(crate) fn of_environment() -> Secrets {
    let read = |name: &'static str| Some((name, Zeroizing::new(std::env::var(name).ok()?)));
    Secrets::of(NAMES.into_iter().filter_map(read))
}

impl Secrets {
    fn of(values: impl Iterator<Item = (&'static str, Zeroizing<String>)>) -> Self {
        Self(values.filter(|(_, value)| (1..=LONGEST).contains(&value.len())).collect())
    }

    fn get(&self, flag: &str, name: &'static str) -> Result<&str, String> {
        let value = self.0.get(name).map(|value| value.as_str());
        value.ok_or_else(|| format!("{flag} required, but {name} is not in environment"))
    }

    fn has(&self, name: &'static str) -> bool {
        self.0.contains_key(name)
    }

    /// Where no mode is named, the one whose secrets are there; both: the line, as parents of old expect.
    pub(crate) fn auth(&self, mode: Option<&str>) -> Result<RelayAuth, String> {
        let escr = mode == Some("escr") || mode.is_none() && !self.has("RV_AUTH") && self.has(NAMES[7]);
        if escr { self.prover() } else { self.line() }
    }

    fn line(&self) -> Result<RelayAuth, String> {
        let line = self.get("--rv-auth", "RV_AUTH")?;
        if line.len() > AUTH_LINE_BYTES || line.contains(char::is_control) {
            return Err("RV_AUTH is no line that a relay reads".into());
        }
        Ok(RelayAuth::Ready(Arc::new(Zeroizing::new(format!("{line}\n")))))
    }

    fn prover(&self) -> Result<RelayAuth, String> {
        let get = |name| self.get("--relay-auth-mode escr", name);
        let wrong = |name: &str| format!("{name} is not what it should be");
        let session = get("REMOTE_AUTH_ESCR_SESSION_ID")?;
        let key =
            AesKey::from_base64(get("REMOTE_AUTH_ESCR_AES_KEY")?).map_err(|_| wrong("REMOTE_AUTH_ESCR_AES_KEY"))?;
        let uri = get("REMOTE_AUTH_ESCR_PUB_KEY_URI")?;
        let name = SigningKeyName::parse(uri).ok_or_else(|| wrong("REMOTE_AUTH_ESCR_PUB_KEY_URI"))?;
        let private = get("REMOTE_AUTH_ESCR_SIGNING_PRIVKEY")?;
        let private = RsaPrivateKey::from_base64(private).map_err(|_| wrong("REMOTE_AUTH_ESCR_SIGNING_PRIVKEY"))?;
        if self.has("REMOTE_AUTH_ESCR_SIGNING_ALGO") && get("REMOTE_AUTH_ESCR_SIGNING_ALGO")? != "rsa2048" {
            return Err("REMOTE_AUTH_ESCR_SIGNING_ALGO: this program signs with rsa2048 only".into());
        }
        if self.has("REMOTE_AUTH_ESCR_SIGNING_PUBKEY") {
            let public = RsaPublicKey::from_base64(get("REMOTE_AUTH_ESCR_SIGNING_PUBKEY")?).ok();
            if public.is_none() || public != private.public_key().ok() {
                return Err("REMOTE_AUTH_ESCR_SIGNING_PUBKEY is not of REMOTE_AUTH_ESCR_SIGNING_PRIVKEY".into());
            }
        }
        let side = match get("REMOTE_AUTH_ESCR_IS_SIDE_A")?.to_ascii_lowercase().as_str() {
            "true" => Side::A,
            "false" => Side::B,
            _ => return Err(wrong("REMOTE_AUTH_ESCR_IS_SIDE_A")),
        };
        if session.contains(|c: char| !c.is_ascii_graphic() || c == ':') {
            return Err(wrong("REMOTE_AUTH_ESCR_SESSION_ID"));
        }
        let signer = ChallengeSigner::new(name, move |text| private.sign(SignatureHash::Sha256, text));
        Ok(RelayAuth::Escr(Arc::new(EscrProver::new(session, side, key, signer))))
    }

    pub(crate) fn keys(&self) -> Result<StreamKeys, String> {
        let key = |aes: &'static str, iv: &'static str| {
            Ok::<_, String>(DirectionKey {
                key: AesKey::from_base64(self.get("--rv-e2ee", aes)?)
                    .map_err(|_| format!("{aes} is no AES-256 key"))?,
                iv: Iv::from_base64(self.get("--rv-e2ee", iv)?).map_err(|_| format!("{iv} is no IV of 16 bytes"))?,
            })
        };
        if self.has("RV_AES_C2D") {
            return Ok(StreamKeys { c2d: key("RV_AES_C2D", "RV_IV_C2D")?, d2c: key("RV_AES_D2C", "RV_IV_D2C")? });
        }
        Ok(StreamKeys::of_single(key("RV_AES", "RV_IV")?))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn secrets(environment: &[(&str, &str)]) -> Secrets {
        let value = |name: &'static str| {
            let (_, value) = environment.iter().find(|(other, _)| *other == name)?;
            Some((name, Zeroizing::new((*value).to_owned())))
        };
        Secrets::of(NAMES.into_iter().filter_map(value))
    }

    const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const IV: &str = "AAAAAAAAAAAAAAAAAAAAAA==";
    const OTHER_IV: &str = "AQAAAAAAAAAAAAAAAAAAAA==";

    #[test]
    fn one_key_or_two() {
        assert!(!secrets(&[("RV_AES", KEY), ("RV_IV", IV)]).keys().unwrap().is_twin());
        let twin = [("RV_AES_C2D", KEY), ("RV_IV_C2D", IV), ("RV_AES_D2C", KEY), ("RV_IV_D2C", OTHER_IV)];
        assert!(secrets(&twin).keys().unwrap().is_twin());
        assert!(secrets(&twin[..3]).keys().is_err(), "half of a pair");
        assert!(secrets(&[("RV_AES", "short"), ("RV_IV", IV)]).keys().is_err());
    }

    #[test]
    fn the_private_key_must_fit_the_public_one() {
        let (one, other) = (RsaPrivateKey::generate().unwrap(), RsaPrivateKey::generate().unwrap());
        let text = |public: &RsaPrivateKey| public.public_key().unwrap().to_base64();
        let (private, good, bad) = (one.to_base64(), text(&one), text(&other));
        let with = |public: &str, side: &str, uri: &str| {
            let environment = [
                ("REMOTE_AUTH_ESCR_SESSION_ID", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"),
                ("REMOTE_AUTH_ESCR_AES_KEY", KEY),
                ("REMOTE_AUTH_ESCR_PUB_KEY_URI", uri),
                ("REMOTE_AUTH_ESCR_SIGNING_PUBKEY", public),
                ("REMOTE_AUTH_ESCR_SIGNING_PRIVKEY", private.as_str()),
                ("REMOTE_AUTH_ESCR_SIGNING_ALGO", "rsa2048"),
                ("REMOTE_AUTH_ESCR_IS_SIDE_A", side),
            ];
            secrets(&environment).auth(None)
        };
        const URI: &str = "public:_apsk.primary.a.__e@device";
        assert!(matches!(with(&good, "false", URI), Ok(RelayAuth::Escr(_))));
        assert!(with(&bad, "false", URI).is_err());
        assert!(with(&good, "maybe", URI).is_err());
        assert!(with(&good, "true", "public:publickey@device").is_err());
    }

    #[test]
    fn a_line_is_one_line() {
        assert!(
            matches!(secrets(&[("RV_AUTH", "{}")]).auth(None), Ok(RelayAuth::Ready(line)) if line.as_str() == "{}\n")
        );
        assert!(secrets(&[("RV_AUTH", "{}\n{}")]).auth(None).is_err());
    }
}
