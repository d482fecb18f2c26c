//! What goes to the other end: frames and what local programs have written, sealed a batch at a time.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite as _;

use super::Driver;
use crate::sealed::end::{End, EndFault};
use crate::sealed::ended::Why;
use crate::sealed::limits::{BATCH, SMALL};

impl Driver {
    pub(super) fn write_relay(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        loop {
            self.gather();
            let Some(link) = self.link.as_mut() else { return busy };
            if link.output.is_empty() {
                return busy;
            }
            busy = true;
            let rest = link.output.get(link.sent..).unwrap_or_default();
            match Pin::new(&mut link.socket).poll_write(cx, rest) {
                Poll::Ready(Ok(n)) if n > 0 => {
                    link.sent += n;
                    if link.sent == link.output.len() {
                        link.output.clear();
                        link.sent = 0;
                        if Pin::new(&mut link.socket).poll_flush(cx).is_pending() {
                            return false;
                        }
                    }
                }
                // Nothing more to do until it is woken.
                Poll::Pending => return false,
                Poll::Ready(_) => {
                    self.lost(Why::Lost);
                    return true;
                }
            }
        }
    }

    /// Seals what is to go out, a batch at a time: frames first, then what local programs have written, in turns.
    pub(super) fn gather(&mut self) {
        let now = self.start.elapsed();
        if self.link.as_ref().is_none_or(|link| link.sent < link.output.len()) {
            return;
        }
        loop {
            let Some(link) = self.link.as_mut() else { return };
            if link.output.len() + link.small.len() >= BATCH {
                break;
            }
            let (end, output, small) = (&mut link.end, &mut link.output, &mut link.small);
            let mut fault = None;
            let written = self.streams.transmit(&mut |head, body| {
                if head.len() + body.len() <= SMALL && small.len() <= 4 * SMALL {
                    small.extend_from_slice(head);
                    small.extend_from_slice(body);
                } else {
                    fault = seal(end.as_mut(), small, output).and_then(|()| end.write(head, body, output)).err();
                }
            });
            if let Some(fault) = fault {
                return self.lost(Why::Broken(fault.to_string()));
            }
            if !written && !self.read_local() {
                break;
            }
            self.used = Some(now);
        }
        let Some(link) = self.link.as_mut() else { return };
        // A key that has sealed as much as it may: the next connection has another.
        if let Err(fault) = seal(link.end.as_mut(), &mut link.small, &mut link.output) {
            return self.lost(Why::Broken(fault.to_string()));
        }
        link.end.flush(&mut link.output);
        if let Some(leaving) = self.leaving.as_mut()
            && !leaving.said
        {
            leaving.said = true;
            link.end.close(&mut link.output);
        }
    }
}

fn seal(end: &mut dyn End, small: &mut Vec<u8>, output: &mut Vec<u8>) -> Result<(), EndFault> {
    if !small.is_empty() {
        end.write(small, &[], output)?;
        small.clear();
    }
    Ok(())
}
