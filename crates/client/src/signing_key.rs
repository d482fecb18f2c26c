//! The public record that lets others check what our enrolment's key has signed.

use postern_proto::verb::{Llookup, Lookup, Update};
use postern_proto::{AtSign, Detail, Metadata, Request, SigningKeyName};

use crate::error::ClientError;
use crate::handle::Client;
use crate::limits::SIGNING_KEY_BYTES;

impl Client {
    /// The name under which our signing key is published.
    pub fn signing_key_name(&self) -> Result<SigningKeyName, ClientError> {
        let identity = self.identity();
        SigningKeyName::new(identity.keys.enrollment_id.as_deref(), &identity.at_sign)
            .ok_or(ClientError::Malformed("the enrolment id of our key file"))
    }

    /// Sees to it that the public half of our login key lies in its record, and names the record. One round trip when it
    /// does already, two when not.
    ///
    /// # Errors
    /// The atServer does not let us write it, or another key lies there: nothing that we sign will be believed.
    pub async fn publish_signing_key(&self) -> Result<SigningKeyName, ClientError> {
        let name = self.signing_key_name()?;
        let ours = self.identity().keys.pkam.public_key().map_err(|_| ClientError::Crypto("our login key"))?;
        let ours = ours.to_base64();
        match self.request(Request::Llookup(Llookup::value(name.key()))).await {
            Ok(known) if known == ours => return Ok(name),
            Ok(_) => return Err(ClientError::Malformed("our signing key: another one is published in its place")),
            Err(error) if error.is_no_such_key() => {}
            Err(error) => return Err(error),
        }
        let metadata = Metadata { is_encrypted: Some(false), ..Metadata::default() };
        let update = Update { key: name.key(), metadata: metadata.into(), value: ours };
        self.request(Request::Update(update)).await?;
        Ok(name)
    }

    /// What the record of a peer's signing key says now. `None`: there is no such record, so the enrolment is not active,
    /// or it is longer than [`SIGNING_KEY_BYTES`] and no key.
    pub async fn signing_key_record(&self, name: &SigningKeyName) -> Result<Option<String>, ClientError> {
        let record = self.public_record(name.record(), name.owner()).await?;
        Ok(record.filter(|record| record.len() <= SIGNING_KEY_BYTES))
    }

    /// Whether a peer's enrolment has been revoked or denied: its record has moved. One that was never published is not.
    pub async fn enrollment_has_ended(&self, name: &SigningKeyName) -> Result<bool, ClientError> {
        let [revoked, denied] = name.ended_records().map(|record| self.public_record(record, name.owner()));
        let (revoked, denied) = tokio::join!(revoked, denied);
        Ok(revoked?.is_some() || denied?.is_some())
    }

    async fn public_record(&self, name: String, owner: &AtSign) -> Result<Option<String>, ClientError> {
        let lookup = Lookup { bypass_cache: true, detail: Detail::Value, name, owner: owner.clone() };
        match self.request(Request::Plookup(lookup)).await {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_no_such_key() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
