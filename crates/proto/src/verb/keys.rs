//! `keys`: keys that enrolments leave on their server.
//!
//! `keys:put:⟨group⟩:namespace:⟨ns⟩:…:keyName:⟨name⟩ ⟨value⟩`, `keys:get:keyName:⟨key⟩`,
//! `keys:get:⟨group⟩`, `keys:delete:keyName:⟨key⟩`; a group is `public`, `private` or `self`.

use std::fmt;

use crate::params::Params;
use crate::request::strip_word;
use crate::{AtKey, ProtocolError};

/// What to do with keys of the enrolment that this connection proved.
#[derive(Clone, PartialEq, Eq)]
pub enum Keys {
    /// Keep one.
    Put(Box<KeyPut>),
    /// One by its full name.
    Get(AtKey),
    /// The names of a group.
    List(KeyGroup),
    /// Forget one, by its full name.
    Delete(AtKey),
}

/// A key to be kept. Texts have no `:` and no white space, names are folded.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPut {
    /// Which group.
    pub group: KeyGroup,
    /// The namespace it belongs to.
    pub namespace: String,
    /// Which application; by default the enrolment's.
    pub app_name: Option<String>,
    /// On which device; by default the enrolment's.
    pub device_name: Option<String>,
    /// Its algorithm.
    pub key_type: Option<String>,
    /// Name of the key that encrypted it.
    pub encryption_key_name: Option<String>,
    /// Its short name.
    pub key_name: String,
    /// The key, as the client encrypted it.
    pub value: String,
}

/// Groups of keys of an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyGroup {
    /// `self`
    Own,
    /// `private`
    Private,
    /// `public`
    Public,
}

impl KeyGroup {
    const ALL: [Self; 3] = [Self::Own, Self::Private, Self::Public];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "self",
            Self::Private => "private",
            Self::Public => "public",
        }
    }

    /// Between a key's short name and its namespace.
    pub fn marker(self) -> &'static str {
        match self {
            Self::Own => "__self_keys",
            Self::Private => "__private_keys",
            Self::Public => "__public_keys",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.as_str().eq_ignore_ascii_case(text))
    }
}

impl Keys {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        if let Some(rest) = strip_word(args, "put") {
            return KeyPut::parse(rest).map(|put| Self::Put(Box::new(put)));
        }
        if let Some(rest) = strip_word(args, "delete") {
            let name = strip_word(rest, "keyName").ok_or_else(bad)?;
            return AtKey::parse(name).map(Self::Delete).map_err(|_| bad());
        }
        let rest = strip_word(args, "get").ok_or_else(bad)?;
        if let Some(name) = strip_word(rest, "keyName") {
            return AtKey::parse(name).map(Self::Get).map_err(|_| bad());
        }
        KeyGroup::parse(rest).map(Self::List).ok_or_else(bad)
    }
}

impl KeyPut {
    fn parse(rest: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::invalid_command;
        let (head, value) = rest.split_once(' ').ok_or_else(bad)?;
        let mut params = Params::new(head);
        let group = params.take().and_then(KeyGroup::parse).ok_or_else(bad)?;
        let mut named = [const { None }; 6];
        while let Some(name) = params.take() {
            let value = params.take().filter(|value| !value.is_empty()).ok_or_else(bad)?;
            let known = Self::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
            if let Some(slot) = known.and_then(|at| named.get_mut(at)) {
                *slot = Some(value.to_owned());
            }
        }
        let [namespace, app_name, device_name, key_type, encryption_key_name, key_name] = named;
        let value = value.trim().to_owned();
        if value.is_empty() {
            return Err(bad());
        }
        Ok(Self {
            group,
            namespace: namespace.ok_or_else(bad)?,
            app_name,
            device_name,
            key_type,
            encryption_key_name,
            key_name: key_name.ok_or_else(bad)?,
            value,
        })
    }

    const NAMES: [&'static str; 6] = ["namespace", "appName", "deviceName", "keyType", "encryptionKeyName", "keyName"];
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(put) => put.fmt(f),
            Self::Get(key) => write!(f, "keys:get:keyName:{key}"),
            Self::List(group) => write!(f, "keys:get:{}", group.as_str()),
            Self::Delete(key) => write!(f, "keys:delete:keyName:{key}"),
        }
    }
}

impl fmt::Display for KeyPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys:put:{}", self.group.as_str())?;
        let (namespace, key_name) = (Some(&self.namespace), Some(&self.key_name));
        let values = [
            namespace,
            self.app_name.as_ref(),
            self.device_name.as_ref(),
            self.key_type.as_ref(),
            self.encryption_key_name.as_ref(),
            key_name,
        ];
        for (name, value) in Self::NAMES.iter().zip(values) {
            if let Some(value) = value {
                write!(f, ":{name}:{value}")?;
            }
        }
        write!(f, " {}", self.value)
    }
}

/// Values are keys; only the names are shown.
impl fmt::Debug for KeyPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keys:put:{}:{}", self.group.as_str(), self.key_name)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put(put) => fmt::Debug::fmt(put, f),
            _ => fmt::Display::fmt(self, f),
        }
    }
}
