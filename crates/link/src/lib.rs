//! Moves the bytes of a session: dials the relay, encrypts, pumps local sockets. Both ends use it.

mod control;
mod device;
mod dial;
mod latency;
pub mod limits;
mod pump;
pub mod sealed;
mod tunnel;

pub use device::{DeviceSession, LinkError};
pub use dial::{RelayAuth, RelayPort};
pub use latency::latencies;
pub use pump::{Carried, Crypt, pump};
pub use tunnel::{ClientSession, bind_local};
