//! Clients and devices: what they ask, let in, believe and say.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postern_identity::{Envelope, Expected};
use postern_proto::Uuid;
use postern_rendezvous::{Side, Ticket, TicketTo};
use postern_seal::{Answer, Asked, ClientEnd, DeviceEnd, Knock, Waiting};
use postern_session::{Admitted, Door, Guest, LiveSession, Offer, PermitOpen, SignedRequest, SshRequest};

use super::Lost;
use super::limits::PATIENCE_MS;
use super::people::{Identity, MALLORY, PEOPLE};
use super::relay::Socket;
use super::schedule::{Step, World};
use crate::Broke;

/// A request of an honest client, or of Mallory under her own name.
pub(super) struct Request {
    pub(super) client: usize,
    pub(super) device: usize,
    pub(super) session: Uuid,
    pub(super) epoch: u32,
    pub(super) text: String,
    pub(super) hash: [u8; 32],
    pub(super) hello: Vec<u8>,
}

/// A client's end of what it asked. The number is that of its request.
pub(super) struct ClientSide {
    pub(super) request: usize,
    pub(super) socket: usize,
    pub(super) state: ClientState,
    pub(super) heard: Vec<u8>,
}

/// A device's end of what it let in.
pub(super) struct DeviceSide {
    pub(super) request: usize,
    pub(super) socket: usize,
    pub(super) end: Option<DeviceEnd>,
    pub(super) heard: Vec<u8>,
}

pub(super) struct Device {
    pub(super) door: Door,
    pub(super) live: BTreeMap<Uuid, LiveSession>,
    /// Hashes of requests on which it has acted.
    pub(super) acted: BTreeSet<[u8; 32]>,
}

pub(super) enum ClientState {
    Waiting(Box<Waiting>),
    Open(Box<ClientEnd>),
    Over,
}

impl Device {
    pub(super) fn new() -> Self {
        Self { door: Door::new(PermitOpen::default()), live: BTreeMap::new(), acted: BTreeSet::new() }
    }
}

impl World {
    /// A client asks, and waits at the relay. The request is in the server's hands.
    pub(super) fn ask(&mut self, client: usize, device: usize, session: Uuid, epoch: u32) -> usize {
        let (own, to) = (&PEOPLE.clients[client], &PEOPLE.devices[device]);
        let (knock, number) = self.write_request(own, client, device, session, epoch);
        let request = &self.requests[number];
        let waiting = knock.asked(Asked {
            request: request.hash,
            session_id: request.session.clone(),
            epoch,
            at_sign: to.at_sign.clone(),
            device: to.device_name().clone(),
            own: own.at_sign.clone(),
        });
        let socket = self.dial(number, Side::A, own);
        let state = ClientState::Waiting(Box::new(waiting));
        self.clients.push(ClientSide { request: number, socket, state, heard: Vec::new() });
        self.counted.requests += 1;
        self.say(format!("client {client} asks device {device} for epoch {epoch}: request {number}, socket {socket}"));
        self.clients.len() - 1
    }

    /// `own` signs; `client` is who it says it is.
    pub(super) fn write_request(
        &mut self,
        own: &Identity,
        client: usize,
        device: usize,
        session: Uuid,
        epoch: u32,
    ) -> (Knock, usize) {
        let to = &PEOPLE.devices[device];
        let (knock, hello) = Knock::new().expect("randomness");
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&self.dice.key()[..16]);
        let offer = Offer {
            hello: hello.clone(),
            to: to.at_sign.clone(),
            device: to.device_name().clone(),
            issued_ms: self.now_ms(),
            expires_ms: self.now_ms() + PATIENCE_MS,
            nonce,
            epoch,
            resume: Duration::from_secs(60),
            relays: Vec::new(),
            only: true,
        };
        // Whoever forges signs with her own keys throughout.
        let honest = own.voucher == PEOPLE.clients[client].voucher;
        let signer = if honest { &own.at_sign } else { &PEOPLE.clients[MALLORY].at_sign };
        let key = &PEOPLE.person(signer).expect("a person of ours").private;
        let by = (&own.key, own.voucher.as_str());
        let text = Envelope::sign_sealed(&SshRequest::sealed(&session, &offer), key, None, by).expect("keys of ours");
        let hash = Envelope::parse(&text).expect("a request of ours").payload_hash();
        self.requests.push(Request { client, device, session, epoch, text, hash, hello });
        (knock, self.requests.len() - 1)
    }

    /// A socket with a ticket for this request's session.
    pub(super) fn dial(&mut self, request: usize, side: Side, own: &Identity) -> usize {
        let Request { client, device, session, epoch, .. } = &self.requests[request];
        let to = TicketTo {
            relay: PEOPLE.relay.clone(),
            session: session.clone(),
            epoch: *epoch,
            side,
            client: PEOPLE.clients[*client].at_sign.clone(),
            device: PEOPLE.devices[*device].at_sign.clone(),
        };
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&self.dice.key()[..16]);
        let ticket = Ticket::make(&to, &own.key, &own.voucher, self.now_ms(), nonce);
        self.arrive(ticket)
    }

    pub(super) fn arrive(&mut self, ticket: String) -> usize {
        self.sockets.push(Socket { ticket, ..Socket::default() });
        let id = self.sockets.len() - 1;
        if !self.relay_is_hers {
            let now_ms = self.now_ms();
            self.relay.arrive(&mut self.sockets, id, now_ms, self.now);
        }
        id
    }

    pub(super) fn shut(&mut self, socket: usize) {
        self.sockets[socket].shut = true;
        if let Some(peer) = self.sockets[socket].peer {
            self.sockets[peer].shut = true;
        }
        self.relay.gone(&mut self.sockets, socket);
    }

    /// A request comes to a device, from the server's hands. Returns its end, if it was let in.
    pub(super) fn deliver(&mut self, text: &str, device: usize, lies: bool) -> Step<Option<usize>> {
        let own = &PEOPLE.devices[device];
        let Some(admitted) = self.admit(text, device, lies) else { return Ok(None) };
        let (hash, epoch) = (admitted.request_hash(), admitted.request().offer.epoch);
        // What the reference knows: who made this request, for whom.
        let Some(number) = self.requests.iter().position(|request| request.hash == hash) else {
            return Err((Broke::Forged, format!("device {device} obeys a request that nobody made")));
        };
        let request = &self.requests[number];
        if *admitted.voucher().key() != PEOPLE.clients[request.client].key.public_key() {
            return Err((Broke::Forged, format!("device {device} takes somebody else for client {}", request.client)));
        }
        if request.device != device {
            return Err((Broke::WrongParty, format!("device {device} obeys a request to device {}", request.device)));
        }
        if !self.devices[device].acted.insert(hash) {
            return Err((Broke::Twice, format!("device {device} acts again on request {number}")));
        }
        let live = LiveSession { client: admitted.voucher().at_sign().clone(), key: *admitted.voucher().key(), epoch };
        let before = self.devices[device].live.insert(request.session.clone(), live.clone());
        if epoch > 0 && before.is_some_and(|before| before.key != live.key) {
            let what = format!("client {} goes on with somebody else's session", request.client);
            return Err((Broke::WrongParty, what));
        }
        let answer = Answer {
            at_sign: &own.at_sign,
            device: own.device_name(),
            identity: &own.key,
            voucher: &own.voucher,
            resume: Duration::from_secs(60),
            ssh_host_keys: &[],
            now_ms: self.now_ms(),
        };
        let mut end = DeviceEnd::accept(&admitted, &answer).map_err(|e| (Broke::Misunderstanding, e.to_string()))?;
        let mut wire = Vec::new();
        end.flush(&mut wire);
        let words = self.words(number, "down");
        end.write(words.as_bytes(), &[], &mut wire).map_err(|e| (Broke::Misunderstanding, e.to_string()))?;
        let socket = self.dial(number, Side::B, own);
        self.sockets[socket].say(&wire);
        self.sides.push(DeviceSide { request: number, socket, end: Some(end), heard: Vec::new() });
        self.counted.admitted += 1;
        self.say(format!("device {device} lets request {number} in: socket {socket}"));
        Ok(Some(self.sides.len() - 1))
    }

    pub(super) fn admit(&mut self, text: &str, device: usize, lies: bool) -> Option<Admitted> {
        let own = &PEOPLE.devices[device];
        let now_ms = self.now_ms();
        let envelope = Envelope::parse(text).ok()?;
        let claim = envelope.sealed_voucher().ok()?;
        let guest = Guest::manager(&PEOPLE.managers(device), claim.at_sign())?;
        let expected = Expected { at_sign: guest.at_sign(), device: None };
        let no_pins = self.lost == Some(Lost::DeviceTrustsDirectory);
        let voucher = PEOPLE.believe(&claim, expected, lies, no_pins, now_ms)?;
        let names = if self.lost == Some(Lost::DeviceObeysForOthers) {
            PEOPLE.devices.iter().collect::<Vec<_>>()
        } else {
            vec![own]
        };
        let signed = names.into_iter().find_map(|own| {
            SignedRequest::verify::<SshRequest>(&envelope, voucher.clone(), &own.at_sign, own.device_name()).ok()
        })?;
        let here = &mut self.devices[device];
        let mut live = here.live.get(&signed.request().session_id).cloned();
        if let (Some(Lost::DeviceResumesForAnybody), Some(live)) = (self.lost, &mut live) {
            (live.client, live.key) = (voucher.at_sign().clone(), *voucher.key());
        }
        if self.lost == Some(Lost::DeviceForgetsRequests) {
            here.door = Door::new(PermitOpen::default());
            live = live.filter(|_| signed.request().offer.epoch > 0);
        }
        here.door.knock_sealed(&guest, signed, 22, live.as_ref(), now_ms).ok()
    }

    /// What honest ends say to each other: in it, who is meant.
    pub(super) fn words(&self, request: usize, way: &str) -> String {
        let Request { client, device, session, epoch, .. } = &self.requests[request];
        format!("{way} {client} {device} {session} {epoch};")
    }

    /// What is on its way arrives, and everybody answers, until all is quiet.
    pub(super) fn pump(&mut self) -> Step {
        loop {
            let mut busy = false;
            for id in 0..self.sockets.len() {
                if let Some(peer) = self.sockets[id].peer
                    && !self.sockets[id].out.is_empty()
                {
                    let bytes = std::mem::take(&mut self.sockets[id].out);
                    self.sockets[peer].inbox.extend_from_slice(&bytes);
                    busy = true;
                }
            }
            for side in 0..self.clients.len() {
                self.client_reads(side)?;
            }
            for side in 0..self.sides.len() {
                self.device_reads(side)?;
            }
            if !busy {
                return Ok(());
            }
        }
    }

    pub(super) fn client_reads(&mut self, side: usize) -> Step {
        let ClientSide { request, socket, .. } = self.clients[side];
        let input = std::mem::take(&mut self.sockets[socket].inbox);
        if input.is_empty() {
            return Ok(());
        }
        let state = std::mem::replace(&mut self.clients[side].state, ClientState::Over);
        self.clients[side].state = match state {
            ClientState::Waiting(waiting) => self.client_believes(*waiting, side, input, false)?,
            ClientState::Open(mut end) => {
                let mut input = input;
                let heard = &mut self.clients[side].heard;
                match end.read(&mut input, &mut |plain| heard.extend_from_slice(plain)) {
                    Ok(taken) => {
                        self.sockets[socket].inbox = input.split_off(taken);
                        ClientState::Open(end)
                    }
                    Err(_) => ClientState::Over,
                }
            }
            ClientState::Over => ClientState::Over,
        };
        if matches!(self.clients[side].state, ClientState::Over) {
            self.shut(socket);
        }
        self.is_prefix(&self.clients[side].heard, request, "down")
    }

    /// `lies`: the directory does.
    pub(super) fn client_believes(
        &mut self,
        mut waiting: Waiting,
        side: usize,
        mut input: Vec<u8>,
        lies: bool,
    ) -> Step<ClientState> {
        let ClientSide { request, socket, .. } = self.clients[side];
        let own = &PEOPLE.clients[self.requests[request].client];
        let to = &PEOPLE.devices[self.requests[request].device];
        let Ok(taken) = waiting.read(&input) else { return Ok(ClientState::Over) };
        input.drain(..taken);
        let Some(reply) = waiting.reply() else {
            self.sockets[socket].inbox = input;
            return Ok(ClientState::Waiting(Box::new(waiting)));
        };
        let Ok(claim) = reply.voucher() else { return Ok(ClientState::Over) };
        let expected = Expected { at_sign: &to.at_sign, device: to.device.as_ref() };
        let no_pins = self.lost == Some(Lost::ClientTrustsDirectory);
        let believed = PEOPLE.believe(&claim, expected, lies, no_pins, self.now_ms());
        let Some(voucher) = believed else { return Ok(ClientState::Over) };
        let Ok(mut end) = waiting.open(&voucher, &own.key, self.now_ms()) else { return Ok(ClientState::Over) };
        let mut wire = Vec::new();
        let words = self.words(request, "up");
        end.write(words.as_bytes(), &[], &mut wire).map_err(|e| (Broke::Misunderstanding, e.to_string()))?;
        let heard = &mut self.clients[side].heard;
        let Ok(taken) = end.read(&mut input, &mut |plain| heard.extend_from_slice(plain)) else {
            return Ok(ClientState::Over);
        };
        self.sockets[socket].inbox = input.split_off(taken);
        self.sockets[socket].say(&wire);
        Ok(ClientState::Open(Box::new(end)))
    }

    pub(super) fn device_reads(&mut self, side: usize) -> Step {
        let DeviceSide { request, socket, .. } = self.sides[side];
        let mut input = std::mem::take(&mut self.sockets[socket].inbox);
        if input.is_empty() {
            return Ok(());
        }
        let here = &mut self.sides[side];
        let Some(end) = &mut here.end else { return Ok(()) };
        let heard = &mut here.heard;
        match end.read(&mut input, &mut |plain| heard.extend_from_slice(plain)) {
            Ok(taken) => self.sockets[socket].inbox = input.split_off(taken),
            Err(_) => {
                here.end = None;
                self.shut(socket);
            }
        }
        self.is_prefix(&self.sides[side].heard, request, "up")
    }

    /// No byte but those that were meant for this end, in their order.
    pub(super) fn is_prefix(&self, heard: &[u8], request: usize, way: &str) -> Step {
        let wanted = self.words(request, way);
        if wanted.as_bytes().starts_with(heard) {
            return Ok(());
        }
        Err((Broke::WrongByte, format!("{:?} where {wanted:?} was meant", String::from_utf8_lossy(heard))))
    }
}
