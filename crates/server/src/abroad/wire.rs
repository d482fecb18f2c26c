//! One connection to another operator's server: lines out, answers in, everything bounded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use postern_dialogue::peer::PeerAnswer;
use postern_net::tls::{TlsStream, Trust, connect_where};
use postern_proto::{LineReader, ServerAddress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::address::may_dial;
use super::error::PeerError;
use crate::limits::{FREE_LINE_BYTES, PEER_CONNECT, PEER_SMALL_ANSWER_BYTES, READ_BYTES, WRITE_LIMIT};

/// A TLS connection on which we ask.
pub(super) struct PeerWire {
    stream: TlsStream,
    reader: LineReader,
    /// Memory for long answers, shared by all connections.
    memory: Arc<Semaphore>,
}

impl PeerWire {
    /// Connects. Answers are short until [`Self::set_limit`] allows more.
    pub(super) async fn dial(
        trust: &Trust,
        to: &ServerAddress,
        private: bool,
        memory: &Arc<Semaphore>,
    ) -> Result<Self, PeerError> {
        let stream = connect_where(trust, &to.host, to.port, PEER_CONNECT, |ip| private || may_dial(ip)).await?;
        Ok(Self { stream, reader: LineReader::new(PEER_SMALL_ANSWER_BYTES), memory: Arc::clone(memory) })
    }

    /// Longest answer in bytes from now on.
    pub(super) fn set_limit(&mut self, bytes: usize) {
        self.reader.set_limit(bytes);
    }

    /// Whether the address at the other end is one of a private network.
    pub(super) fn is_private(&self) -> bool {
        self.stream.tcp().peer_addr().is_ok_and(|address| !may_dial(address.ip().to_canonical()))
    }

    /// Sends one line.
    pub(super) async fn say(&mut self, line: &str) -> Result<(), PeerError> {
        let work = async {
            self.stream.write_all(format!("{line}\n").as_bytes()).await?;
            self.stream.flush().await
        };
        match timeout(WRITE_LIMIT, work).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost(&error)),
            Err(_) => Err(PeerError::TooSlow("sending to the other server")),
        }
    }

    /// The next answer. `prompt`: a prompt alone may be one. `limit` bounds the wait for all of it.
    pub(super) async fn answer(&mut self, prompt: bool, limit: Duration) -> Result<PeerAnswer, PeerError> {
        let work = self.read(|reader| {
            while let Some(line) = reader.next_line().map_err(|_| PeerError::Nonsense)? {
                if let Some(answer) = PeerAnswer::from_line(&String::from_utf8_lossy(line)) {
                    return Ok(Some(answer));
                }
            }
            Ok(prompt.then(|| PeerAnswer::from_unfinished(reader.unfinished())).flatten())
        });
        timeout(limit, work).await.unwrap_or(Err(PeerError::TooSlow("the other server's answer")))
    }

    /// The next line as it is.
    pub(super) async fn line(&mut self, limit: Duration) -> Result<String, PeerError> {
        let work = self.read(|reader| {
            let line = reader.next_line().map_err(|_| PeerError::Nonsense)?;
            Ok(line.map(|line| String::from_utf8_lossy(line).into_owned()))
        });
        timeout(limit, work).await.unwrap_or(Err(PeerError::TooSlow("the directory's answer")))
    }

    /// Asks and waits for the answer.
    pub(super) async fn ask(&mut self, line: &str, limit: Duration) -> Result<PeerAnswer, PeerError> {
        self.say(line).await?;
        self.answer(false, limit).await
    }

    async fn read<T>(
        &mut self,
        mut take: impl FnMut(&mut LineReader) -> Result<Option<T>, PeerError>,
    ) -> Result<T, PeerError> {
        let mut chunk = Vec::new();
        let mut charged: Option<OwnedSemaphorePermit> = None;
        loop {
            if let Some(done) = take(&mut self.reader)? {
                return Ok(done);
            }
            let held = self.reader.unfinished().len();
            let paid = charged.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            if held > FREE_LINE_BYTES && held > paid {
                let more = u32::try_from(held - paid).unwrap_or(u32::MAX);
                let more = Arc::clone(&self.memory).try_acquire_many_owned(more).map_err(|_| PeerError::TooMany)?;
                match &mut charged {
                    Some(charged) => charged.merge(more),
                    None => charged = Some(more),
                }
            }
            chunk.resize(READ_BYTES, 0);
            match self.stream.read(&mut chunk).await {
                Ok(0) => return Err(PeerError::Unreachable("the other server closed the connection".to_owned())),
                Ok(n) => self.reader.extend(chunk.get(..n).unwrap_or_default()),
                Err(error) => return Err(lost(&error)),
            }
        }
    }
}

fn lost(error: &io::Error) -> PeerError {
    PeerError::Unreachable(format!("the connection to the other server broke: {error}"))
}
