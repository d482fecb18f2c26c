//! The agent itself: who asks, what for, and when it is time to go.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postern_net::tasks::Tasks;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::limits::{CONNECTIONS, GOODBYE, QUESTION, SWEEP_EVERY};
use super::place::{Listening, is_ours, surroundings};
use super::sessions::{Dialler, Sessions};
use super::wire::{receive, send};
use super::words::{Answer, Ask, Question, Status, Wish};

pub(super) struct Keeper {
    sessions: Sessions,
    stop: CancellationToken,
    /// Nobody has asked for anything since; `None` while somebody is served.
    quiet_since: watch::Sender<Instant>,
    guests: AtomicUsize,
    idle: Duration,
    begun: Instant,
    /// Held by those who wait for our end.
    farewell: Mutex<Vec<UnixStream>>,
}

/// Serves until `stop`, until it is told to go, or until nobody has wanted anything for `idle`.
pub(super) async fn keep(
    listening: Listening,
    idle: Duration,
    stop: CancellationToken,
    dialler: Box<dyn Dialler>,
    tasks: Tasks,
) {
    let keeper = Arc::new(Keeper {
        sessions: Sessions::new(dialler, tasks.clone()),
        stop: stop.clone(),
        quiet_since: watch::Sender::new(Instant::now()),
        guests: AtomicUsize::new(0),
        idle,
        begun: Instant::now(),
        farewell: Mutex::default(),
    });
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased; // stopping first, then those who are here
            () = stop.cancelled() => break,
            accepted = listening.listener.accept() => accepted,
            () = sleep(SWEEP_EVERY) => {
                keeper.sessions.sweep();
                // A socket that was swept away is found by nobody.
                if !listening.is_there() || keeper.is_over() {
                    break;
                }
                continue;
            }
        };
        let Ok((stream, _)) = accepted else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else { continue };
        let keeper = Arc::clone(&keeper);
        tasks.spawn(async move {
            let _seat = seat;
            if let Err(error) = keeper.receive(stream).await {
                tracing::debug!(%error, "a program left");
            }
        });
    }
    drop(listening);
    let _ = timeout(GOODBYE, keeper.sessions.close()).await;
    stop.cancel();
    tasks.close_and_wait(GOODBYE).await;
    drop(keeper.farewell.lock().await.split_off(0));
}

impl Keeper {
    fn is_over(&self) -> bool {
        self.guests.load(Ordering::Relaxed) == 0 && self.quiet_since.borrow().elapsed() >= self.idle
    }

    async fn receive(&self, mut stream: UnixStream) -> io::Result<()> {
        is_ours(&stream)?;
        let asked = timeout(QUESTION, receive::<Question>(&stream)).await;
        let (question, luggage) = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        match question.ask {
            // That must work from wherever it is said.
            Ask::Stop => {
                send(&mut stream, &Answer::Stopping, None).await?;
                self.farewell.lock().await.push(stream);
                self.stop.cancel();
                Ok(())
            }
            Ask::Close => {
                self.sessions.close().await;
                send(&mut stream, &Answer::Ended, None).await
            }
            Ask::Status => send(&mut stream, &Answer::Status(Box::new(self.status())), None).await,
            Ask::Stream(_) if question.surroundings != surroundings() => {
                let why = "it runs with another version or other variables (HOME, XDG_*, POSTERN_*)".to_owned();
                send(&mut stream, &Answer::GoAlone { why }, None).await
            }
            Ask::Stream(wish) => {
                self.guests.fetch_add(1, Ordering::Relaxed);
                let outcome = self.serve(&mut stream, *wish, luggage).await;
                self.guests.fetch_sub(1, Ordering::Relaxed);
                self.quiet_since.send_replace(Instant::now());
                outcome
            }
        }
    }

    async fn serve(&self, control: &mut UnixStream, wish: Wish, luggage: Option<OwnedFd>) -> io::Result<()> {
        let data = luggage.ok_or(io::ErrorKind::InvalidData)?;
        let data = std::os::unix::net::UnixStream::from(data);
        let begun = tokio::select! {
            begun = self.sessions.begin(wish, data) => begun,
            () = gone(control) => return Ok(()),
            () = self.stop.cancelled() => return send(control, &Answer::GoAlone { why: "it stops".into() }, None).await,
        };
        let stream = match begun {
            Ok(stream) => stream,
            Err(failure) => return send(control, &Answer::from(failure), None).await,
        };
        send(control, &Answer::Begun { live: stream.live, told: stream.told.clone() }, None).await?;
        let ended = tokio::select! {
            ended = stream.run() => ended,
            // The stream is reset with the future that carried it.
            () = gone(control) => return Ok(()),
        };
        match ended {
            Ok(()) => send(control, &Answer::Ended, None).await,
            Err(failure) => send(control, &Answer::from(failure), None).await,
        }
    }

    fn status(&self) -> Status {
        let busy = self.guests.load(Ordering::Relaxed) > 0;
        let left = self.idle.saturating_sub(self.quiet_since.borrow().elapsed());
        Status {
            pid: std::process::id(),
            uptime_seconds: self.begun.elapsed().as_secs(),
            ends_in_seconds: if busy { 0 } else { left.as_secs() },
            sessions: self.sessions.status(),
        }
    }
}

/// Waits until the program has gone. It says nothing after its question.
async fn gone(control: &UnixStream) {
    let mut byte = [0; 1];
    loop {
        if control.readable().await.is_err() {
            return;
        }
        match control.try_read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
