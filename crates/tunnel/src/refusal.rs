//! A refusal that ssh itself understands.
//!
//! ssh drops what its ProxyCommand writes to stderr when a master connection is kept (`ControlPersist`), and Ansible
//! shows only ssh's own words. So we answer in the ssh protocol: an identification line and a disconnect message, both
//! legal before any key exchange (RFC 4253, sections 4.2, 6 and 11.1).

use crate::limits::REFUSAL_CHARS;

/// Why, as the ssh protocol counts. RFC 4250, section 4.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Anything that is nobody's decision: SSH_DISCONNECT_BY_APPLICATION.
    ByApplication,
    /// We may not: SSH_DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE.
    NotPermitted,
}

/// Our identification, as an ssh server gives it.
const IDENTIFICATION: &[u8] = b"SSH-2.0-postern\r\n";
const SSH_MSG_DISCONNECT: u8 = 1;
/// Blocks of the packet format before any cipher is agreed on.
const BLOCK: usize = 8;
const LEAST_PADDING: usize = 4;

/// Everything that is to be written: identification and one packet.
pub(crate) fn disconnect(reason: Reason, why: &str) -> Vec<u8> {
    let code: u32 = match reason {
        Reason::ByApplication => 11,
        Reason::NotPermitted => 14,
    };
    let text = one_line(why);
    let mut payload = vec![SSH_MSG_DISCONNECT];
    payload.extend(code.to_be_bytes());
    payload.extend(length(text.len()));
    payload.extend(text.as_bytes());
    // The language, which nobody reads.
    payload.extend(length(0));
    let unpadded = 5 + payload.len();
    let mut padding = BLOCK - unpadded % BLOCK;
    if padding < LEAST_PADDING {
        padding += BLOCK;
    }
    let mut out = IDENTIFICATION.to_vec();
    out.extend(length(1 + payload.len() + padding));
    out.push(u8::try_from(padding).expect("below 12"));
    out.extend(payload);
    out.resize(out.len() + padding, 0);
    out
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).expect("at most some hundred").to_be_bytes()
}

/// At most [`REFUSAL_CHARS`] printable ASCII characters; lines become sentences.
pub(crate) fn one_line(text: &str) -> String {
    let joined = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    let ascii: String = joined.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    if ascii.len() <= REFUSAL_CHARS {
        ascii
    } else {
        format!("{}...", ascii.get(..REFUSAL_CHARS - 3).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_byte_for_byte() {
        let bytes = disconnect(Reason::ByApplication, "off");
        // 17 of identification, length 28 = 1 + 1+4+4+3+4 + 11 of padding.
        let wanted = b"SSH-2.0-postern\r\n\0\0\0\x1c\x0b\x01\0\0\0\x0b\0\0\0\x03off\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(bytes, wanted);
        for n in 0..64 {
            let packet = disconnect(Reason::NotPermitted, &"x".repeat(n)).split_off(IDENTIFICATION.len());
            assert_eq!(packet.len() % BLOCK, 0);
            assert!(usize::from(packet[4]) >= LEAST_PADDING);
        }
    }

    #[test]
    fn words_are_one_line_of_ascii() {
        assert_eq!(
            one_line("the relay is silent\nHint: is it \u{1b}[2Jrunning, für @x?"),
            "the relay is silent; Hint: is it ?[2Jrunning, f?r @x?"
        );
        assert_eq!(one_line(&"x".repeat(999)).len(), REFUSAL_CHARS);
    }
}
