//! `otp:get[:ttl:⟨ms⟩]`, `otp:put:⟨code⟩[:ttl:⟨ms⟩]`: passcodes for enrolment.

use std::fmt;

use crate::params::Params;
use crate::{ErrorCode, ProtocolError};

/// A passcode is made or set.
#[derive(Clone, PartialEq, Eq)]
pub enum Otp {
    /// Make a one-time code that lives `ttl` milliseconds.
    Get {
        /// Milliseconds.
        ttl: Option<i64>,
    },
    /// Set the reusable code.
    Put {
        /// 6 to 64 word characters.
        code: String,
        /// Milliseconds.
        ttl: Option<i64>,
    },
}

impl Otp {
    pub(crate) fn parse(args: &str) -> Result<Self, ProtocolError> {
        let mut params = Params::new(args);
        if params.take_word("get") {
            return Ok(Self::Get { ttl: ttl(&mut params)? });
        }
        if !params.take_word("put") {
            return Err(ProtocolError::invalid_command());
        }
        let code = params.take().unwrap_or_default().to_owned();
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if !(6..=64).contains(&code.len()) || !code.bytes().all(word) {
            return Err(ProtocolError::new(ErrorCode::IllegalArguments, "a passcode has 6 to 64 letters or digits"));
        }
        Ok(Self::Put { code, ttl: ttl(&mut params)? })
    }
}

fn ttl(params: &mut Params<'_>) -> Result<Option<i64>, ProtocolError> {
    match params.take() {
        None => Ok(None),
        Some(word) if word.eq_ignore_ascii_case("ttl") => {
            let ms = params.take().and_then(|v| v.parse::<i64>().ok()).filter(|n| *n >= 0);
            ms.map(Some).ok_or_else(ProtocolError::invalid_command)
        }
        Some(_) => Err(ProtocolError::invalid_command()),
    }
}

impl fmt::Display for Otp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ttl = match self {
            Self::Get { ttl } => {
                f.write_str("otp:get")?;
                ttl
            }
            Self::Put { code, ttl } => {
                write!(f, "otp:put:{code}")?;
                ttl
            }
        };
        match ttl {
            Some(ms) => write!(f, ":ttl:{ms}"),
            None => Ok(()),
        }
    }
}
