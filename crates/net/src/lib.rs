//! Sockets: TLS, listeners with seats, pumps, back-off, tasks, signals.
//!
//! This crate knows no other crate of Postern and no verb of any protocol: it moves bytes, limits how many
//! strangers may wait, and stops when it is told to.
//!
//! | module | what for |
//! |---|---|
//! | [`tls`] | whom we trust, connecting, accepting, making a private CA |
//! | [`tcp`] | connecting to the first address that answers, listening, keep-alive |
//! | [`proxy`] | ways out of networks that let nothing through but a proxy |
//! | [`seats`] | how many connections may wait before they have said who they are |
//! | [`pump`] | joining two sockets without copying |
//! | [`backoff`] | waiting before trying again |
//! | [`clock`] | what time it is, where the clock may be wrong by years |
//! | [`tasks`] | the only place that spawns |
//! | [`usage`] | bytes sent and received, by what they were for |
//! | [`signals`], [`ready`] | what the service manager says to us, and we to it |

pub mod backoff;
pub mod clock;
pub mod limits;
pub mod proxy;
pub mod pump;
pub mod ready;
pub mod seats;
pub mod signals;
pub mod tasks;
pub mod tcp;
pub mod tls;
pub mod usage;
