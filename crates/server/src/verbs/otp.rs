//! `otp`: passcodes that let a new device ask for an enrolment.

use postern_proto::verb::Otp;
use postern_proto::{AtKey, ErrorCode, Metadata, ProtocolError, Record, Reply};
use postern_store::{Batch, LogAs};

use super::{Call, Plan, Planned};
use crate::limits::OTP_LIFE_MS;

/// No `0`, `1`, `I`, `O`: they are read aloud.
const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
const DIGITS: &[u8; 8] = b"23456789";

/// Five letters and a digit are 28 bits; a code lives five minutes, counts once, and asks for an approval only.
const CODE_CHARS: usize = 6;

pub(super) fn plan(call: &Call<'_>, otp: &Otp) -> Planned {
    let me = call.owner()?;
    match otp {
        Otp::Get { ttl } => {
            let code = code(call.random);
            let key = AtKey::private(&format!("{code}.__otp"), me.owner());
            let ttl = ttl.filter(|ms| *ms > 0).unwrap_or(OTP_LIFE_MS);
            let record = Record::new(&code, Metadata { ttl: Some(ttl), ..Metadata::default() }, call.now);
            let batch = Batch::new(call.now).put(me.owner(), &key, record, LogAs::Nothing);
            Plan::change(batch, Reply::Data(code))
        }
        Otp::Put { code, ttl } => {
            if !me.manages() {
                let text = "Connection is not authorized to set a passcode";
                return Err(ProtocolError::new(ErrorCode::Unauthorized, text).into());
            }
            let key = AtKey::private("spp.__otp", me.owner());
            let metadata = Metadata { ttl: *ttl, ..Metadata::default() };
            let record = Record::new(code.to_uppercase(), metadata, call.now);
            let batch = Batch::new(call.now).put(me.owner(), &key, record, LogAs::Nothing);
            Plan::change(batch, Reply::Data("ok".into()))
        }
    }
}

/// Six characters, the last a digit.
fn code(random: [u8; 32]) -> String {
    let pick = |set: &[u8], byte: u8| set.get(usize::from(byte) % set.len()).copied().map_or('A', char::from);
    let letters = random.iter().take(CODE_CHARS - 1).map(|byte| pick(LETTERS, *byte));
    letters.chain(random.last().map(|byte| pick(DIGITS, *byte))).collect()
}
