//! Encrypted records and notifications: the keys that two atSigns share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postern_crypto::{AesKey, Iv, RsaPublicKey};
use postern_proto::verb::{Delete, Llookup, Lookup, Notify, Update};
use postern_proto::{AtKey, AtSign, Detail, Metadata, Notification, NotificationId, Request, Uuid};
use serde_json::Value as Json;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::error::ClientError;
use crate::handle::Client;
use crate::limits::{NOTIFICATION_LIFE, PUBLIC_KEY_AGE};

/// Keys this process has seen. Nothing of it is written to disk.
#[derive(Default)]
pub(crate) struct Sharing {
    outgoing: Mutex<HashMap<AtSign, Arc<OnceCell<OutgoingKey>>>>,
    incoming: Mutex<HashMap<AtSign, (String, AesKey)>>,
    public: Mutex<HashMap<AtSign, (Instant, RsaPublicKey)>>,
}

/// What we encrypt to one peer with.
struct OutgoingKey {
    key: AesKey,
    /// The same key encrypted to the peer; travels with notifications so that the
    /// peer has nothing to look up.
    for_peer: String,
}

impl Client {
    /// The public encryption key of `peer`, at most a minute old.
    pub async fn public_key(&self, peer: &AtSign) -> Result<RsaPublicKey, ClientError> {
        let cache = &self.inner.sharing.public;
        let found = lock(cache).get(peer).filter(|(at, _)| at.elapsed() < PUBLIC_KEY_AGE).map(|(_, key)| key.clone());
        if let Some(key) = found {
            return Ok(key);
        }
        let lookup =
            Lookup { bypass_cache: true, detail: Detail::Value, name: "publickey".into(), owner: peer.clone() };
        let text = self.request(Request::Plookup(lookup)).await?;
        let key = RsaPublicKey::from_base64(&text).map_err(|_| ClientError::Malformed("the peer's public key"))?;
        lock(cache).insert(peer.clone(), (Instant::now(), key.clone()));
        Ok(key)
    }

    /// Fetches or makes the key to `peer`, so that the first notification does not wait for it.
    pub async fn prepare(&self, peer: &AtSign) -> Result<(), ClientError> {
        self.with_outgoing(peer, |_| ()).await
    }

    async fn with_outgoing<T>(&self, peer: &AtSign, f: impl FnOnce(&OutgoingKey) -> T) -> Result<T, ClientError> {
        let cell = Arc::clone(lock(&self.inner.sharing.outgoing).entry(peer.clone()).or_default());
        Ok(f(cell.get_or_try_init(|| self.find_or_make_key(peer)).await?))
    }

    async fn find_or_make_key(&self, peer: &AtSign) -> Result<OutgoingKey, ClientError> {
        let me = self.at_sign();
        let ours = AtKey::own(&format!("shared_key.{}", peer.body()), me);
        let theirs = AtKey::shared(peer, "shared_key", me);
        let ask = |key: &AtKey| self.request(Request::Llookup(Llookup::value(key.clone())));
        let (own_copy, peer_copy) = tokio::join!(ask(&ours), ask(&theirs));
        match (own_copy, peer_copy) {
            (Ok(own_copy), Ok(for_peer)) => {
                // A copy that our present key cannot open dates from before a new activation.
                if let Ok(key) = self.inner.identity.keys.encryption.decrypt_aes_key(&own_copy) {
                    return Ok(OutgoingKey { key, for_peer });
                }
            }
            (Err(error), _) | (_, Err(error)) if !error.is_no_such_key() => return Err(error),
            _ => {}
        }
        let failed = |_| ClientError::Crypto("a shared key");
        let key = AesKey::generate();
        let for_peer = self.public_key(peer).await?.encrypt_aes_key(&key).map_err(failed)?;
        let for_us = self.inner.identity.keys.encryption_public.encrypt_aes_key(&key).map_err(failed)?;
        let update = |key: AtKey, value: String| {
            let metadata = Metadata { is_encrypted: Some(false), ..Metadata::default() };
            self.request(Request::Update(Update { key, metadata: metadata.into(), value }))
        };
        let (a, b) = tokio::join!(update(ours, for_us), update(theirs, for_peer.clone()));
        a.and(b)?;
        Ok(OutgoingKey { key, for_peer })
    }

    /// The key that `peer` encrypts to us with. `sealed`: as it came with the data.
    async fn incoming_key(&self, peer: &AtSign, sealed: Option<&str>) -> Result<AesKey, ClientError> {
        let cache = &self.inner.sharing.incoming;
        let known = lock(cache).get(peer).filter(|(text, _)| sealed.is_none_or(|s| s == text)).map(|(_, k)| k.clone());
        if let Some(key) = known {
            return Ok(key);
        }
        let sealed = match sealed {
            Some(text) => text.to_owned(),
            None => {
                let lookup = Lookup {
                    bypass_cache: false,
                    detail: Detail::Value,
                    name: "shared_key".into(),
                    owner: peer.clone(),
                };
                self.request(Request::Lookup(lookup)).await?
            }
        };
        let key = self.inner.identity.keys.encryption.decrypt_aes_key(&sealed);
        let key = key.map_err(|_| ClientError::Crypto("the key that the peer shares with us"))?;
        lock(cache).insert(peer.clone(), (sealed, key.clone()));
        Ok(key)
    }

    /// Sends `text` to `peer` under `name` (with namespace), encrypted. `ttl`: life of the record it speaks of.
    pub async fn notify(
        &self,
        peer: &AtSign,
        name: &str,
        text: &str,
        ttl: Option<Duration>,
    ) -> Result<(), ClientError> {
        let iv = Iv::generate();
        let sealed =
            self.with_outgoing(peer, |k| k.key.encrypt_text(iv, text).map(|v| (v, k.for_peer.clone()))).await?;
        let (value, shared_key_enc) = sealed.map_err(|_| ClientError::Crypto("a notification"))?;
        let id = NotificationId::from(Uuid::from_random(postern_crypto::random()));
        let mut notify = Notify::update(id, peer, name, self.at_sign(), Some(value));
        notify.ttln = Some(millis(NOTIFICATION_LIFE));
        notify.metadata = Metadata {
            ttl: ttl.map(millis),
            is_encrypted: Some(true),
            shared_key_enc: Some(shared_key_enc),
            iv_nonce: Some(iv.to_base64()),
            ..Metadata::default()
        }
        .into();
        self.request(Request::Notify(Box::new(notify))).await.map(drop)
    }

    /// The text of a notification.
    pub async fn open(&self, push: &Notification) -> Result<Zeroizing<String>, ClientError> {
        let value = push.value.as_deref().ok_or(ClientError::Malformed("a notification without a value"))?;
        if !push.is_encrypted {
            return Ok(Zeroizing::new(value.to_owned()));
        }
        let key = self.incoming_key(&push.from, push.metadata.shared_key_enc.as_deref()).await?;
        decrypt(&key, push.metadata.iv_nonce.as_deref(), value)
    }

    /// Writes a record for `peer`, kept there until deleted.
    pub async fn put_shared(
        &self,
        peer: &AtSign,
        name: &str,
        text: &str,
        ttl: Option<Duration>,
    ) -> Result<(), ClientError> {
        let iv = Iv::generate();
        let value = self.with_outgoing(peer, |k| k.key.encrypt_text(iv, text)).await?;
        let value = value.map_err(|_| ClientError::Crypto("a record"))?;
        let metadata = Metadata {
            ttl: ttl.map(millis),
            ttr: Some(-1),
            ccd: Some(true),
            is_encrypted: Some(true),
            iv_nonce: Some(iv.to_base64()),
            ..Metadata::default()
        };
        let key = AtKey::shared(peer, name, self.at_sign());
        self.request(Request::Update(Update { key, metadata: metadata.into(), value })).await.map(drop)
    }

    /// Deletes a record shared with `peer`; one that does not exist is fine.
    pub async fn delete_shared(&self, peer: &AtSign, name: &str) -> Result<(), ClientError> {
        let key = AtKey::shared(peer, name, self.at_sign());
        self.request(Request::Delete(Delete { key })).await.map(drop)
    }

    /// Reads a record that `peer` shares with us.
    pub async fn get_shared(&self, peer: &AtSign, name: &str) -> Result<Zeroizing<String>, ClientError> {
        let malformed = || ClientError::Malformed("a record of the peer");
        let lookup = Lookup { bypass_cache: true, detail: Detail::All, name: name.to_lowercase(), owner: peer.clone() };
        let (text, key) = tokio::join!(self.request(Request::Lookup(lookup)), self.incoming_key(peer, None));
        let json: Json = serde_json::from_str(&text?).map_err(|_| malformed())?;
        let value = json.get("data").and_then(Json::as_str).ok_or_else(malformed)?;
        let meta = |name: &str| json.get("metaData").and_then(|m| m.get(name));
        if meta("isEncrypted").and_then(Json::as_bool) == Some(false) {
            return Ok(Zeroizing::new(value.to_owned()));
        }
        decrypt(&key?, meta("ivNonce").and_then(Json::as_str), value)
    }
}

fn decrypt(key: &AesKey, iv: Option<&str>, value: &str) -> Result<Zeroizing<String>, ClientError> {
    let iv = iv.map_or(Ok(Iv::ZERO), Iv::from_base64);
    iv.and_then(|iv| key.decrypt_text(iv, value)).map_err(|_| ClientError::Crypto("a value of the peer"))
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
