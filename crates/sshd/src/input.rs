//! What a client has sent and its program has not read yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::{WAITING, WAITING_MOST};

/// A queue of bytes with one writer, the connection, and one reader, the pump to the program.
#[derive(Default)]
pub(crate) struct Input {
    state: Mutex<State>,
    /// Something came, or the end.
    came: Notify,
    /// Something went.
    went: Notify,
}

#[derive(Default)]
struct State {
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
    /// The client sends no more.
    is_over: bool,
    /// The program reads no more: what comes is dropped.
    is_closed: bool,
}

/// The client sends more than its window allows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMuch;

impl Input {
    pub(crate) fn push(&self, bytes: &[u8]) -> Result<(), TooMuch> {
        let mut state = self.lock();
        if state.is_closed || state.is_over || bytes.is_empty() {
            return Ok(());
        }
        if state.bytes + bytes.len() > WAITING_MOST {
            return Err(TooMuch);
        }
        state.bytes += bytes.len();
        match state.chunks.back_mut() {
            // Trickles are gathered.
            Some(last) if last.len() + bytes.len() <= 4096 => last.extend_from_slice(bytes),
            _ => state.chunks.push_back(bytes.to_vec()),
        }
        drop(state);
        self.came.notify_one();
        Ok(())
    }

    /// The client sends no more.
    pub(crate) fn end(&self) {
        self.lock().is_over = true;
        self.came.notify_one();
    }

    /// The program reads no more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.chunks.clear();
        state.bytes = 0;
        drop(state);
        self.went.notify_one();
    }

    /// The next bytes; `None`: that was all.
    pub(crate) async fn next(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut state = self.lock();
                if let Some(chunk) = state.chunks.pop_front() {
                    state.bytes -= chunk.len();
                    drop(state);
                    self.went.notify_one();
                    return Some(chunk);
                }
                if state.is_over || state.is_closed {
                    return None;
                }
            }
            // A permit is kept for who comes late.
            self.came.notified().await;
        }
    }

    /// More waits than a program that reads leaves.
    pub(crate) fn is_full(&self) -> bool {
        self.lock().bytes > WAITING
    }

    /// Waits until that is over.
    pub(crate) async fn has_room(&self) {
        while self.is_full() {
            self.went.notified().await;
        }
    }

    /// The state is changed in single steps, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_come_out_in_order_and_then_the_end() {
        let input = Input::default();
        input.push(b"ab").unwrap();
        input.push(b"c").unwrap();
        assert_eq!(input.next().await.unwrap(), b"abc");
        input.push(b"d").unwrap();
        input.end();
        input.push(b"after the end").unwrap();
        assert_eq!(input.next().await.unwrap(), b"d");
        assert_eq!(input.next().await, None);
    }

    #[tokio::test]
    async fn who_ignores_the_window_is_told_and_who_does_not_read_is_forgotten() {
        let input = Input::default();
        let packet = vec![0; 32 * 1024];
        assert!(!input.is_full());
        let taken = (0..).take_while(|_| input.push(&packet) == Ok(())).count();
        assert!(input.is_full() && taken * packet.len() <= WAITING_MOST, "{taken}");
        input.close();
        input.has_room().await;
        assert_eq!(input.push(&packet), Ok(()));
        assert_eq!(input.next().await, None);
    }
}
