//! The keys of a device's ssh server, as the device signs and publishes them.
//!
//! Source: docs/protocol/sealed.md, "Host keys".

use std::fmt;

use postern_identity::limits::CLOCK_TOLERANCE_MS;
use postern_identity::{DeviceName, Label, Statement, StatementError, Voucher};
use postern_proto::AtSign;
use serde::{Deserialize, Serialize};

use crate::NAMESPACE;
use crate::limits::{HOST_KEYS, HOST_KEYS_LIFE_MS};
use crate::ssh_key::SshPublicKey;

/// The payload of the statement `postern hostkeys v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostKeys {
    v: u32,
    /// The device's atSign.
    from: String,
    /// Its name.
    device: String,
    /// `known_hosts` form without the host: `ssh-ed25519 AAAA…`.
    keys: Vec<String>,
    /// Milliseconds since 1970.
    iat: u64,
    exp: u64,
}

/// Why published host keys are not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostKeysError {
    /// Not signed by the device's identity key, or not what it should be.
    Statement(StatementError),
    /// Those of another device.
    OtherDevice,
    /// Not yet good, no longer, or for too long.
    Dates,
    /// A key is none, or there are too many.
    Keys,
}

impl HostKeys {
    /// Name of the record that is shared with each manager, without owner and reader.
    #[must_use]
    pub fn record(device: &DeviceName) -> String {
        format!("hostkeys.{device}.{NAMESPACE}")
    }

    /// Those of a device, as of now; the first [`HOST_KEYS`] of `keys`. `now_ms`: since 1970.
    #[must_use]
    pub fn new(from: &AtSign, device: &DeviceName, keys: &[SshPublicKey], now_ms: u64) -> Self {
        Self {
            v: 1,
            from: from.to_string(),
            device: device.to_string(),
            keys: keys.iter().take(HOST_KEYS).map(ToString::to_string).collect(),
            iat: now_ms,
            exp: now_ms.saturating_add(HOST_KEYS_LIFE_MS),
        }
    }

    /// The keys as they were claimed; believed they are after [`Self::verify`] alone.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Checks a published statement. `voucher`: the believed one of the device that is asked for. `now_ms`: since 1970.
    ///
    /// # Errors
    /// See [`HostKeysError`].
    pub fn verify(statement: &Statement, voucher: &Voucher, now_ms: u64) -> Result<Vec<SshPublicKey>, HostKeysError> {
        let said: Self = statement.verify(Label::HostKeys, voucher.key()).map_err(HostKeysError::Statement)?;
        let is_theirs = AtSign::parse(&said.from).as_ref() == Ok(voucher.at_sign())
            && voucher.device().is_some_and(|device| device.as_str() == said.device);
        if said.v != 1 || !is_theirs {
            return Err(HostKeysError::OtherDevice);
        }
        let begun = said.iat <= now_ms.saturating_add(CLOCK_TOLERANCE_MS);
        let over = said.exp.saturating_add(CLOCK_TOLERANCE_MS) <= now_ms;
        if !begun || over || said.exp.saturating_sub(said.iat) > HOST_KEYS_LIFE_MS {
            return Err(HostKeysError::Dates);
        }
        if said.keys.len() > HOST_KEYS {
            return Err(HostKeysError::Keys);
        }
        said.keys.iter().map(|key| SshPublicKey::parse(key).map_err(|_| HostKeysError::Keys)).collect()
    }
}

impl fmt::Display for HostKeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement(error) => write!(f, "the host keys are not signed by the device: {error}"),
            Self::OtherDevice => f.write_str("the host keys are those of another device"),
            Self::Dates => f.write_str("the host keys are not good now; check the clocks of both machines"),
            Self::Keys => f.write_str("a host key cannot be read"),
        }
    }
}

impl std::error::Error for HostKeysError {}

#[cfg(test)]
mod tests {
    use postern_crypto::{Ed25519PrivateKey, RsaPrivateKey};
    use postern_identity::{Expected, VoucherClaim};
    use postern_proto::SigningKeyName;

    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g";

    #[test]
    fn host_keys_are_believed_of_the_device_that_signed_them_while_they_are_good() {
        let owner = AtSign::parse("device").unwrap();
        let [gw17, gw18] = ["gw-17", "gw-18"].map(|name| DeviceName::parse(name).unwrap());
        let (rsa, identity) = (RsaPrivateKey::generate().unwrap(), Ed25519PrivateKey::generate().unwrap());
        let name = SigningKeyName::new(None, &owner).unwrap();
        let text = Voucher::issue(&identity.public_key(), Some(&gw17), &rsa, (&name, &rsa), NOW, 86_400_000).unwrap();
        let expected = Expected { at_sign: &owner, device: Some(&gw17) };
        let claim = VoucherClaim::parse(&text).unwrap();
        let voucher = claim.believe(expected, &rsa.public_key().unwrap(), None, NOW).unwrap();

        let keys = [SshPublicKey::parse(KEY).unwrap()];
        let payload = HostKeys::new(&owner, &gw17, &keys, NOW);
        assert_eq!(
            serde_json::to_string(&payload).unwrap(),
            format!(
                r#"{{"v":1,"from":"@device","device":"gw-17","keys":["{KEY}"],"iat":1800000000000,"exp":1802592000000}}"#
            )
        );
        let signed = |payload: &HostKeys, label| {
            Statement::parse(&Statement::print(label, payload, &identity, Some(&text))).unwrap()
        };
        let verify = |payload: &HostKeys, now| HostKeys::verify(&signed(payload, Label::HostKeys), &voucher, now);
        assert_eq!(verify(&payload, NOW), Ok(keys.to_vec()));
        assert_eq!(verify(&payload, NOW + HOST_KEYS_LIFE_MS), Ok(keys.to_vec()), "the clocks' tolerance");
        let over = NOW + HOST_KEYS_LIFE_MS + CLOCK_TOLERANCE_MS;
        assert_eq!(verify(&payload, over), Err(HostKeysError::Dates));
        assert_eq!(verify(&payload, NOW - CLOCK_TOLERANCE_MS - 1), Err(HostKeysError::Dates));
        assert_eq!(verify(&HostKeys::new(&owner, &gw18, &keys, NOW), NOW), Err(HostKeysError::OtherDevice));
        let garbled = HostKeys { keys: vec!["ssh-ed25519 AAAA\nevil".into()], ..payload.clone() };
        assert_eq!(verify(&garbled, NOW), Err(HostKeysError::Keys));
        let as_reply = signed(&payload, Label::Reply);
        let error = HostKeys::verify(&as_reply, &voucher, NOW);
        assert_eq!(error, Err(HostKeysError::Statement(StatementError::Signature)));
    }
}
