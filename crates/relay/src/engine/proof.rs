//! How a guest proves whose it is: by a line it sends first, or by its answer to a challenge.

use std::time::Instant;

use postern_proto::SigningKeyName;
use postern_rendezvous::escr::{ACCEPTED, REFUSED};
use postern_rendezvous::limits::AUTH_LINE_BYTES;
use postern_rendezvous::{
    AdvertisedKeys, AuthFailure, AuthMode, Challenge, Claim, Detection, EscrLine, Opening, Proven, Side,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};

use super::guest::Guest;
use super::{EscrSpec, Live, Modes};
use crate::limits::KEY_FETCH;

/// How much of a line is read at once; a usual one has about 580 bytes.
const READ_BYTES: usize = 1024;

/// What a guest has shown.
pub(super) struct Shown {
    pub(super) number: Option<u32>,
    /// The key that proved it and what its record said; none for lines.
    pub(super) key: Option<(SigningKeyName, String)>,
}

/// Lets a guest at a port of `side` prove itself. None: the socket died.
pub(super) async fn show(side: Side, guest: &mut Guest, live: &Live) -> Option<Result<Shown, AuthFailure>> {
    let shown = match opening(side, guest, live).await? {
        Opening::Line => line(side, guest, live).await?,
        Opening::Challenge => proof(side, guest, live).await?,
        Opening::Wait(_) | Opening::Nonsense => Err(AuthFailure::Malformed),
    };
    match &shown {
        Ok(shown) => {
            let mode = if shown.key.is_some() { AuthMode::Escr } else { AuthMode::Payload };
            live.known.send_if_modified(|known| {
                let place = &mut known[usize::from(side == Side::B)];
                let news = place.as_ref() != Some(&mode);
                *place = Some(mode);
                news
            });
        }
        Err(_) if live.spec.escr.is_some() => refuse(guest),
        Err(_) => {}
    }
    Some(shown)
}

/// Finds out who speaks first. None: the socket died.
async fn opening(side: Side, guest: &mut Guest, live: &Live) -> Option<Opening> {
    match &live.spec.modes {
        _ if live.spec.escr.is_none() => return Some(Opening::Line),
        Modes::One(AuthMode::Escr) => return Some(Opening::Challenge),
        Modes::One(_) => return Some(Opening::Line),
        Modes::Detect(_) => {}
    }
    let detection = Detection::new(live.detect_window, Instant::now());
    let mut known = live.known.subscribe();
    let mut first = [0];
    loop {
        let hint = known.borrow_and_update()[usize::from(side == Side::B)].clone();
        let until = match detection.opening(None, hint.as_ref(), Instant::now()) {
            Opening::Wait(until) => until,
            decided => return Some(decided),
        };
        tokio::select! {
            biased; // what it says counts more than what others say of it
            seen = guest.socket.tcp().peek(&mut first) => {
                let first = (seen.ok()? == 1).then(|| first[0])?;
                return Some(detection.opening(Some(first), hint.as_ref(), Instant::now()));
            }
            changed = known.changed() => changed.ok()?,
            () = sleep_until(until.into()) => {}
        }
    }
}

async fn line(side: Side, guest: &mut Guest, live: &Live) -> Option<Result<Shown, AuthFailure>> {
    let line = match read_line(guest).await? {
        Ok(line) => line,
        Err(why) => return Some(Err(why)),
    };
    let spec = &live.spec;
    let number = spec.expected.check(&line, |text, signature, hash| (spec.verify)(side, text, signature, hash));
    Some(number.map(|number| Shown { number, key: None }))
}

async fn proof(side: Side, guest: &mut Guest, live: &Live) -> Option<Result<Shown, AuthFailure>> {
    let Some(escr) = &live.spec.escr else { return Some(Err(AuthFailure::Malformed)) };
    let (challenge, line) = match ask(guest).await? {
        Ok(asked) => asked,
        Err(why) => return Some(Err(why)),
    };
    let claim = EscrLine::parse(&line).and_then(|line| line.open(&escr.key, &challenge, &escr.parties, Some(side)));
    let (proven, record) = match claim {
        Ok(claim) => match verify(claim, escr).await {
            Ok(proven) => proven,
            Err(why) => return Some(Err(why)),
        },
        Err(why) => return Some(Err(why)),
    };
    accept(guest).await?;
    Some(Ok(Shown { number: proven.number(), key: Some((proven.key().clone(), record)) }))
}

/// Sends a new challenge and reads the line that answers it. None: the socket died.
pub(super) async fn ask(guest: &mut Guest) -> Option<Result<(Challenge, Vec<u8>), AuthFailure>> {
    let challenge = Challenge::new(postern_crypto::random());
    guest.socket.write_all(challenge.line().as_bytes()).await.ok()?;
    Some(read_line(guest).await?.map(|line| (challenge, line)))
}

/// Fetches the key that a claim names and checks the signature. Gives what the record said as well.
pub(super) async fn verify(claim: Claim, escr: &EscrSpec) -> Result<(Proven, String), AuthFailure> {
    let record = timeout(KEY_FETCH, escr.keys.record(claim.name())).await;
    let Ok(Ok(Some(record))) = record else { return Err(AuthFailure::NoKey) };
    let keys = AdvertisedKeys::parse(&record).ok_or(AuthFailure::NoKey)?;
    Ok((claim.verify(&keys)?, record))
}

/// From here on the socket is the peers'. None: it died.
pub(super) async fn accept(guest: &mut Guest) -> Option<()> {
    guest.socket.write_all(format!("{ACCEPTED}\n").as_bytes()).await.ok()
}

/// Says so, if there is room for it: who does not read is not waited for.
pub(super) fn refuse(guest: &Guest) {
    drop(guest.socket.tcp().try_write(format!("{REFUSED}\n").as_bytes()));
}

/// Reads one line, bounded; what came after it is kept. None: the socket died.
pub(super) async fn read_line(guest: &mut Guest) -> Option<Result<Vec<u8>, AuthFailure>> {
    let mut line = Vec::with_capacity(READ_BYTES);
    let end = loop {
        let seen = line.len();
        let room = (AUTH_LINE_BYTES + 1 - seen).min(READ_BYTES);
        let n = (&mut guest.socket).take(room as u64).read_buf(&mut line).await.ok()?;
        if n == 0 {
            return None;
        }
        if let Some(at) = line[seen..].iter().position(|byte| *byte == b'\n') {
            break seen + at + 1;
        }
        if line.len() > AUTH_LINE_BYTES {
            return Some(Err(AuthFailure::TooLong));
        }
    };
    guest.leftover = line.split_off(end);
    Some(Ok(line))
}
