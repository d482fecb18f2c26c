//! The world of beginnings: who comes in, to whom, once. Requests, vouchers, pins, the device's door, TLS and its
//! statements, tickets and the relay's hall are the code that ships, with real keys; the directory and the relay belong to
//! an attacker, who is also a client that the first device lets in under her own name. She delivers requests late, twice, to
//! others; joins sockets that do not belong together; changes, cuts and replays bytes; shows her own keys as
//! somebody else's; answers in a device's name and asks in a client's; holds, in some schedules, the private half of a
//! victim's ClientHello; and knocks at honest relays with what she has seen.
//!
//! A simple reference knows who asked what of whom. At the end the network is fair, but she still knocks at the relay: then every
//! honest client reaches its device at the first try.
//!
//! Keys come from the system's randomness: a seed makes the same deeds, not the same bytes.

mod deeds;
mod impostor;
mod limits;
mod parties;
mod people;
mod relay;
mod schedule;

pub use schedule::{Counted, run};

/// A guard that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The device does not remember requests.
    DeviceForgetsRequests,
    /// The device obeys requests that ask another one.
    DeviceObeysForOthers,
    /// The device believes whatever key the directory shows for a client.
    DeviceTrustsDirectory,
    /// The client believes whatever key the directory shows for a device.
    ClientTrustsDirectory,
    /// The device lets anybody who may come in go on with a live session.
    DeviceResumesForAnybody,
    /// The device hears a client before it has shown its identity key in this TLS session.
    DeviceSkipsProof,
    /// The client does not look whether the reply names the certificate that it sees.
    ClientSkipsCertificate,
    /// The client takes any reply of the device it asked: whatever its request, session, client and certificate.
    ClientTakesAnyReply,
    /// Of a reply's words, the client looks at this alone; see [`Lost::ENOUGH`].
    ClientChecksOnly(Word),
    /// The relay joins guests in the order in which they come.
    RelayMatchesByArrival,
    /// The relay takes a ticket of an atSign from whoever signs it.
    RelayTakesAnySigner,
    /// The relay takes a ticket that was used.
    RelayTakesTicketsTwice,
}

/// What a reply says that binds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The hash of the request.
    Request,
    /// The hash of the certificate.
    Certificate,
    /// The client.
    Client,
}

impl Lost {
    /// Those that have to be missed.
    pub const ALL: [Self; 11] = [
        Self::DeviceForgetsRequests,
        Self::DeviceObeysForOthers,
        Self::DeviceTrustsDirectory,
        Self::ClientTrustsDirectory,
        Self::DeviceResumesForAnybody,
        Self::DeviceSkipsProof,
        Self::ClientSkipsCertificate,
        Self::ClientTakesAnyReply,
        Self::RelayMatchesByArrival,
        Self::RelayTakesAnySigner,
        Self::RelayTakesTicketsTwice,
    ];
    /// Against replies to others, who hold none of the victim's keys, each of these words is enough without the other two.
    pub const ENOUGH: [Self; 3] = [
        Self::ClientChecksOnly(Word::Request),
        Self::ClientChecksOnly(Word::Certificate),
        Self::ClientChecksOnly(Word::Client),
    ];

    /// Whether the client still looks at a word of the reply.
    fn checks(lost: Option<Self>, word: Word) -> bool {
        match lost {
            Some(Self::ClientSkipsCertificate) => word != Word::Certificate,
            Some(Self::ClientTakesAnyReply) => false,
            Some(Self::ClientChecksOnly(only)) => word == only,
            _ => true,
        }
    }
}
