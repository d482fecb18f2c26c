//! What anybody may do: ask the directory, claim a name, prove it.

use std::io;
use std::time::Instant;

use postern_proto::verb::{EnrollOperation, From};
use postern_proto::{AtKey, AtSign, DirectoryAnswer, DirectoryQuery, ErrorCode, ProtocolError, Reply, Request};
use postern_store::StoreError;
use zeroize::Zeroizing;

use super::{Flow, Guest, Place, Talk, asked_to_leave};
use crate::enrollments;
use crate::hub::HouseSeat;
use crate::limits::{ANONYMOUS_LINE_BYTES, DIRECTORY_LINE_BYTES, OWNER_LINE_BYTES};
use crate::serve::now_ms;
use crate::verbs::{Refusal, not_hosted};

impl Guest {
    /// A question to the directory. Unknown names of an address that asks for many are answered late.
    pub(super) async fn on_question(&mut self, question: DirectoryQuery) -> io::Result<Flow> {
        self.talk = Talk::Directory;
        self.reader.set_limit(DIRECTORY_LINE_BYTES);
        let answer = match question {
            DirectoryQuery::Exit => return Ok(Flow::Close),
            DirectoryQuery::Nonsense => DirectoryAnswer::Unknown,
            DirectoryQuery::Find(name) => match self.shared.accounts.address(&name) {
                Some(address) => DirectoryAnswer::Found(address),
                None => {
                    let delay = self.shared.misses.count(self.address, Instant::now());
                    if !delay.is_zero() {
                        tokio::select! {
                            biased; // leaving wins over answering
                            () = self.shared.tasks.token().cancelled() => return Ok(Flow::Close),
                            () = asked_to_leave(&self.seat) => return Ok(Flow::Close),
                            () = tokio::time::sleep(delay) => {}
                        }
                    }
                    DirectoryAnswer::Unknown
                }
            },
        };
        self.write(answer.to_string().as_bytes()).await?;
        Ok(Flow::GoOn)
    }

    /// A claim to be somebody, answered with a challenge.
    pub(super) async fn on_from(&mut self, from: &From) -> io::Result<Flow> {
        // After a question to the directory the lines were short.
        self.reader.set_limit(if self.connection.authority().is_some() || self.connection.peer().is_some() {
            OWNER_LINE_BYTES
        } else {
            ANONYMOUS_LINE_BYTES
        });
        if self.is_of_elsewhere(&from.at_sign) {
            return self.on_peer_from(from).await;
        }
        let reply = match self.check_claim(&from.at_sign) {
            Ok(()) => self.connection.on_from(from, postern_crypto::random(), Instant::now()),
            Err(error) => Reply::Error(error),
        };
        self.reply(&reply).await
    }

    /// Whether this claim is one of another operator's server.
    fn is_of_elsewhere(&self, at_sign: &AtSign) -> bool {
        self.shared.abroad.is_some() && !self.connection.is_monitoring() && !self.shared.accounts.hosts(at_sign)
    }

    fn check_claim(&self, at_sign: &AtSign) -> Result<(), ProtocolError> {
        if self.connection.is_monitoring() {
            return Err(on_monitor());
        }
        let here = self.port_of.as_ref().is_none_or(|only| only == at_sign);
        if here && self.shared.accounts.hosts(at_sign) { Ok(()) } else { Err(not_hosted(at_sign)) }
    }

    /// A proof. It counts once, whatever the outcome.
    pub(super) async fn on_proof(&mut self, proof: &Request) -> io::Result<Flow> {
        let outcome = self.prove(proof);
        // What was proved before is gone with the attempt, so are its larger lines.
        let owner = self.connection.authority().map(|who| who.owner().clone());
        self.reader.set_limit(if owner.is_some() { OWNER_LINE_BYTES } else { ANONYMOUS_LINE_BYTES });
        if let Err(refusal) = outcome {
            self.refuse(refusal).await?;
            return Ok(if self.connection.has_failed_too_often() { Flow::Close } else { Flow::GoOn });
        }
        if let Some(owner) = owner
            && !self.settle(&owner)
        {
            let error = ProtocolError::new(ErrorCode::InboundLimit, "Inbound connection limit exceeded : try later");
            self.reply(&Reply::Error(error)).await?;
            return Ok(Flow::Close);
        }
        if let Place::Settled { house, .. } = &self.seat {
            house.0.logged_in(now_ms());
        }
        self.reply(&Reply::success()).await
    }

    /// A request for an enrolment: its passcode may be guessed, so it counts as a guess until it is right.
    pub(super) async fn on_enroll(&mut self, request: &Request) -> io::Result<Flow> {
        let only = self.shared.accounts.only();
        let guess = match (request, self.household().or(only.as_ref())) {
            (Request::Enroll(enroll), Some(household)) if enroll.operation == EnrollOperation::Request => {
                Some(household.clone())
            }
            _ => None,
        };
        let Some(household) = guess else { return self.perform(request).await };
        if let Err(wait) = self.shared.guesses.count(self.address, &household, Instant::now()) {
            let text = format!("too many wrong passcodes : try again in {} seconds", wait.as_secs() + 1);
            return self.refuse(ProtocolError::new(ErrorCode::InternalException, text).into()).await;
        }
        if !matches!(self.plan(request), Err(Refusal::WrongPasscode)) {
            self.shared.guesses.was_right(self.address, &household);
        }
        self.perform(request).await
    }

    fn prove(&mut self, proof: &Request) -> Result<(), Refusal> {
        if self.connection.is_monitoring() {
            return Err(on_monitor().into());
        }
        let now = Instant::now();
        let who = self.connection.claimant().cloned();
        let shared = &self.shared;
        let reserved = |name: &str| -> Result<Option<Zeroizing<String>>, StoreError> {
            let Some(who) = &who else { return Ok(None) };
            let record = shared.store.get(who, &AtKey::private_key(name))?;
            Ok(record.map(|record| Zeroizing::new(record.value)))
        };
        match proof {
            Request::Cram(cram) => {
                let secret = reserved("at_secret")?;
                self.connection.on_cram(cram, secret.as_ref().map(|text| text.as_str()), now)?;
            }
            Request::Pkam(pkam) => match (&pkam.enrollment_id, &who) {
                (Some(id), Some(who)) => {
                    let enrollment = enrollments::find(shared.store.as_ref(), who, id, now_ms())?;
                    self.connection.on_enrolled_pkam(pkam, enrollment, now)?;
                }
                _ => {
                    let key = reserved("at_pkam_publickey")?;
                    self.connection.on_legacy_pkam(pkam, key.as_ref().map(|text| text.as_str()), now)?;
                }
            },
            _ => return Err(ProtocolError::invalid_command().into()),
        }
        Ok(())
    }

    /// Takes a place among those who have proved who they are. False: there is none.
    fn settle(&mut self, owner: &AtSign) -> bool {
        let limit = self.shared.limits.household_connections;
        self.shared.hub.sit(owner, limit).is_some_and(|house| self.sit_down(house))
    }

    /// The same with a place in a house that was found. False: the server is full.
    pub(super) fn sit_down(&mut self, house: HouseSeat) -> bool {
        let seat = match std::mem::replace(&mut self.seat, Place::Standing) {
            Place::Anonymous(seat) => seat.settle(),
            Place::Settled { _seat, house, .. } => {
                house.0.large_lines.fetch_sub(std::mem::take(&mut self.charged), std::sync::atomic::Ordering::Relaxed);
                Some(_seat)
            }
            Place::Standing => None,
        };
        let Some(_seat) = seat else { return false };
        let rights = house.0.rights.subscribe();
        self.seat = Place::Settled { house, rights, _seat };
        true
    }
}

/// Whoever listens stays who it is: pushes must never reach a connection that lost its rights.
pub(super) fn on_monitor() -> ProtocolError {
    ProtocolError::new(ErrorCode::InternalException, "a monitoring connection cannot authenticate again")
}
