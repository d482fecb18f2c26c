//! Many connections over one sealed session: frames, flow control for each, fairness, half-close, and what is kept to go
//! on after the way between the ends was lost.
//!
//! Pure: bytes and `now` in, frames and events out. Source: docs/protocol/sealed.md, Frames.

mod code;

pub use code::RefusalCode;
