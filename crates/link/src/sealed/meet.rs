//! The way to the other end: a relay that answers, our ticket, and the device's first flight.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Duration;

use postern_net::tasks::Tasks;
use postern_net::tls::{self, Trust};
use postern_net::usage::{Counted, Plane};
use postern_rendezvous::RelayAddress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::end::{End, EndFault, Knocking};
use super::limits::{DIAL_AGAIN, FLIGHT, NEXT_RELAY, REFUSAL_LINE, UNSENT, WRITE_WITHIN};
use super::local::Io;
use super::plan::{Believe, DialError, RelayRefusal, Ticket};
use crate::limits::DIAL;

/// A socket at the relay, our ticket shown, and what was read from it and not looked at.
pub(crate) struct Way {
    pub(crate) socket: Box<dyn Io>,
    pub(crate) read: Vec<u8>,
}

/// Relay codes with which another relay may do better.
const ELSEWHERE: [&str; 5] = ["full", "stopping", "quota", "not-served", "unknown-key"];

/// Dials a relay; the one place where that is done.
async fn dial_relay(relay: &RelayAddress) -> io::Result<Box<dyn Io>> {
    if relay.tls() {
        let trust = trust().map_err(io::Error::other)?;
        let socket = tls::connect_relay(trust, relay.host(), relay.port(), DIAL).await.map_err(io::Error::other)?;
        postern_net::tcp::limit_unsent(socket.tcp(), UNSENT)?;
        return Ok(Box::new(socket));
    }
    let socket = postern_net::proxy::connect_tcp(relay.host(), relay.port(), DIAL).await?;
    postern_net::tcp::limit_unsent(&socket, UNSENT)?;
    Ok(Box::new(Counted::new(socket, Plane::Data)))
}

/// Whose certificates we believe of relays; read when it is first needed.
fn trust() -> Result<&'static Trust, String> {
    static TRUST: OnceLock<Result<Trust, String>> = OnceLock::new();
    TRUST.get_or_init(|| Trust::load().map_err(|error| error.to_string())).as_ref().map_err(Clone::clone)
}

/// A relay that is dialled while a request is still looked at, so that the way there is not waited for afterwards. Nothing is
/// said on the socket before there is a ticket. Dropped: it is closed.
pub struct Ahead {
    relay: RelayAddress,
    coming: oneshot::Receiver<io::Result<Box<dyn Io>>>,
}

impl Ahead {
    /// Begins to dial. To be called for relays only that somebody trusted has named before.
    #[must_use]
    pub fn dial(relay: RelayAddress, tasks: &Tasks) -> Self {
        let (mut tell, coming) = oneshot::channel();
        let address = relay.clone();
        drop(tasks.spawn(async move {
            tokio::select! {
                biased; // not wanted any more
                () = tell.closed() => {}
                dialled = dial_relay(&address) => drop(tell.send(dialled)),
            }
        }));
        Self { relay, coming }
    }
}

/// Dials one relay and shows the ticket.
async fn arrive(relay: &RelayAddress, ticket: String) -> Result<Way, DialError> {
    let unreachable = |error| DialError::Unreachable(relay.clone(), error);
    let socket = dial_relay(relay).await.map_err(unreachable)?;
    show(socket, relay, ticket).await
}

async fn show(mut socket: Box<dyn Io>, relay: &RelayAddress, ticket: String) -> Result<Way, DialError> {
    let unreachable = |error| DialError::Unreachable(relay.clone(), error);
    let mut line = ticket.into_bytes();
    if !line.ends_with(b"\n") {
        line.push(b'\n');
    }
    let written = timeout(WRITE_WITHIN, socket.write_all(&line)).await;
    written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
    Ok(Way { socket, read: Vec::new() })
}

/// The device's way: the first relay that can be dialled. Its refusal, if it refuses, comes later.
pub(crate) async fn to_first(
    relays: &[RelayAddress],
    ticket: &Ticket,
    epoch: u32,
    mut ahead: Option<Ahead>,
) -> Result<Way, DialError> {
    let mut last = None;
    for (place, relay) in relays.iter().enumerate() {
        if let Some(ahead) = ahead.take_if(|ahead| ahead.relay == *relay)
            && let Ok(Ok(socket)) = ahead.coming.await
        {
            let line = ticket(place, epoch).map_err(DialError::Unbelieved)?;
            if let Ok(way) = show(socket, relay, line).await {
                return Ok(way);
            }
        }
        let line = ticket(place, epoch).map_err(DialError::Unbelieved)?;
        match arrive(relay, line).await {
            Ok(way) => return Ok(way),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(no_relay))
}

fn no_relay() -> DialError {
    DialError::Unbelieved("the request names no relay".into())
}

/// The client's way: the relay where the device answers, with the device's answer believed.
pub(crate) async fn meet<K: Knocking, E: End>(
    relays: &[RelayAddress],
    ticket: &Ticket,
    epoch: u32,
    mut knock: K,
    believe: &Believe<K, E>,
    patience: Duration,
) -> Result<(Way, E), DialError> {
    let (relay, mut way) = first_heard(relays, ticket, epoch, patience).await?;
    let answer = timeout(patience, answered(relay, &mut way, &mut knock)).await;
    answer.unwrap_or_else(|_| Err(DialError::Silent(relay.clone())))?;
    believe(knock).await.map(|end| (way, end)).map_err(DialError::Unbelieved)
}

/// Waits at the relays for somebody to say something. The device goes to the first that it can reach, and that is perhaps not
/// the first that we can: while one is silent we wait at the next as well, and look again whether those that we could not
/// reach, or that would not have us, have come back.
async fn first_heard<'a>(
    relays: &'a [RelayAddress],
    ticket: &Ticket,
    epoch: u32,
    patience: Duration,
) -> Result<(&'a RelayAddress, Way), DialError> {
    let (mut rest, mut last) = (relays.iter().enumerate(), None);
    // Where we wait, and where we shall be again.
    let (mut waiting, mut again) = (Vec::new(), Vec::new());
    loop {
        if let Some((place, relay)) = rest.next() {
            let line = ticket(place, epoch).map_err(DialError::Unbelieved)?;
            waiting.push(Box::pin(async move { (place, heard_at(relay, line, patience).await) }));
        } else if waiting.is_empty() && again.is_empty() {
            return Err(last.unwrap_or_else(no_relay));
        }
        let ((place, outcome), is_new) = tokio::select! {
            outcome = first_of(&mut waiting) => (outcome, true),
            outcome = first_of(&mut again) => (outcome, false),
            () = sleep(NEXT_RELAY), if rest.len() > 0 => continue,
        };
        match outcome {
            Ok(heard) => return Ok(heard),
            Err(error @ DialError::Refused(..)) if !is_elsewhere(&error) => return Err(error),
            Err(error) => {
                let goes_on = rest.len() > 0 || !waiting.is_empty();
                if let Some(relay) = relays.get(place).filter(|_| goes_on && is_elsewhere(&error)) {
                    let line = ticket(place, epoch).map_err(DialError::Unbelieved)?;
                    again.push(Box::pin(async move {
                        sleep(DIAL_AGAIN[1]).await;
                        (place, heard_at(relay, line, patience).await)
                    }));
                }
                if is_new {
                    last = Some(error);
                }
            }
        }
    }
}

/// Another relay may do better, and this one later.
fn is_elsewhere(error: &DialError) -> bool {
    match error {
        DialError::Unreachable(..) => true,
        DialError::Refused(_, refusal) => ELSEWHERE.contains(&refusal.code.as_str()),
        _ => false,
    }
}

/// Goes to one relay, and waits until the first bytes are there that are not its refusal.
async fn heard_at(relay: &RelayAddress, ticket: String, patience: Duration) -> Result<(&RelayAddress, Way), DialError> {
    let mut way = arrive(relay, ticket).await?;
    let heard = timeout(patience, heard(relay, &mut way)).await;
    heard.unwrap_or_else(|_| Err(DialError::Silent(relay.clone()))).map(|()| (relay, way))
}

async fn heard(relay: &RelayAddress, way: &mut Way) -> Result<(), DialError> {
    loop {
        let read = way.socket.read_buf(&mut way.read).await.unwrap_or(0);
        if !way.read.is_empty() && !is_refusal(&way.read) {
            return Ok(());
        }
        match refusal(&way.read) {
            Some(refusal) if read == 0 || is_whole(&way.read) => {
                return Err(DialError::Refused(relay.clone(), refusal));
            }
            _ if read == 0 => return Err(DialError::Silent(relay.clone())),
            _ => {}
        }
    }
}

/// The outcome of the first that has one; it is taken out.
async fn first_of<F: Future + Unpin>(futures: &mut Vec<F>) -> F::Output {
    poll_fn(|cx| {
        for place in 0..futures.len() {
            if let Some(future) = futures.get_mut(place)
                && let Poll::Ready(outcome) = Pin::new(future).poll(cx)
            {
                drop(futures.swap_remove(place));
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    })
    .await
}

/// Reads until the reply is whole, of which the first bytes are there. What is read behind it stays in `way`.
async fn answered<K: Knocking>(relay: &RelayAddress, way: &mut Way, knock: &mut K) -> Result<(), DialError> {
    loop {
        let taken = knock.read(&way.read).map_err(DialError::Handshake)?;
        way.read.drain(..taken.min(way.read.len()));
        if knock.answered() {
            return Ok(());
        }
        if way.read.len() > FLIGHT {
            return Err(DialError::Handshake(EndFault("it sent a flight that does not end".into())));
        }
        if way.socket.read_buf(&mut way.read).await.unwrap_or(0) == 0 {
            return Err(DialError::CutShort(relay.clone()));
        }
    }
}

/// True when what came is the relay's `!` and not the other end's TLS.
pub(crate) fn is_refusal(read: &[u8]) -> bool {
    read.first() == Some(&b'!')
}

/// True when its line has ended, or will not.
pub(crate) fn is_whole(read: &[u8]) -> bool {
    read.len() > REFUSAL_LINE || read.contains(&b'\n')
}

/// Reads `!code text`; what is not printable is shown as `?`.
pub(crate) fn refusal(read: &[u8]) -> Option<RelayRefusal> {
    let line = read.strip_prefix(b"!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    let line = line.get(..line.len().min(REFUSAL_LINE))?;
    let line: String =
        String::from_utf8_lossy(line).trim_end().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    let (code, text) = line.split_once(' ').unwrap_or((&line, ""));
    Some(RelayRefusal { code: code.to_owned(), text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_word_and_printable_text() {
        let parsed = |line: &[u8]| refusal(line).map(|r| (r.code, r.text));
        assert_eq!(parsed(b"!full try later\nmore"), Some(("full".into(), "try later".into())));
        assert_eq!(parsed(b"!alone"), Some(("alone".into(), String::new())));
        assert_eq!(parsed(b"!x \x1b[2J\r\n"), Some(("x".into(), "?[2J".into())));
        assert_eq!(parsed(b"\x16\x03\x03"), None);
    }

    /// A device whose network forbids the first relay, or that found it dead a moment ago, waits at the second.
    #[tokio::test]
    async fn the_device_is_heard_at_a_relay_that_is_not_the_first_which_can_be_reached() {
        let bind = || async { tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap() };
        let (silent, spoken) = (bind().await, bind().await);
        let relay = |listener: &tokio::net::TcpListener| {
            RelayAddress::new("127.0.0.1", listener.local_addr().unwrap().port(), false).unwrap()
        };
        let relays = [relay(&silent), relay(&spoken)];
        let ticket: Ticket = Box::new(|place, epoch| Ok(format!("ticket:{place}:{epoch}\n")));
        let second = async {
            let (mut socket, _) = spoken.accept().await.unwrap();
            socket.write_all(b"\x16\x03").await.unwrap();
            socket
        };
        let patience = Duration::from_secs(60);
        let (heard, _socket) = tokio::join!(first_heard(&relays, &ticket, 0, patience), second);
        let (relay, way) = heard.unwrap();
        assert_eq!((relay, &*way.read), (&relays[1], &b"\x16\x03"[..]));
        // The silent one was given a ticket as well, and no more.
        let (mut first, _) = silent.accept().await.unwrap();
        let mut said = Vec::new();
        first.read_to_end(&mut said).await.unwrap();
        assert_eq!(said, b"ticket:0:0\n");
    }

    /// It was started again: the device, which came a little later, is there. The other has ended by then.
    #[tokio::test]
    async fn a_relay_that_was_down_is_looked_at_again_while_we_wait_at_the_next() {
        let bind = |port: u16| async move { tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap() };
        let (down, silent) = (bind(0).await, bind(0).await);
        let port_of = |listener: &tokio::net::TcpListener| listener.local_addr().unwrap().port();
        let ports = [port_of(&down), port_of(&silent)];
        let relays = ports.map(|port| RelayAddress::new("127.0.0.1", port, false).unwrap());
        drop(down);
        let ticket: Ticket = Box::new(|place, _| Ok(format!("ticket:{place}\n")));
        let first = async {
            let waits = silent.accept().await.unwrap();
            let (mut socket, _) = bind(ports[0]).await.accept().await.unwrap();
            drop(waits);
            socket.write_all(b"\x16").await.unwrap();
            socket
        };
        let heard = first_heard(&relays, &ticket, 1, Duration::from_secs(60));
        let (heard, _socket) = tokio::join!(heard, first);
        assert_eq!(heard.unwrap().0, &relays[0]);
    }

    #[tokio::test]
    async fn a_relay_that_refuses_is_told_of_when_it_was_the_last() {
        let ticket: Ticket = Box::new(|_, _| Ok("ticket".into()));
        let mut relays = Vec::new();
        let mut tasks = Vec::new();
        for says in ["!full come later\n", "!quota too much"] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            relays.push(RelayAddress::new("127.0.0.1", listener.local_addr().unwrap().port(), false).unwrap());
            tasks.push(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 7]).await.unwrap();
                socket.write_all(says.as_bytes()).await.unwrap();
            });
        }
        let second = tasks.pop().unwrap();
        let first = tasks.pop().unwrap();
        let heard = first_heard(&relays, &ticket, 0, Duration::from_secs(60));
        let (heard, (), ()) = tokio::join!(heard, first, second);
        let Err(DialError::Refused(relay, refusal)) = heard else { panic!("somebody was heard") };
        assert_eq!((&relay, &*refusal.code), (&relays[1], "quota"));
    }

    #[tokio::test]
    async fn what_was_dialled_ahead_is_the_way_and_nothing_was_said_on_it_before() {
        let tasks = Tasks::new();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let relay = |port| RelayAddress::new("127.0.0.1", port, false).unwrap();
        let ticket: Ticket = Box::new(|place, epoch| Ok(format!("ticket:{place}:{epoch}\n")));
        let ahead = Ahead::dial(relay(port), &tasks);
        let (mut accepted, _) = listener.accept().await.unwrap();
        assert_eq!(accepted.try_read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // It is used where the plan has come to its relay.
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let way = to_first(&[relay(nobody), relay(port)], &ticket, 0, Some(ahead)).await.unwrap();
        let mut line = [0; 11];
        accepted.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"ticket:1:0\n");
        drop(way);
        assert_eq!(accepted.read(&mut line).await.unwrap(), 0);
        // One that was not needed is closed; one that came to nothing is dialled again.
        drop(Ahead::dial(relay(port), &tasks));
        let lost = Ahead { relay: relay(port), coming: oneshot::channel().1 };
        let way = to_first(&[relay(port)], &ticket, 0, Some(lost)).await.unwrap();
        loop {
            let (mut accepted, _) = listener.accept().await.unwrap();
            if accepted.read(&mut line).await.unwrap() > 0 {
                break;
            }
        }
        drop(way);
    }
}
