//! What the attacker does.

use postern_identity::{Expected, Label, Statement};
use postern_rendezvous::{Side, Ticket, TicketClaim};
use postern_session::{Digest, SealedReply};

use super::impostor::Impostor;
use super::parties::{ClientState, Request};
use super::people::{MALLORY, PEOPLE, PHONE};
use super::relay::join;
use super::schedule::{Step, World};
use super::{Lost, Word};
use crate::Broke;

impl World {
    /// A request is delivered, or once more, or to another device.
    pub(super) fn deliver_somewhere(&mut self) -> Step {
        let Some(number) = self.pick(self.requests.len()) else { return Ok(()) };
        let right = !self.dice.once_in(3);
        let device = if right { self.requests[number].device } else { self.dice.below(2) };
        let (text, lies) = (self.requests[number].text.clone(), self.dice.once_in(8));
        let let_in = self.deliver(&text, device, lies)?;
        self.deed(format!("delivers request {number} to device {device}"), let_in.is_none());
        Ok(())
    }

    /// Two sockets are joined; often those that belong together.
    pub(super) fn join_somebody(&mut self) {
        if !self.relay_is_hers {
            return;
        }
        let Some(side) = self.pick(self.sides.len()) else { return };
        let right = self.clients.iter().find(|client| client.request == self.sides[side].request);
        let a = match right {
            Some(client) if !self.dice.once_in(3) => client.socket,
            _ => self.dice.below(self.sockets.len()),
        };
        let b = self.sides[side].socket;
        if a != b && self.sockets[a].peer.is_none() && self.sockets[b].peer.is_none() {
            join(&mut self.sockets, a, b);
            self.deed(format!("joins sockets {a} and {b}"), false);
        }
    }

    /// Bytes on their way change, end, come twice, come from elsewhere.
    pub(super) fn change_bytes(&mut self) {
        if !self.relay_is_hers {
            return;
        }
        let (Some(one), Some(other)) = (self.pick(self.sockets.len()), self.pick(self.sockets.len())) else { return };
        let length = self.sockets[one].out.len();
        let place = self.dice.below(length);
        let what = match self.dice.below(5) {
            0 if length > 0 => {
                let bit = self.dice.below(8);
                self.sockets[one].out[place] ^= 1 << bit;
                "flips a bit of"
            }
            1 if length > 0 => {
                self.sockets[one].out.truncate(place);
                "cuts"
            }
            2 if length > 0 => {
                let again = self.sockets[one].out.clone();
                self.sockets[one].out.extend_from_slice(&again);
                "sends twice what comes from"
            }
            3 => {
                let again = self.sockets[other].recorded.clone();
                self.sockets[one].inbox.extend_from_slice(&again);
                "replays another's words to"
            }
            4 if one != other => {
                let swapped = std::mem::take(&mut self.sockets[one].out);
                self.sockets[one].out = std::mem::replace(&mut self.sockets[other].out, swapped);
                "swaps with another what comes from"
            }
            _ => return,
        };
        self.deed(format!("{what} socket {one}"), false);
    }

    /// A client that still waits, if its words go through her relay.
    pub(super) fn victim(&mut self) -> Option<usize> {
        let side = self.pick(self.clients.len())?;
        let here = &self.clients[side];
        let free = self.sockets[here.socket].peer.is_none() && !self.sockets[here.socket].shut;
        let socket = &self.sockets[here.socket];
        let fresh = socket.inbox.is_empty() && socket.out.is_empty();
        let waits = matches!(here.state, ClientState::Waiting(_)) && self.requests[here.request].client != MALLORY;
        (self.relay_is_hers && waits && free && fresh).then_some(side)
    }

    /// She answers in a device's name: TLS with the ClientHello of the request, a reply with her own keys, a directory that
    /// shows them as the device's.
    pub(super) fn impersonate_device(&mut self) -> Step {
        let Some(side) = self.victim() else { return Ok(()) };
        let request = self.clients[side].request;
        let Some(impostor) = Impostor::new(&self.requests[request].hello) else { return Ok(()) };
        let forged = &PEOPLE.forged_devices[self.requests[request].device];
        let reply = self.reply_to(request, impostor.certificate);
        let text = Statement::print(Label::Reply, &reply, &forged.key, Some(&forged.voucher));
        let lies = !self.dice.once_in(4);
        self.answer_as(impostor, &text, side, lies, "answers in a device's name")
    }

    /// What the device would say in answer to a request.
    pub(super) fn reply_to(&self, request: usize, certificate: [u8; 32]) -> SealedReply {
        let Request { client, device, session, epoch, hash, .. } = &self.requests[request];
        let to = &PEOPLE.devices[*device];
        SealedReply {
            v: 1,
            status: SealedReply::CONNECTED.into(),
            session_id: session.to_string(),
            epoch: *epoch,
            request: Digest(*hash),
            certificate: Digest(certificate),
            from: to.at_sign.to_string(),
            device: to.device_name().to_string(),
            to: PEOPLE.clients[*client].at_sign.to_string(),
            resume: 60,
            ssh_host_keys: Vec::new(),
            iat: self.now_ms(),
        }
    }

    /// Says this reply to a client, and hears what it says then.
    pub(super) fn answer_as(
        &mut self,
        mut impostor: Impostor,
        reply: &str,
        side: usize,
        lies: bool,
        what: &str,
    ) -> Step {
        let socket = self.clients[side].socket;
        let flight = impostor.say(reply);
        let state = std::mem::replace(&mut self.clients[side].state, ClientState::Over);
        if let ClientState::Waiting(waiting) = state {
            self.clients[side].state = self.client_believes(*waiting, side, flight, lies)?;
        }
        let opened = matches!(self.clients[side].state, ClientState::Open(_));
        let said = std::mem::take(&mut self.sockets[socket].out);
        impostor.hear(&said);
        self.shut(socket);
        self.clients[side].state = ClientState::Over;
        self.deed(format!("{what} to socket {socket}"), !opened);
        if !opened && !said.is_empty() {
            return Err((Broke::WrongParty, "a client said something before it believed the reply".into()));
        }
        if impostor.heard.windows(3).any(|words| words == b"up ") {
            let heard = String::from_utf8_lossy(&impostor.heard).into_owned();
            return Err((Broke::WrongParty, format!("the attacker heard {heard:?}")));
        }
        Ok(())
    }

    /// A reply that the device made for somebody else, or for another session, or that she read with a stolen key.
    pub(super) fn splice_reply(&mut self) -> Step {
        let Some(side) = self.victim() else { return Ok(()) };
        let wanted = self.clients[side].request;
        let Some(impostor) = Impostor::new(&self.requests[wanted].hello) else { return Ok(()) };
        let device = self.requests[wanted].device;
        let hers = |request: usize| self.requests[request].client == MALLORY || request == wanted;
        let of_use = |request: &usize| hers(*request) && self.requests[*request].device == device;
        let captured: Vec<usize> = self.sides.iter().map(|side| side.request).filter(of_use).collect();
        let Some(captured) = self.pick(captured.len()).map(|at| captured[at]) else { return Ok(()) };
        // Without the private half of the ClientHello she cannot read the reply to the victim itself. The words alone are
        // enough against those who have none of the victim's keys.
        let stolen = captured == wanted;
        if stolen && matches!(self.lost, Some(Lost::ClientChecksOnly(_) | Lost::ClientTakesAnyReply)) {
            return Ok(());
        }
        // A certificate of a session of the device: nobody has its key.
        let mut reply = self.reply_to(captured, self.requests[captured].hash);
        let expected = self.reply_to(wanted, impostor.certificate);
        // What the client does not look at may as well be as it wants it; the session's id she can choose as she likes.
        (reply.session_id, reply.epoch) = (expected.session_id, expected.epoch);
        if !Lost::checks(self.lost, Word::Request) {
            reply.request = expected.request;
        }
        if !Lost::checks(self.lost, Word::Certificate) {
            reply.certificate = expected.certificate;
        }
        if !Lost::checks(self.lost, Word::Client) {
            reply.to = expected.to;
        }
        let device = &PEOPLE.devices[device];
        let text = Statement::print(Label::Reply, &reply, &device.key, Some(&device.voucher));
        self.answer_as(impostor, &text, side, false, "says a reply to another request")
    }

    /// A request in a client's name, by her keys; the directory shows them as the client's.
    pub(super) fn forge_request(&mut self) -> Step {
        let (client, device) = (self.dice.below(3), self.dice.below(2));
        let (session, lies) = (self.random_id(), !self.dice.once_in(4));
        let (_knock, number) = self.write_request(&PEOPLE.forged_clients[client], client, device, session, 0);
        // The reference knows no such request.
        let text = self.requests.pop().map(|request| request.text).unwrap_or_default();
        let let_in = self.deliver(&text, device, lies)?;
        self.deed(format!("forges request {number} of client {client}"), let_in.is_none());
        Ok(())
    }

    /// She asks under her own name, for a session of her own or to go on with somebody else's. So does a second enrolment
    /// of a client with the session of the first.
    pub(super) fn take_over(&mut self) -> Step {
        let (session, epoch) = match self.pick(self.requests.len()) {
            Some(number) if !self.dice.once_in(3) => {
                (self.requests[number].session.clone(), self.requests[number].epoch + 1)
            }
            Some(number) if self.dice.once_in(2) => (self.requests[number].session.clone(), 0),
            _ => (self.random_id(), 0),
        };
        let client = if self.dice.once_in(4) { PHONE } else { MALLORY };
        let (_knock, number) = self.write_request(&PEOPLE.clients[client], client, 0, session, epoch);
        let text = self.requests[number].text.clone();
        let let_in = self.deliver(&text, 0, false)?;
        self.deed(format!("asks for epoch {epoch} as client {client}"), let_in.is_none());
        Ok(())
    }

    /// She has the private half of a client's ClientHello and goes on in its place: what the device says to it she can
    /// read, but she cannot show the client's identity key.
    pub(super) fn steal_hello(&mut self) -> Step {
        if self.lost.is_some_and(|lost| matches!(lost, Lost::ClientChecksOnly(_))) {
            return Ok(());
        }
        let Some(side) = self.victim() else { return Ok(()) };
        let request = self.clients[side].request;
        let (text, device) = (self.requests[request].text.clone(), self.requests[request].device);
        let there = match self.sides.iter().position(|there| there.request == request) {
            Some(there) => there,
            None => match self.deliver(&text, device, false)? {
                Some(there) => there,
                None => return Ok(()),
            },
        };
        let socket = self.sides[there].socket;
        let taken = std::mem::replace(&mut self.clients[side].state, ClientState::Over);
        let ClientState::Waiting(mut waiting) = taken else { return Ok(()) };
        let flight = std::mem::take(&mut self.sockets[socket].out);
        let mut wire = Vec::new();
        if waiting.read(&flight).is_ok()
            && let Some(reply) = waiting.reply()
            && let Ok(claim) = reply.voucher()
        {
            let to = &PEOPLE.devices[device];
            let expected = Expected { at_sign: &to.at_sign, device: to.device.as_ref() };
            let voucher = PEOPLE.believe(&claim, expected, false, false, self.now_ms());
            // A device that does not look at the proof would take one by any key.
            let skips = self.lost == Some(Lost::DeviceSkipsProof);
            let whose = if skips { self.requests[request].client } else { MALLORY };
            let end = voucher.map(|voucher| waiting.open(&voucher, &PEOPLE.clients[whose].key, self.now_ms()));
            if let Some(Ok(mut end)) = end {
                let _ = end.write(b"mallory was here", &[], &mut wire);
            }
        }
        self.sockets[socket].inbox.extend_from_slice(&wire);
        self.device_reads(there)?;
        self.deed(
            format!("goes on in the place of socket {}", self.clients[side].socket),
            self.sides[there].end.is_none(),
        );
        Ok(())
    }

    /// She is a guest of a relay: with a ticket that she has seen, or one in somebody's name.
    pub(super) fn knock_at_relay(&mut self) {
        let Some(number) = self.pick(self.requests.len()) else { return };
        let side = if self.dice.once_in(2) { Side::A } else { Side::B };
        let socket = match self.dice.below(3) {
            0 => {
                let seen = self.dice.below(self.sockets.len());
                let ticket = self.sockets[seen].ticket.clone();
                self.arrive(ticket)
            }
            1 => {
                let forged = match side {
                    Side::A => PEOPLE.forged_clients.get(self.requests[number].client),
                    Side::B => PEOPLE.forged_devices.get(self.requests[number].device),
                };
                let Some(forged) = forged else { return };
                self.dial(number, side, forged)
            }
            _ => self.dial(number, side, &PEOPLE.clients[MALLORY]),
        };
        let refused = self.sockets[socket].shut;
        self.deed(format!("knocks at the relay: socket {socket}"), refused);
    }

    pub(super) fn deed(&mut self, what: String, refused: bool) {
        self.counted.deeds += 1;
        self.counted.refused += usize::from(refused);
        self.say(format!("the attacker {what}{}", if refused { ": refused" } else { "" }));
    }
}

/// Whoever made a ticket makes it again, as if it had not been used: what a relay without a memory takes it for.
pub(super) fn made_again(line: &str, now_ms: u64, nonce: [u8; 16]) -> Option<String> {
    let claim = TicketClaim::parse(line.as_bytes()).ok()?;
    let known = PEOPLE.clients.iter().chain(&PEOPLE.devices);
    let signer = known.into_iter().find(|identity| identity.voucher == claim.voucher_text())?;
    Some(Ticket::make(claim.to(), &signer.key, &signer.voucher, now_ms, nonce))
}
