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
use crate::limits::{NOTIFICATION_LIFE, PEERS, PUBLIC_KEY_AGE};

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
    /// The same key encrypted to the peer, and the peer's public key it was encrypted to.
    ///
    /// It travels with everything we send, so that the peer has nothing to look up; and it is made here rather than
    /// read from `@peer:shared_key@me`, which another process of ours may have written for a key of its own.
    for_peer: Mutex<(RsaPublicKey, String)>,
}

impl OutgoingKey {
    fn new(key: AesKey, to: RsaPublicKey) -> Result<Self, ClientError> {
        let sealed = to.encrypt_aes_key(&key).map_err(|_| ClientError::Crypto("a shared key"))?;
        Ok(Self { key, for_peer: Mutex::new((to, sealed)) })
    }

    /// The key as `to` can open it. The peer's public key changes when it is activated anew.
    fn sealed_to(&self, to: Option<RsaPublicKey>) -> Result<String, ClientError> {
        let mut for_peer = lock(&self.for_peer);
        if let Some(to) = to.filter(|to| *to != for_peer.0) {
            let sealed = to.encrypt_aes_key(&self.key).map_err(|_| ClientError::Crypto("a shared key"))?;
            *for_peer = (to, sealed);
        }
        Ok(for_peer.1.clone())
    }
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
        remember(&mut lock(cache), peer, (Instant::now(), key.clone()));
        Ok(key)
    }

    /// Fetches or makes the key to `peer`, so that the first notification does not wait for it.
    pub async fn prepare(&self, peer: &AtSign) -> Result<(), ClientError> {
        self.seal(peer, "").await.map(drop)
    }

    /// Encrypts `text` to `peer`: base64, and the metadata that opens it.
    pub(crate) async fn seal(&self, peer: &AtSign, text: &str) -> Result<(String, Metadata), ClientError> {
        let cell = self.outgoing_cell(peer);
        let outgoing = cell.get_or_try_init(|| self.find_or_make_key(peer)).await?;
        let latest = lock(&self.inner.sharing.public).get(peer).map(|(_, key)| key.clone());
        let iv = Iv::generate();
        let value = outgoing.key.encrypt_text(iv, text).map_err(|_| ClientError::Crypto("a value"))?;
        let metadata = Metadata {
            is_encrypted: Some(true),
            shared_key_enc: Some(outgoing.sealed_to(latest)?),
            iv_nonce: Some(iv.to_base64()),
            ..Metadata::default()
        };
        Ok((value, metadata))
    }

    /// The key that we encrypt to `peer` with.
    pub(crate) async fn outgoing_key(&self, peer: &AtSign) -> Result<AesKey, ClientError> {
        let cell = self.outgoing_cell(peer);
        Ok(cell.get_or_try_init(|| self.find_or_make_key(peer)).await?.key.clone())
    }

    fn outgoing_cell(&self, peer: &AtSign) -> Arc<OnceCell<OutgoingKey>> {
        let mut cells = lock(&self.inner.sharing.outgoing);
        if let Some(known) = cells.get(peer) {
            return Arc::clone(known);
        }
        let fresh = Arc::default();
        remember(&mut cells, peer, Arc::clone(&fresh));
        fresh
    }

    async fn find_or_make_key(&self, peer: &AtSign) -> Result<OutgoingKey, ClientError> {
        let me = self.at_sign();
        let ours = AtKey::own(&format!("shared_key.{}", peer.body()), me);
        let own_copy = self.request(Request::Llookup(Llookup::value(ours.clone())));
        let (own_copy, to) = tokio::join!(own_copy, self.public_key(peer));
        let to = to?;
        match own_copy {
            Ok(own_copy) => {
                // A copy that our present key cannot open dates from before a new activation.
                if let Ok(key) = self.inner.identity.keys.encryption.decrypt_aes_key(&own_copy) {
                    return OutgoingKey::new(key, to);
                }
            }
            Err(error) if error.is_no_such_key() => {}
            Err(error) => return Err(error),
        }
        let key = AesKey::generate();
        let for_us = self.inner.identity.keys.encryption_public.encrypt_aes_key(&key);
        let for_us = for_us.map_err(|_| ClientError::Crypto("a shared key"))?;
        let made = OutgoingKey::new(key, to)?;
        let update = |key: AtKey, value: String| {
            let metadata = Metadata { is_encrypted: Some(false), ..Metadata::default() };
            self.request(Request::Update(Update { key, metadata: metadata.into(), value }))
        };
        let theirs = AtKey::shared(peer, "shared_key", me);
        let (a, b) = tokio::join!(update(ours, for_us), update(theirs, made.sealed_to(None)?));
        a.and(b)?;
        Ok(made)
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
        remember(&mut lock(cache), peer, (sealed, key.clone()));
        Ok(key)
    }

    /// Sends `text` to `peer`, who may be we ourselves, under `name` (with namespace), encrypted.
    /// `ttl`: life of the record it speaks of.
    pub async fn notify(
        &self,
        peer: &AtSign,
        name: &str,
        text: &str,
        ttl: Option<Duration>,
    ) -> Result<(), ClientError> {
        if peer == self.at_sign() {
            return self.notify_own(name, text, NOTIFICATION_LIFE).await.map(drop);
        }
        let (value, metadata) = self.seal(peer, text).await?;
        self.send_notification(peer, name, value, metadata, ttl).await
    }

    /// The same with a key made for this notification alone, which travels with it, encrypted to `to`, the peer's public
    /// key that the caller knows already. Nothing has to be looked up or written before, and nothing is remembered.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn notify_once(
        &self,
        peer: &AtSign,
        to: &RsaPublicKey,
        name: &str,
        text: &str,
        ttl: Option<Duration>,
    ) -> Result<(), ClientError> {
        let (key, iv) = (AesKey::generate(), Iv::generate());
        let value = key.encrypt_text(iv, text).map_err(|_| ClientError::Crypto("a value"))?;
        let metadata = Metadata {
            is_encrypted: Some(true),
            shared_key_enc: Some(to.encrypt_aes_key(&key).map_err(|_| ClientError::Crypto("a key"))?),
            iv_nonce: Some(iv.to_base64()),
            ..Metadata::default()
        };
        self.send_notification(peer, name, value, metadata, ttl).await
    }

    async fn send_notification(
        &self,
        peer: &AtSign,
        name: &str,
        value: String,
        metadata: Metadata,
        ttl: Option<Duration>,
    ) -> Result<(), ClientError> {
        let id = NotificationId::from(Uuid::from_random(postern_crypto::random()));
        let mut notify = Notify::update(id, peer, name, self.at_sign(), Some(value));
        notify.ttln = Some(millis(NOTIFICATION_LIFE));
        notify.metadata = Metadata { ttl: ttl.map(millis), ..metadata }.into();
        self.request(Request::Notify(Box::new(notify))).await.map(drop)
    }

    /// The text of a notification.
    pub async fn open(&self, push: &Notification) -> Result<Zeroizing<String>, ClientError> {
        let value = push.value.as_deref().ok_or(ClientError::Malformed("a notification without a value"))?;
        if !push.is_encrypted {
            return Ok(Zeroizing::new(value.to_owned()));
        }
        let sealed = push.metadata.shared_key_enc.as_deref();
        if push.from == *self.at_sign() && sealed.is_none() {
            let own = &self.inner.identity.keys.self_encryption;
            return decrypt(own, push.metadata.iv_nonce.as_deref(), value);
        }
        let key = self.incoming_key(&push.from, sealed).await?;
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
        let (value, metadata) = self.seal(peer, text).await?;
        let metadata = Metadata { ttl: ttl.map(millis), ttr: Some(-1), ccd: Some(true), ..metadata };
        let key = AtKey::shared(peer, name, self.at_sign());
        self.request(Request::Update(Update { key, metadata: metadata.into(), value })).await.map(drop)
    }

    /// Deletes a record shared with `peer`; one that does not exist is fine.
    pub async fn delete_shared(&self, peer: &AtSign, name: &str) -> Result<(), ClientError> {
        let key = AtKey::shared(peer, name, self.at_sign());
        self.request(Request::Delete(Delete::of(key))).await.map(drop)
    }

    /// Reads a record that `peer` shares with us.
    pub async fn get_shared(&self, peer: &AtSign, name: &str) -> Result<Zeroizing<String>, ClientError> {
        let malformed = || ClientError::Malformed("a record of the peer");
        let lookup = Lookup { bypass_cache: true, detail: Detail::All, name: name.to_lowercase(), owner: peer.clone() };
        let text = self.request(Request::Lookup(lookup)).await?;
        let json: Json = serde_json::from_str(&text).map_err(|_| malformed())?;
        let value = json.get("data").and_then(Json::as_str).ok_or_else(malformed)?;
        let meta = |name: &str| json.get("metaData").and_then(|m| m.get(name));
        let meta_text = |name: &str| meta(name).and_then(Json::as_str);
        if meta("isEncrypted").and_then(Json::as_bool) == Some(false) {
            return Ok(Zeroizing::new(value.to_owned()));
        }
        let key = self.incoming_key(peer, meta_text("sharedKeyEnc")).await?;
        decrypt(&key, meta_text("ivNonce"), value)
    }
}

pub(crate) fn decrypt(key: &AesKey, iv: Option<&str>, value: &str) -> Result<Zeroizing<String>, ClientError> {
    let iv = iv.map_or(Ok(Iv::ZERO), Iv::from_base64);
    iv.and_then(|iv| key.decrypt_text(iv, value)).map_err(|_| ClientError::Crypto("a value of the peer"))
}

pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Keeps a key; when there are too many, all are forgotten and asked for again as they are needed.
fn remember<T>(cache: &mut HashMap<AtSign, T>, peer: &AtSign, value: T) {
    if cache.len() >= PEERS {
        cache.clear();
    }
    cache.insert(peer.clone(), value);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
