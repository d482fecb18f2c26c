//! One connection: lines in, replies and pushes out.

mod owner;
mod stranger;
mod visitor;

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use postern_dialogue::server::{Authority, Connection};
use postern_net::seats::{Seat, SettledSeat};
use postern_net::tls::ServerStream;
use postern_proto::{AtSign, DirectoryQuery, ErrorCode, LineReader, LineTooLong, ProtocolError, Reply, Request};
use postern_store::StoreError;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use crate::abroad::Counted;
use crate::hub::HouseSeat;
use crate::limits::{
    ANONYMOUS_LINE_BYTES, DIRECTORY_IDLE, FAREWELL, FAREWELL_BYTES, FREE_LINE_BYTES, LARGE_LINES_BYTES, READ_BYTES,
    TLS_HANDSHAKE, VISITOR_IDLE,
};
use crate::serve::{Shared, now_ms};
use crate::verbs::Refusal;
use crate::wire;

use owner::Monitoring;

/// A connection and all that belongs to it. Idle ones are the normal case, in thousands: they hold no buffer.
pub(crate) struct Guest {
    shared: Arc<Shared>,
    stream: ServerStream,
    reader: LineReader,
    connection: Connection,
    talk: Talk,
    address: IpAddr,
    /// The household whose own port this is.
    port_of: Option<AtSign>,
    /// Whose public data a stranger looked at last.
    asked_about: Option<AtSign>,
    seat: Place,
    monitor: Option<Box<Monitoring>>,
    /// Its place among the connections of its atSign, when it is another operator's server.
    visit: Option<Counted<AtSign>>,
    /// When an anonymous connection is closed.
    idle: Option<Pin<Box<Sleep>>>,
    /// What the household's account of long lines holds for this connection.
    charged: usize,
}

/// Which of the two languages is spoken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Talk {
    /// Nothing said yet that would tell.
    Open,
    /// Names in, addresses out.
    Directory,
    /// Verbs.
    Server,
}

enum Place {
    Anonymous(Seat),
    Settled {
        house: HouseSeat,
        /// Rings when enrolments of the household lost their rights.
        rights: watch::Receiver<()>,
        _seat: SettledSeat,
    },
    /// Between the two.
    Standing,
}

/// A line, understood.
enum Heard {
    Question(DirectoryQuery),
    Request(Box<Request>),
    Unreadable(ProtocolError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    GoOn,
    Close,
}

/// Timers are set a week ahead at most and then looked at again.
const FARTHEST_MS: i64 = 7 * 24 * 3600 * 1000;

enum Wake {
    /// Bytes were read; none: the peer has said all it will.
    Read(io::Result<usize>),
    Pushes,
    /// The authority may be gone.
    Rights,
    /// Idle, asked to leave, or the server stops.
    Leave,
}

/// Serves an accepted socket until it ends.
pub(crate) async fn receive(shared: Arc<Shared>, tcp: TcpStream, address: IpAddr, port_of: Option<AtSign>, seat: Seat) {
    // Boxed, for a handshake's state is large and this task lives for weeks.
    let handshake = Box::pin(timeout(TLS_HANDSHAKE, shared.tls.accept(tcp)));
    let leave = seat.leave_token().clone();
    let stream = tokio::select! {
        biased; // leaving first: that is what makes room
        () = shared.tasks.token().cancelled() => return,
        () = leave.cancelled() => return,
        done = handshake => match done {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%address, "TLS handshake too slow"),
        },
    };
    let mut guest = Box::new(Guest::new(shared, stream, address, port_of, seat));
    if let Err(error) = guest.converse().await {
        tracing::debug!(%address, %error, "connection ended");
    }
}

impl Guest {
    fn new(shared: Arc<Shared>, stream: ServerStream, address: IpAddr, port_of: Option<AtSign>, seat: Seat) -> Self {
        let talk = if port_of.is_some() { Talk::Server } else { Talk::Open };
        Self {
            shared,
            stream,
            reader: LineReader::new(ANONYMOUS_LINE_BYTES),
            connection: Connection::new(),
            talk,
            address,
            port_of,
            asked_about: None,
            seat: Place::Anonymous(seat),
            monitor: None,
            visit: None,
            idle: None,
            charged: 0,
        }
    }

    async fn converse(&mut self) -> io::Result<()> {
        self.write(b"@").await?;
        self.restart_idle();
        loop {
            loop {
                let heard = match self.reader.next_line() {
                    // A sign of life of a device that counts its bytes: TCP has acknowledged it.
                    Ok(Some([])) if self.connection.authority().is_some() && self.stream.speaks_postern() => continue,
                    Ok(Some(line)) => hear(self.talk, line),
                    Ok(None) => break,
                    Err(LineTooLong) => return self.too_long().await,
                };
                // Boxed, for this too is large and rare.
                if Box::pin(self.on_heard(heard)).await? == Flow::Close {
                    return self.hang_up().await;
                }
                self.restart_idle();
            }
            if self.talk != Talk::Server && self.reader.unfinished() == b"@exit" {
                return self.hang_up().await;
            }
            if self.charge().is_err() {
                return self.too_long().await;
            }
            match self.wait().await {
                Wake::Read(Ok(0)) | Wake::Leave => return Ok(()),
                Wake::Read(Ok(_)) => {}
                Wake::Read(Err(error)) => return Err(error),
                Wake::Rights => {
                    if self.recheck().await? == Flow::Close {
                        return self.hang_up().await;
                    }
                    self.restart_idle();
                }
                Wake::Pushes => self.push_waiting().await?,
            }
        }
    }

    async fn wait(&mut self) -> Wake {
        let over_is = if self.connection.authority().is_some() { Wake::Rights } else { Wake::Leave };
        tokio::select! {
            biased; // the end first, then what was promised, then what is asked
            () = self.shared.tasks.token().cancelled() => Wake::Leave,
            wake = called(&mut self.seat) => wake,
            () = ring(self.monitor.as_deref()) => Wake::Pushes,
            read = fill(&mut self.stream, &mut self.reader) => Wake::Read(read),
            () = over(&mut self.idle) => over_is,
        }
    }

    async fn on_heard(&mut self, heard: Heard) -> io::Result<Flow> {
        match heard {
            Heard::Question(question) => self.on_question(question).await,
            Heard::Unreadable(error) => self.reply(&Reply::Error(error)).await,
            Heard::Request(request) => {
                if self.talk != Talk::Server {
                    self.talk = Talk::Server;
                }
                self.on_request(&request).await
            }
        }
    }

    async fn on_request(&mut self, request: &Request) -> io::Result<Flow> {
        match request {
            Request::Exit => Ok(Flow::Close),
            Request::From(from) => self.on_from(from).await,
            Request::Cram(_) | Request::Pkam(_) => self.on_proof(request).await,
            Request::Pol => self.on_pol().await,
            Request::Monitor(monitor) => self.on_monitor(monitor).await,
            Request::Noop(noop) => self.on_noop(*noop).await,
            Request::Batch(batch) => self.on_batch(batch).await,
            Request::Enroll(_) if self.connection.authority().is_none() => self.on_enroll(request).await,
            _ => match self.errand(request) {
                Some(errand) => self.on_errand(errand).await,
                None => self.perform(request).await,
            },
        }
    }

    /// Answers with the prompt of this moment.
    async fn reply(&mut self, reply: &Reply) -> io::Result<Flow> {
        let text = reply.print(&self.connection.prompt(), self.connection.error_shape());
        if !text.is_empty() {
            self.write(text.as_bytes()).await?;
        }
        Ok(Flow::GoOn)
    }

    async fn refuse(&mut self, refusal: Refusal) -> io::Result<Flow> {
        let error = self.error_of(refusal);
        self.reply(&Reply::Error(error)).await
    }

    fn error_of(&self, refusal: Refusal) -> ProtocolError {
        match refusal {
            Refusal::Protocol(error) => error,
            Refusal::Store(error) => {
                self.shared.store_failed(&error);
                ProtocolError::new(ErrorCode::DataStore, store_text(&error))
            }
            Refusal::WrongPasscode => {
                ProtocolError::new(ErrorCode::InternalException, "invalid otp. Cannot process enroll request")
            }
        }
    }

    async fn write(&mut self, message: &[u8]) -> io::Result<()> {
        if self.connection.authority().is_some() {
            return wire::write(&mut self.stream, message).await;
        }
        // Strangers are made to leave even while they do not read.
        tokio::select! {
            biased; // see `wait`
            () = asked_to_leave(&self.seat) => Err(io::ErrorKind::ConnectionAborted.into()),
            done = wire::write(&mut self.stream, message) => done,
        }
    }

    /// Only anonymous connections are closed for being idle; the kernel notices dead ones. Some enrolments end.
    fn restart_idle(&mut self) {
        let limit = match self.connection.authority().map(Authority::expires_at) {
            None if self.connection.peer().is_some() => VISITOR_IDLE,
            None if self.talk == Talk::Directory => DIRECTORY_IDLE,
            None => self.shared.limits.anonymous_idle,
            Some(Some(end)) => Duration::from_millis(end.saturating_sub(now_ms()).clamp(1, FARTHEST_MS).unsigned_abs()),
            Some(None) => {
                self.idle = None;
                return;
            }
        };
        let end = Instant::now() + limit;
        match &mut self.idle {
            Some(idle) => idle.as_mut().reset(end),
            None => self.idle = Some(Box::pin(sleep_until(end))),
        }
    }

    /// Long unfinished lines are on the household's account, so that a few connections cannot fill the memory.
    fn charge(&mut self) -> Result<(), LineTooLong> {
        let held = self.reader.unfinished().len();
        let wanted = if held > FREE_LINE_BYTES { held } else { 0 };
        let Place::Settled { house, .. } = &self.seat else { return Ok(()) };
        let account = &house.0.large_lines;
        if wanted < self.charged {
            account.fetch_sub(self.charged - wanted, Ordering::Relaxed);
            self.charged = wanted;
        } else if wanted > self.charged {
            let more = wanted - self.charged;
            let before = account.fetch_add(more, Ordering::Relaxed);
            self.charged = wanted;
            if before + more > LARGE_LINES_BYTES {
                return Err(LineTooLong);
            }
        }
        Ok(())
    }

    async fn too_long(&mut self) -> io::Result<()> {
        let text = "a request is longer than this server reads : connection closed";
        self.reply(&Reply::Error(ProtocolError::new(ErrorCode::BufferLimit, text))).await?;
        self.hang_up().await?;
        // What the peer still sends is thrown away for a moment, or a reset would overtake the reply.
        self.reader = LineReader::new(0);
        let work = async {
            let mut drained = 0;
            while drained < FAREWELL_BYTES {
                let Ok(n @ 1..) = fill(&mut self.stream, &mut self.reader).await else { break };
                self.reader = LineReader::new(0);
                drained += n;
            }
        };
        let _ = timeout(FAREWELL, work).await;
        Ok(())
    }

    async fn hang_up(&mut self) -> io::Result<()> {
        timeout(FAREWELL, self.stream.shutdown()).await.unwrap_or(Ok(()))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Place::Settled { house, .. } = &self.seat {
            house.0.large_lines.fetch_sub(self.charged, Ordering::Relaxed);
        }
    }
}

/// The seat is wanted, or what was proved on it may not count any more.
async fn called(seat: &mut Place) -> Wake {
    match seat {
        Place::Anonymous(seat) => {
            seat.asked_to_leave().await;
            Wake::Leave
        }
        Place::Settled { rights, .. } => match rights.changed().await {
            Ok(()) => Wake::Rights,
            Err(_) => pending().await, // the household holds the other end, and we the household
        },
        Place::Standing => pending().await,
    }
}

/// Both languages share a port. A bare word is a question to the directory, unless it is a verb.
fn hear(talk: Talk, line: &[u8]) -> Heard {
    let question = DirectoryQuery::parse(line);
    match (talk, question) {
        // A claim may follow the question for one's own atServer: it saves our clients a connection.
        (Talk::Directory, question) if !is_claim(line) => return Heard::Question(question),
        (Talk::Open, DirectoryQuery::Find(name)) if !is_verb(line) && !line.contains(&b':') => {
            return Heard::Question(DirectoryQuery::Find(name));
        }
        _ => {}
    }
    match Request::parse(line) {
        Ok(request) => Heard::Request(Box::new(request)),
        Err(error) => Heard::Unreadable(error),
    }
}

fn is_verb(line: &[u8]) -> bool {
    std::str::from_utf8(line).is_ok_and(|text| Request::is_bare_verb(text.trim()))
}

fn is_claim(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|word| word.eq_ignore_ascii_case(b"from:"))
}

async fn asked_to_leave(seat: &Place) {
    match seat {
        Place::Anonymous(seat) => seat.asked_to_leave().await,
        Place::Settled { .. } | Place::Standing => pending().await,
    }
}

/// Waits until something is to be pushed.
async fn ring(monitor: Option<&Monitoring>) {
    match monitor {
        Some(monitor) => monitor.subscribed.subscription.bell.notified().await,
        None => pending().await,
    }
}

async fn over(idle: &mut Option<Pin<Box<Sleep>>>) {
    match idle {
        Some(idle) => idle.await,
        None => pending().await,
    }
}

thread_local! {
    /// One buffer for all connections of a thread: it is used within one poll, never across a wait.
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// Reads what there is into the line reader. Cancel-safe: bytes are taken and kept in the same poll.
async fn fill(stream: &mut ServerStream, reader: &mut LineReader) -> io::Result<usize> {
    poll_fn(|context| {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) => {
                    reader.extend(buffer.filled());
                    Poll::Ready(Ok(buffer.filled().len()))
                }
            }
        })
    })
    .await
}

/// What the wire is told of a failed store: nothing of disks and paths.
fn store_text(error: &StoreError) -> &'static str {
    match error {
        StoreError::Conflict => "the record is written by others too often : try again",
        StoreError::Full => "no space left : nothing was stored",
        _ => "storage failed : nothing was stored",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(talk: Talk, line: &str) -> &'static str {
        match hear(talk, line.as_bytes()) {
            Heard::Question(DirectoryQuery::Find(_)) => "find",
            Heard::Question(_) => "nonsense",
            Heard::Request(request) => request.verb(),
            Heard::Unreadable(_) => "unreadable",
        }
    }

    #[test]
    fn two_languages_on_one_port() {
        for (talk, line, want) in [
            (Talk::Open, "alice", "find"),
            (Talk::Open, "@alice\r", "find"),
            (Talk::Open, "", "unreadable"),
            (Talk::Open, "scan", "scan"),
            (Talk::Open, "info", "info"),
            (Talk::Open, "update", "unreadable"),
            (Talk::Open, "from:alice", "from"),
            (Talk::Open, "hello world", "unreadable"),
            (Talk::Open, "@exit", "@exit"),
            (Talk::Directory, "", "nonsense"),
            (Talk::Directory, "scan", "find"),
            (Talk::Directory, "from:alice", "from"),
            (Talk::Directory, "pkam:x", "nonsense"),
            (Talk::Server, "alice", "unreadable"),
        ] {
            assert_eq!(word(talk, line), want, "{line:?}");
        }
        assert!(matches!(hear(Talk::Open, b"\xff\xfe"), Heard::Unreadable(_)));
    }
}
