//! What a guest shows at a relay's port: by itself it says who meets whom, and is signed by the guest's identity key.
//!
//! A line `ticket:<base64>`; the base64 holds a [`Statement`] under [`Label::Ticket`] with the voucher of its key. The
//! relay needs no word from anybody before it. Source: docs/protocol/sealed.md "Relay: tickets".

use std::fmt;

use base64ct::{Base64, Encoding};
use postern_crypto::{Ed25519PrivateKey, Ed25519PublicKey, RsaPublicKey, encode_base64, sha256};
use postern_identity::limits::CLOCK_TOLERANCE_MS;
use postern_identity::{Expected, Label, Statement, StatementError, Voucher, VoucherClaim, VoucherError};
use postern_proto::{AtSign, SigningKeyName, Uuid};
use serde::{Deserialize, Serialize};

use crate::limits::{AUTH_LINE_BYTES, TICKET_LIFE_MS};
use crate::meeting::Side;
use crate::refusal::{Refusal, RefusalCode};

/// Where a ticket leads: which relay, which session, which side of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TicketTo {
    /// The relay.
    pub relay: AtSign,
    /// The session.
    pub session: Uuid,
    /// 0, and one more each time the session goes on over new sockets.
    pub epoch: u32,
    /// A is the client.
    pub side: Side,
    /// The client's atSign.
    pub client: AtSign,
    /// The device's atSign.
    pub device: AtSign,
}

/// A ticket that was believed: only [`TicketClaim::verify`] makes one.
#[derive(Debug)]
pub struct Ticket {
    to: TicketTo,
    key: Ed25519PublicKey,
    mark: Mark,
}

/// What is remembered of a ticket so that it is good once: until when, and a hash that nobody else's ticket has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Nobody believes the ticket from this moment on; since 1970.
    pub(crate) over_ms: u64,
    pub(crate) hash: [u8; 16],
}

/// A ticket as it came: read, not yet believed.
pub struct TicketClaim {
    statement: Statement,
    voucher: VoucherClaim,
    to: TicketTo,
    iat: u64,
    exp: u64,
}

/// In this order on the wire.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Payload {
    v: u32,
    relay: String,
    session_id: String,
    epoch: u32,
    side: String,
    at_sign_a: String,
    at_sign_b: String,
    iat: u64,
    exp: u64,
    nonce: String,
}

const PREFIX: &str = "ticket:";

impl TicketTo {
    /// Whose identity key signs.
    #[must_use]
    pub fn signer(&self) -> &AtSign {
        match self.side {
            Side::A => &self.client,
            Side::B => &self.device,
        }
    }

    /// Who is to be met.
    #[must_use]
    pub fn other(&self) -> &AtSign {
        match self.side {
            Side::A => &self.device,
            Side::B => &self.client,
        }
    }
}

impl Ticket {
    /// The line to send, with its newline. `key`: the identity key of the side's atSign, for which `voucher` vouches.
    /// `now_ms`: since 1970. `nonce`: random, for this ticket alone. Who has the line can use it, once: do not log it.
    #[must_use]
    pub fn make(to: &TicketTo, key: &Ed25519PrivateKey, voucher: &str, now_ms: u64, nonce: [u8; 16]) -> String {
        let payload = Payload {
            v: 1,
            relay: to.relay.to_string(),
            session_id: to.session.to_string(),
            epoch: to.epoch,
            side: to.side.letter().to_owned(),
            at_sign_a: to.client.to_string(),
            at_sign_b: to.device.to_string(),
            iat: now_ms,
            exp: now_ms.saturating_add(TICKET_LIFE_MS),
            nonce: encode_base64(&nonce),
        };
        let text = Statement::print(Label::Ticket, &payload, key, Some(voucher));
        format!("{PREFIX}{}\n", encode_base64(text.as_bytes()))
    }

    /// Where it leads.
    #[must_use]
    pub fn to(&self) -> &TicketTo {
        &self.to
    }

    /// The identity key that signed it.
    #[must_use]
    pub fn key(&self) -> &Ed25519PublicKey {
        &self.key
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    /// For tests of what comes behind the check.
    #[cfg(test)]
    pub(crate) fn believed(to: TicketTo, key: Ed25519PublicKey, mark: Mark) -> Self {
        Self { to, key, mark }
    }
}

impl TicketClaim {
    /// Whether a line that begins like this may be a ticket.
    #[must_use]
    pub fn begins(first: u8) -> bool {
        PREFIX.as_bytes().first() == Some(&first)
    }

    /// Reads a line, with or without its newline.
    ///
    /// # Errors
    /// [`RefusalCode::BadTicket`].
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        let bad = |_| refusal(RefusalCode::BadTicket, "the ticket cannot be read");
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        if line.len() > AUTH_LINE_BYTES {
            return Err(bad(()));
        }
        let text = line.strip_prefix(PREFIX.as_bytes()).ok_or_else(|| bad(()))?;
        let text = std::str::from_utf8(text).map_err(|_| bad(()))?;
        let text = Base64::decode_vec(text).map_err(|_| bad(()))?;
        let text = String::from_utf8(text).map_err(|_| bad(()))?;
        let statement = Statement::parse(&text).map_err(|_| bad(()))?;
        let voucher = statement.voucher().map_err(|_| bad(()))?;
        let payload: Payload = statement.claimed().map_err(|_| bad(()))?;
        let to = payload.read().ok_or_else(|| bad(()))?;
        Ok(Self { statement, voucher, to, iat: payload.iat, exp: payload.exp })
    }

    /// Where it says it leads.
    #[must_use]
    pub fn to(&self) -> &TicketTo {
        &self.to
    }

    /// The text of the voucher that came with it.
    #[must_use]
    pub fn voucher_text(&self) -> &str {
        self.voucher.text()
    }

    /// Where the key of the enrolment lies that vouches.
    ///
    /// # Errors
    /// [`RefusalCode::BadTicket`].
    pub fn enrollment(&self) -> Result<&SigningKeyName, Refusal> {
        self.voucher.enrollment().map_err(|error| refusal(RefusalCode::BadTicket, error))
    }

    /// Everything that can be told without a key: that it is for `relay`, good now, and vouched for by the atSign of its
    /// side. To be asked before anything is fetched.
    ///
    /// # Errors
    /// [`RefusalCode::BadTicket`], [`RefusalCode::Expired`].
    pub fn check(&self, relay: &AtSign, now_ms: u64) -> Result<(), Refusal> {
        if self.to.relay != *relay {
            return Err(refusal(RefusalCode::BadTicket, "the ticket is for another relay"));
        }
        if self.exp.saturating_sub(self.iat) > TICKET_LIFE_MS {
            return Err(refusal(RefusalCode::BadTicket, "the ticket would be good for too long"));
        }
        if self.iat > now_ms.saturating_add(CLOCK_TOLERANCE_MS) {
            return Err(refusal(RefusalCode::Expired, "the ticket is not good yet; check your clock"));
        }
        if self.over_ms() <= now_ms {
            return Err(refusal(RefusalCode::Expired, "the ticket is no longer good; check your clock"));
        }
        if self.voucher.at_sign() != self.to.signer() {
            return Err(refusal(RefusalCode::BadTicket, VoucherError::SomebodyElse));
        }
        let device = self.voucher.claimed_device().map_err(|error| refusal(RefusalCode::BadTicket, error))?;
        if device.is_some() != (self.to.side == Side::B) {
            return Err(refusal(RefusalCode::BadTicket, VoucherError::SomebodyElse));
        }
        self.enrollment().map(drop)
    }

    /// Checks the voucher. `encryption`: the key of the side's atSign. `record`: what the record of the voucher's enrolment
    /// says. The result may be kept for [`TicketClaim::voucher_text`] for as long as both keys
    /// are believed.
    ///
    /// # Errors
    /// [`RefusalCode::UnknownKey`].
    pub fn believe(&self, encryption: &RsaPublicKey, record: &str, now_ms: u64) -> Result<Voucher, Refusal> {
        let device = self.voucher.claimed_device();
        let voucher = device.and_then(|device| {
            let expected = Expected { at_sign: self.to.signer(), device: device.as_ref() };
            self.voucher.believe(expected, encryption, Some(record), now_ms)
        });
        voucher.map_err(|error| refusal(RefusalCode::UnknownKey, error))
    }

    /// Checks all the rest: [`TicketClaim::check`], that `voucher` is of this side, and the signature.
    ///
    /// # Errors
    /// As [`TicketClaim::check`].
    pub fn verify(self, voucher: &Voucher, relay: &AtSign, now_ms: u64) -> Result<Ticket, Refusal> {
        self.check(relay, now_ms)?;
        let its_side = voucher.device().is_some() == (self.to.side == Side::B);
        if voucher.at_sign() != self.to.signer() || !its_side {
            return Err(refusal(RefusalCode::BadTicket, VoucherError::SomebodyElse));
        }
        if voucher.expires_ms().saturating_add(CLOCK_TOLERANCE_MS) <= now_ms {
            return Err(refusal(RefusalCode::Expired, VoucherError::Dates));
        }
        let verified: Result<Payload, StatementError> = self.statement.verify(Label::Ticket, voucher.key());
        verified.map_err(|error| refusal(RefusalCode::BadTicket, format!("the ticket is not believed: {error}")))?;
        let key = *voucher.key();
        // Two signers cannot have the same: the payload names the atSigns, and each knows its own keys.
        let hash = sha256(&[key.spki().as_slice(), &self.statement.hash()].concat());
        let mut mark = Mark { over_ms: self.over_ms(), hash: [0; 16] };
        mark.hash.copy_from_slice(&hash[..16]);
        Ok(Ticket { to: self.to, key, mark })
    }

    fn over_ms(&self) -> u64 {
        self.exp.saturating_add(CLOCK_TOLERANCE_MS)
    }
}

impl fmt::Debug for TicketClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketClaim").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Payload {
    fn read(&self) -> Option<TicketTo> {
        let at_sign = |text: &str| AtSign::parse(text).ok();
        let nonce = Base64::decode_vec(&self.nonce).ok()?;
        if self.v != 1 || nonce.len() != 16 {
            return None;
        }
        Some(TicketTo {
            relay: at_sign(&self.relay)?,
            session: Uuid::parse(&self.session_id)?,
            epoch: self.epoch,
            side: Side::of_letter(&self.side)?,
            client: at_sign(&self.at_sign_a)?,
            device: at_sign(&self.at_sign_b)?,
        })
    }
}

fn refusal(code: RefusalCode, why: impl ToString) -> Refusal {
    Refusal::new(code, why.to_string())
}

#[cfg(test)]
mod tests;
