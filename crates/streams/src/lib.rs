//! Many connections over one sealed session: frames, flow control for each, fairness, half-close, and what is kept to go
//! on after the way between the ends was lost.
//!
//! Pure: bytes and `now` in, frames and events out. Source: docs/protocol/sealed.md, Frames.

mod ask;
mod chunk;
mod code;
mod event;
mod frame;
mod inbox;
pub mod limits;
mod liveness;
mod outbox;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub use ask::Ask;
pub use chunk::Chunk;
pub use code::RefusalCode;
pub use event::{Broken, Event, StreamId, Timeout, Turn};
pub use session::{Side, Streams};
