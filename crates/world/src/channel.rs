//! What seals the bytes between two ends: the record layer that ships, with keys of the session and the epoch.

use postern_crypto::AeadAlgorithm;
use postern_seal::{RecordError, Records};
use postern_streams::Side;

use crate::Traitor;

/// One end's record layer.
pub(crate) struct Channel {
    records: Records,
    /// Traitors' directions: bytes as they are.
    unsealed_in: bool,
    unsealed_out: bool,
}

/// Keys of the two directions of a connection, the client's first.
pub(crate) type Keys = [[u8; 32]; 2];

impl Channel {
    pub(crate) fn new(side: Side, keys: &Keys, cipher: AeadAlgorithm, traitor: Option<Traitor>) -> Self {
        let [to_device, to_client] = keys;
        let (sealing, opening) = if side == Side::Client { (to_device, to_client) } else { (to_client, to_device) };
        let client_is_open = traitor == Some(Traitor::ClientReadsUnsealed);
        let device_is_open = traitor == Some(Traitor::DeviceReadsUnsealed);
        let (own, other) =
            if side == Side::Client { (client_is_open, device_is_open) } else { (device_is_open, client_is_open) };
        let records = Records::danger_with_keys(cipher, sealing, opening).expect("keys of 32 bytes");
        Self { records, unsealed_in: own, unsealed_out: other }
    }

    pub(crate) fn write(&mut self, head: &[u8], body: &[u8], wire: &mut Vec<u8>) {
        if self.unsealed_out {
            wire.extend_from_slice(head);
            wire.extend_from_slice(body);
            return;
        }
        self.records.write(head, body, wire).expect("a schedule is too short to wear out a key");
    }

    /// Takes what is whole out of `input`.
    pub(crate) fn read(&mut self, input: &mut Vec<u8>) -> Result<Vec<u8>, RecordError> {
        if self.unsealed_in {
            return Ok(std::mem::take(input));
        }
        let mut plain = Vec::new();
        let taken = self.records.read(input, &mut |piece| plain.extend_from_slice(piece));
        input.drain(..*taken.as_ref().unwrap_or(&0));
        // What came before a bad record was good, but nobody acts on a connection that has a lie in it.
        taken.map(|_| plain)
    }
}
