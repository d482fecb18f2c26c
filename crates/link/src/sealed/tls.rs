//! The ends that `postern-seal` makes, as the driver wants them.

use std::time::Duration;

use postern_seal::{ClientEnd, DeviceEnd, SealError, Waiting};

use super::end::{End, EndFault, Facts, Knocking};

impl From<SealError> for EndFault {
    fn from(error: SealError) -> Self {
        Self(Box::new(error))
    }
}

impl From<postern_seal::Facts> for Facts {
    fn from(facts: postern_seal::Facts) -> Self {
        Self { key_exchange: facts.key_exchange.into(), cipher: facts.cipher.into() }
    }
}

impl Knocking for Waiting {
    fn read(&mut self, tls: &[u8]) -> Result<usize, EndFault> {
        Ok(self.read(tls)?)
    }

    fn answered(&self) -> bool {
        self.reply().is_some()
    }
}

impl End for ClientEnd {
    fn read(&mut self, tls: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> Result<usize, EndFault> {
        Ok(self.read(tls, plain)?)
    }

    fn write(&mut self, head: &[u8], body: &[u8], tls: &mut Vec<u8>) -> Result<(), EndFault> {
        Ok(self.write(head, body, tls)?)
    }

    fn flush(&mut self, tls: &mut Vec<u8>) {
        self.flush(tls);
    }

    fn close(&mut self, tls: &mut Vec<u8>) {
        self.close(tls);
    }

    fn closed(&self) -> bool {
        self.closed()
    }

    /// There is no such end before the device has shown who it is.
    fn proven(&self) -> bool {
        true
    }

    fn facts(&self) -> Facts {
        self.facts().into()
    }

    fn resume(&self) -> Option<Duration> {
        Some(self.resume())
    }
}

impl End for DeviceEnd {
    fn read(&mut self, tls: &mut [u8], plain: &mut dyn FnMut(&[u8])) -> Result<usize, EndFault> {
        Ok(self.read(tls, plain)?)
    }

    fn write(&mut self, head: &[u8], body: &[u8], tls: &mut Vec<u8>) -> Result<(), EndFault> {
        Ok(self.write(head, body, tls)?)
    }

    fn flush(&mut self, tls: &mut Vec<u8>) {
        self.flush(tls);
    }

    fn close(&mut self, tls: &mut Vec<u8>) {
        self.close(tls);
    }

    fn closed(&self) -> bool {
        self.closed()
    }

    fn proven(&self) -> bool {
        self.proven()
    }

    fn facts(&self) -> Facts {
        self.facts().into()
    }
}
