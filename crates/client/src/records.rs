//! Records: what an atSign keeps for itself, for others, for everybody.

use std::time::Duration;

use postern_crypto::{Iv, SignatureHash, decode_base64, encode_base64};
use postern_proto::verb::{Delete, Llookup, Lookup, Scan, Update};
use postern_proto::{AtKey, AtSign, Detail, Metadata, Request};
use serde_json::Value as Json;
use zeroize::Zeroizing;

use crate::error::ClientError;
use crate::handle::Client;
use crate::sharing::{decrypt, millis};

/// What is told of a record besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordOptions {
    /// The server forgets it after this time.
    pub life: Option<Duration>,
    /// Nobody sees it before this time has passed.
    pub birth: Option<Duration>,
    /// For how long others may keep a copy.
    pub copies: Copies,
    /// Copies vanish with the original.
    pub cascade: Option<bool>,
}

/// For how long the server of whoever reads a record may keep a copy of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Copies {
    /// Not at all.
    #[default]
    Never,
    /// Until it changes.
    UntilChanged,
    /// This long, at least a second.
    For(Duration),
}

/// A record as it was read.
struct Fetched {
    value: String,
    meta: Json,
}

impl RecordOptions {
    fn metadata(&self) -> Metadata {
        Metadata {
            ttl: self.life.map(millis),
            ttb: self.birth.map(millis),
            ttr: match self.copies {
                Copies::Never => None,
                Copies::UntilChanged => Some(-1),
                Copies::For(span) => Some(i64::try_from(span.as_secs().max(1)).unwrap_or(i64::MAX)),
            },
            ccd: self.cascade,
            ..Metadata::default()
        }
    }

    /// Adds what the encryption has to say.
    pub(crate) fn with(&self, sealed: Metadata) -> Metadata {
        let own = self.metadata();
        Metadata { ttl: own.ttl, ttb: own.ttb, ttr: own.ttr, ccd: own.ccd, ..sealed }
    }
}

impl Client {
    /// Publishes `text` under `name` (with namespace), signed with our encryption key.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn put_public(&self, name: &str, text: &str, options: RecordOptions) -> Result<(), ClientError> {
        let signature = self.inner.identity.keys.encryption.sign(SignatureHash::Sha256, text.as_bytes());
        let signature = signature.map_err(|_| ClientError::Crypto("a public record"))?;
        // A value is one line.
        let encoded = text.contains(['\n', '\r']);
        let metadata = options.with(Metadata {
            data_signature: Some(signature),
            is_encrypted: Some(false),
            encoding: encoded.then(|| "base64".into()),
            ..Metadata::default()
        });
        let value = if encoded { encode_base64(text.as_bytes()) } else { text.to_owned() };
        self.put(AtKey::public(name, self.at_sign()), value, metadata).await
    }

    /// Keeps `text` for ourselves under `name` (with namespace), encrypted: every device of this atSign can read it.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn put_own(&self, name: &str, text: &str, options: RecordOptions) -> Result<(), ClientError> {
        let iv = Iv::generate();
        let value = self.inner.identity.keys.self_encryption.encrypt_text(iv, text);
        let value = value.map_err(|_| ClientError::Crypto("a record of our own"))?;
        let sealed = Metadata { is_encrypted: Some(true), iv_nonce: Some(iv.to_base64()), ..Metadata::default() };
        self.put(AtKey::own(name, self.at_sign()), value, options.with(sealed)).await
    }

    /// Writes a record that `peer` alone can read, encrypted.
    ///
    /// # Errors
    /// There is no such peer, or the server's refusal.
    pub async fn put_shared_with(
        &self,
        peer: &AtSign,
        name: &str,
        text: &str,
        options: RecordOptions,
    ) -> Result<(), ClientError> {
        let (value, sealed) = self.seal(peer, text).await?;
        self.put(AtKey::shared(peer, name, self.at_sign()), value, options.with(sealed)).await
    }

    async fn put(&self, key: AtKey, value: String, metadata: Metadata) -> Result<(), ClientError> {
        key.check().map_err(|_| ClientError::Malformed("the name of a record"))?;
        self.request(Request::Update(Update { key, metadata: metadata.into(), value })).await.map(drop)
    }

    /// Reads what `owner` publishes under `name`. A signature that it carries is checked.
    ///
    /// # Errors
    /// There is none ([`ClientError::is_no_such_key`]), or its signature is not the owner's.
    pub async fn get_public(&self, owner: &AtSign, name: &str) -> Result<String, ClientError> {
        let lookup =
            Lookup { bypass_cache: true, detail: Detail::All, name: name.to_lowercase(), owner: owner.clone() };
        let fetched = Fetched::parse(&self.request(Request::Plookup(lookup)).await?)?;
        let text = match fetched.meta_text("encoding") {
            Some("base64") => {
                let bytes = decode_base64(&fetched.value).map_err(|_| ClientError::Malformed("a public record"))?;
                String::from_utf8(bytes).map_err(|_| ClientError::Malformed("a public record"))?
            }
            _ => fetched.value.clone(),
        };
        if let Some(signature) = fetched.meta_text("dataSignature") {
            let key = self.public_key(owner).await?;
            // Some programs sign what stands on the wire.
            let holds = [&text, &fetched.value]
                .into_iter()
                .any(|signed| key.verify(SignatureHash::Sha256, signed.as_bytes(), signature).is_ok());
            if !holds {
                return Err(ClientError::Crypto("the signature of a public record"));
            }
        }
        Ok(text)
    }

    /// Reads what we keep for ourselves under `name`.
    ///
    /// # Errors
    /// There is none, or it does not open with our key.
    pub async fn get_own(&self, name: &str) -> Result<Zeroizing<String>, ClientError> {
        let fetched = self.fetch_own(AtKey::own(name, self.at_sign())).await?;
        if !fetched.is_encrypted() {
            return Ok(Zeroizing::new(fetched.value));
        }
        decrypt(&self.inner.identity.keys.self_encryption, fetched.meta_text("ivNonce"), &fetched.value)
    }

    /// Reads what we wrote for `peer` under `name`.
    ///
    /// # Errors
    /// There is none, or it does not open with the key that we share.
    pub async fn get_sent(&self, peer: &AtSign, name: &str) -> Result<Zeroizing<String>, ClientError> {
        let fetched = self.fetch_own(AtKey::shared(peer, name, self.at_sign())).await?;
        if !fetched.is_encrypted() {
            return Ok(Zeroizing::new(fetched.value));
        }
        let key = self.outgoing_key(peer).await?;
        decrypt(&key, fetched.meta_text("ivNonce"), &fetched.value)
    }

    async fn fetch_own(&self, key: AtKey) -> Result<Fetched, ClientError> {
        let text = self.request(Request::Llookup(Llookup { detail: Detail::All, key })).await?;
        Fetched::parse(&text)
    }

    /// Deletes a record of ours; one that does not exist is fine.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn delete(&self, key: &AtKey) -> Result<(), ClientError> {
        self.request(Request::Delete(Delete::of(key.clone()))).await.map(drop)
    }

    /// Names of our own records that match the expression, which is searched in the whole name; `None`: all.
    ///
    /// # Errors
    /// The server's refusal, or an answer that is no list of names.
    pub async fn scan(&self, regex: Option<&str>) -> Result<Vec<AtKey>, ClientError> {
        self.names(Scan { regex: regex.map(str::to_owned), ..Scan::default() }).await
    }

    /// Names of the records that `peer` shares with us, without our name in front.
    ///
    /// # Errors
    /// As [`Self::scan`].
    pub async fn scan_of(&self, peer: &AtSign, regex: Option<&str>) -> Result<Vec<AtKey>, ClientError> {
        self.names(Scan { other: Some(peer.clone()), regex: regex.map(str::to_owned), ..Scan::default() }).await
    }

    async fn names(&self, scan: Scan) -> Result<Vec<AtKey>, ClientError> {
        let text = self.request(Request::Scan(scan)).await?;
        let names: Vec<String> = serde_json::from_str(&text).map_err(|_| ClientError::Malformed("a list of names"))?;
        // Names that are newer than we are cannot be asked for by us anyway.
        Ok(names.iter().filter_map(|name| AtKey::parse(name).ok()).collect())
    }
}

impl Fetched {
    /// Reads the answer to `lookup:all`. A record that is not born yet or has expired counts as none.
    fn parse(text: &str) -> Result<Self, ClientError> {
        if text == "null" {
            return Err(ClientError::Inactive);
        }
        let malformed = || ClientError::Malformed("a record");
        let json: Json = serde_json::from_str(text).map_err(|_| malformed())?;
        let value = json.get("data").and_then(Json::as_str).ok_or_else(malformed)?.to_owned();
        Ok(Self { value, meta: json.get("metaData").cloned().unwrap_or_default() })
    }

    fn meta_text(&self, name: &str) -> Option<&str> {
        self.meta.get(name).and_then(Json::as_str)
    }

    fn is_encrypted(&self) -> bool {
        self.meta.get("isEncrypted").and_then(Json::as_bool) != Some(false)
    }
}
