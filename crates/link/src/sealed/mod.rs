//! A sealed session as both ends live it: dial the relay with a ticket, meet the other end in TLS, carry many connections,
//! survive the loss of the way between. Source: docs/protocol/sealed.md.
//!
//! ```text
//! client:  dial(ClientPlan) ──► Sealed ── carry(Local, Target) ──► Carried
//! device:  serve(DevicePlan) ─► Sealed ── Authorize::dial(Target) at the moment of dialling
//! both:    Sealed::ended() ──► Ended { why, carried }
//! ```
//!
//! What is decided (frames, windows, fairness, what is kept for a resumption) lies in `postern-streams`, who is believed in
//! `postern-seal`; here are sockets and clocks.

mod driver;
mod end;
mod ended;
mod limits;
mod local;
mod meet;
mod plan;
mod ready;
mod session;
mod slot;
mod tls;

pub use end::{End, EndFault, Facts, Knocking};
pub use ended::{Ended, Progress, State, StreamRefused, Why};
pub use local::Local;
pub use meet::Ahead;
pub use plan::{
    AskAgain, Asked, Authorize, Believe, ClientPlan, DevicePlan, DialError, Future, Refusal, RelayRefusal, Target,
    Ticket, Unbelieved,
};
pub use session::{Listening, Opened, Sealed, dial, serve, serve_ahead};
