//! What is known of a record besides its value.

use std::fmt;

/// Metadata of a record or notification. Absent means "not given".
///
/// Source: the update grammar of the atProtocol. Times: `ttl` and `ttb` in
/// milliseconds, `ttr` in **seconds** (−1: cache for ever).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Time to live in milliseconds; 0 means none.
    pub ttl: Option<i64>,
    /// Time to birth in milliseconds.
    pub ttb: Option<i64>,
    /// Time to refresh in seconds; −1 caches for ever.
    pub ttr: Option<i64>,
    /// Delete cached copies when the original goes.
    pub ccd: Option<bool>,
    /// Base64 signature of the plain value.
    pub data_signature: Option<String>,
    /// Free text.
    pub shared_key_status: Option<String>,
    /// The value is not text.
    pub is_binary: Option<bool>,
    /// The value is ciphertext.
    pub is_encrypted: Option<bool>,
    /// Base64 of the AES key, encrypted to the recipient.
    pub shared_key_enc: Option<String>,
    /// Hex MD5 of the recipient's public key text.
    pub pub_key_cs: Option<String>,
    /// Hash of the recipient's public key text; newer programs send it beside or instead of `pub_key_cs`.
    pub pub_key_hash: Option<String>,
    /// The algorithm of `pub_key_hash`: `sha256`, `sha512`.
    pub hashing_algo: Option<String>,
    /// `base64` when the value contained line breaks.
    pub encoding: Option<String>,
    /// Name of the symmetric key.
    pub enc_key_name: Option<String>,
    /// Algorithm of the value.
    pub enc_algo: Option<String>,
    /// Base64 of the 16-byte initial counter block.
    pub iv_nonce: Option<String>,
    /// Key that encrypted `shared_key_enc`.
    pub ske_enc_key_name: Option<String>,
    /// Algorithm of `shared_key_enc`.
    pub ske_enc_algo: Option<String>,
    /// Written once: until it expires the record can be neither written again nor, without force, deleted.
    pub immutable: Option<bool>,
    /// What an application keeps beside the value, in its own encoding.
    pub app_metadata: Option<String>,
}

/// What an update says about metadata: values to set and names to clear.
/// The literal value `null` clears, everything not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataChange {
    /// Values given.
    pub set: Metadata,
    /// Names given with the value `null`.
    pub clear: Vec<&'static str>,
}

/// A known metadata name came with a value outside its range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMetadata {
    /// Which.
    pub name: &'static str,
}

/// Where a field's value lives.
enum Slot<'a> {
    Int(&'a mut Option<i64>),
    Flag(&'a mut Option<bool>),
    Text(&'a mut Option<String>),
}

/// Every name in the order the reference insists on when it reads.
const NAMES: [&str; 20] = [
    "ttl",
    "ttb",
    "ttr",
    "ccd",
    "dataSignature",
    "sharedKeyStatus",
    "isBinary",
    "isEncrypted",
    "sharedKeyEnc",
    "pubKeyCS",
    "pubKeyHash",
    "hashingAlgo",
    "encoding",
    "encKeyName",
    "encAlgo",
    "ivNonce",
    "skeEncKeyName",
    "skeEncAlgo",
    "immutable",
    "appMetadata",
];

impl Metadata {
    fn slot(&mut self, name: &str) -> Option<Slot<'_>> {
        Some(match name {
            "ttl" => Slot::Int(&mut self.ttl),
            "ttb" => Slot::Int(&mut self.ttb),
            "ttr" => Slot::Int(&mut self.ttr),
            "ccd" => Slot::Flag(&mut self.ccd),
            "dataSignature" => Slot::Text(&mut self.data_signature),
            "sharedKeyStatus" => Slot::Text(&mut self.shared_key_status),
            "isBinary" => Slot::Flag(&mut self.is_binary),
            "isEncrypted" => Slot::Flag(&mut self.is_encrypted),
            "sharedKeyEnc" => Slot::Text(&mut self.shared_key_enc),
            "pubKeyCS" => Slot::Text(&mut self.pub_key_cs),
            "pubKeyHash" => Slot::Text(&mut self.pub_key_hash),
            "hashingAlgo" => Slot::Text(&mut self.hashing_algo),
            "encoding" => Slot::Text(&mut self.encoding),
            "encKeyName" => Slot::Text(&mut self.enc_key_name),
            "encAlgo" => Slot::Text(&mut self.enc_algo),
            "ivNonce" => Slot::Text(&mut self.iv_nonce),
            "skeEncKeyName" => Slot::Text(&mut self.ske_enc_key_name),
            "skeEncAlgo" => Slot::Text(&mut self.ske_enc_algo),
            "immutable" => Slot::Flag(&mut self.immutable),
            "appMetadata" => Slot::Text(&mut self.app_metadata),
            _ => return None,
        })
    }

    /// The known name equal to `text` but for case, or the one that it was called before.
    pub fn known(text: &str) -> Option<&'static str> {
        let text = match text {
            "hash" => "pubKeyHash",
            "algo" => "hashingAlgo",
            text => text,
        };
        NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(text))
    }

    /// Sets a known name from its wire text.
    pub fn set(&mut self, name: &'static str, value: &str) -> Result<(), BadMetadata> {
        let bad = Err(BadMetadata { name });
        match self.slot(name) {
            Some(Slot::Int(slot)) => match value.parse::<i64>() {
                Ok(n) if n >= if name == "ttr" { -1 } else { 0 } && !value.starts_with('+') => *slot = Some(n),
                _ => return bad,
            },
            Some(Slot::Flag(slot)) => {
                *slot = Some(if value.eq_ignore_ascii_case("true") {
                    true
                } else if value.eq_ignore_ascii_case("false") {
                    false
                } else {
                    return bad;
                });
            }
            Some(Slot::Text(slot)) => *slot = Some(value.to_owned()),
            None => return bad,
        }
        Ok(())
    }

    fn clear(&mut self, name: &str) {
        match self.slot(name) {
            Some(Slot::Int(slot)) => *slot = None,
            Some(Slot::Flag(slot)) => *slot = None,
            Some(Slot::Text(slot)) => *slot = None,
            None => {}
        }
    }

    /// Every field that has a value, with its wire name and text, in wire order.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let mut copy = self.clone();
        let mut entries = Vec::new();
        for name in NAMES {
            let text = match copy.slot(name) {
                Some(Slot::Int(n)) => n.map(|n| n.to_string()),
                Some(Slot::Flag(b)) => b.map(|b| b.to_string()),
                Some(Slot::Text(t)) => t.take(),
                None => None,
            };
            entries.extend(text.map(|text| (name, text)));
        }
        entries
    }

    /// Merges a change as `update` does: given values replace, `null` clears, the rest stays.
    pub fn apply(&mut self, change: &MetadataChange) {
        for name in &change.clear {
            self.clear(name);
        }
        for (name, value) in change.set.entries() {
            // Entries print what `set` accepts; there is nothing to refuse.
            let _ = self.set(name, &value);
        }
    }
}

impl MetadataChange {
    /// Takes one `name:value` pair of a request. Of a name given twice the last counts.
    pub fn take(&mut self, name: &'static str, value: &str) -> Result<(), BadMetadata> {
        if value == "null" {
            self.set.clear(name);
            self.clear.push(name);
            return Ok(());
        }
        self.clear.retain(|cleared| *cleared != name);
        self.set.set(name, value)
    }
}

impl From<Metadata> for MetadataChange {
    fn from(set: Metadata) -> Self {
        Self { set, clear: Vec::new() }
    }
}

/// Prints `:name:value` for each field, in the order the reference reads.
impl fmt::Display for MetadataChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.set.entries() {
            write!(f, ":{name}:{value}")?;
        }
        for name in &self.clear {
            write!(f, ":{name}:null")?;
        }
        Ok(())
    }
}
