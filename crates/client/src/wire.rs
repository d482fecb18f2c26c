//! One live connection: dialling, the directory, the login, line by line.

use std::time::Duration;

use postern_dialogue::client::Challenge;
use postern_net::tcp;
use postern_net::tls::{self, ConnectError, TlsStream};
use postern_proto::verb::From;
use postern_proto::{AtSign, DirectoryAnswer, LineReader, Request, ServerAddress, ServerLine};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::addresses::AddressBook;
use crate::error::ClientError;
use crate::limits::{LINE_BYTES, REMEMBERED_ADDRESS, REPLY, UNACKNOWLEDGED, WRITE};
use crate::settings::{Identity, Settings};

/// A TLS connection to a directory or an atServer, read by lines.
pub struct Wire {
    stream: TlsStream,
    reader: LineReader,
    chunk: Box<[u8]>,
    /// Who stands at the other end.
    pub address: ServerAddress,
}

/// Size of one read: a TLS record.
const CHUNK: usize = 16 * 1024;

impl Wire {
    /// Connects.
    pub async fn dial(settings: &Settings, address: &ServerAddress, limit: Duration) -> Result<Self, ConnectError> {
        let stream = tls::connect(&settings.trust, &address.host, address.port, limit).await?;
        Ok(Self {
            stream,
            reader: LineReader::new(LINE_BYTES),
            chunk: vec![0; CHUNK].into_boxed_slice(),
            address: address.clone(),
        })
    }

    /// Whether requests may be sent before earlier ones are answered. The
    /// reference takes lines that arrive together for one line.
    pub fn may_pipeline(&self) -> bool {
        self.stream.speaks_postern()
    }

    /// The socket is that of a device which counts its bytes: nothing is asked by the kernel, and what we send is given up
    /// soon.
    pub(crate) fn make_quiet(&self) {
        let socket = self.stream.tcp();
        let tuned = tcp::no_keep_alive(socket).and_then(|()| tcp::limit_unacknowledged(socket, UNACKNOWLEDGED));
        if let Err(error) = tuned {
            tracing::debug!(%error, "the socket cannot be tuned");
        }
    }

    /// Sends complete lines in one record.
    pub async fn send(&mut self, lines: &str) -> Result<(), ClientError> {
        let work = async {
            self.stream.write_all(lines.as_bytes()).await?;
            self.stream.flush().await
        };
        match timeout(WRITE, work).await {
            Ok(sent) => Ok(sent?),
            Err(_) => Err(ClientError::LinkLost),
        }
    }

    /// The next line without its end. Cancel-safe: what was read stays in the reader.
    pub async fn line(&mut self) -> Result<String, ClientError> {
        loop {
            match self.reader.next_line() {
                Ok(Some(line)) => return Ok(String::from_utf8_lossy(line).into_owned()),
                Ok(None) => {}
                Err(_) => return Err(ClientError::Malformed("a line of the server")),
            }
            let n = self.stream.read(&mut self.chunk).await?;
            if n == 0 {
                return Err(ClientError::LinkLost);
            }
            self.reader.extend(self.chunk.get(..n).unwrap_or_default());
        }
    }

    /// Sends a request and waits for its reply; pushes in between are passed over.
    pub async fn ask(&mut self, request: &Request) -> Result<String, ClientError> {
        self.send(&format!("{request}\n")).await?;
        timeout(REPLY, self.reply()).await.unwrap_or(Err(ClientError::TimedOut("a reply of the atServer")))
    }

    /// The next reply.
    pub async fn reply(&mut self) -> Result<String, ClientError> {
        loop {
            match ServerLine::parse(&self.line().await?) {
                ServerLine::Data(text) => return Ok(text),
                ServerLine::Error(error) => return Err(ClientError::Server(error)),
                ServerLine::Push(_) | ServerLine::Other => {}
            }
        }
    }

    async fn directory_answer(&mut self, name: &AtSign) -> Result<ServerAddress, ClientError> {
        let root = self.address.clone();
        match DirectoryAnswer::parse(&self.line().await?) {
            Some(DirectoryAnswer::Found(address)) => Ok(address),
            Some(DirectoryAnswer::Unknown) => Err(ClientError::NotInDirectory(name.clone(), root)),
            None => Err(ClientError::DirectoryNonsense(root)),
        }
    }

    /// Reaches the atServer of `who` and asks for a challenge.
    ///
    /// `known`: where it was last time, tried first. A Postern answers the
    /// directory's question and the claim together when it is both. `limit` bounds
    /// each of the steps.
    pub async fn challenged(
        settings: &Settings,
        who: &AtSign,
        known: Option<&ServerAddress>,
        limit: Duration,
    ) -> Result<(Self, Challenge), ClientError> {
        let work = Self::find_and_claim(settings, who, known, limit);
        timeout(limit * 2, work).await.unwrap_or(Err(ClientError::TimedOut("the atServer's challenge")))
    }

    async fn find_and_claim(
        settings: &Settings,
        who: &AtSign,
        known: Option<&ServerAddress>,
        limit: Duration,
    ) -> Result<(Self, Challenge), ClientError> {
        if let Some(address) = known
            && let Ok(wire) = Self::dial(settings, address, limit).await
        {
            return wire.challenge(who).await;
        }
        let mut root = Self::dial(settings, &settings.root, limit).await.map_err(ClientError::Directory)?;
        let question = format!("{}\n", who.body());
        if root.may_pipeline() {
            root.send(&format!("{question}{}\n", Request::From(From::plain(who.clone())))).await?;
            let address = root.directory_answer(who).await?;
            // Where the atServer lives behind the directory's port it is met there, whatever name or port is given out:
            // a challenge in our name says so.
            match root.reply().await {
                Ok(text) => {
                    if let Some(challenge) = Challenge::parse(&text, who) {
                        return Ok((root, challenge));
                    }
                    if address == root.address {
                        return Err(ClientError::Challenge);
                    }
                }
                Err(error) if address == root.address => return Err(error),
                Err(_) => {}
            }
            return Self::dial(settings, &address, limit).await.map_err(ClientError::Connect)?.challenge(who).await;
        }
        root.send(&question).await?;
        let address = root.directory_answer(who).await?;
        // The reference keeps a connection open for ever unless it is told.
        let _ = root.send("@exit\n").await;
        Self::dial(settings, &address, limit).await.map_err(ClientError::Connect)?.challenge(who).await
    }

    /// The same by the addresses of last time: the remembered one is tried at once, and the directory is asked only when
    /// it fails, or beside it when it is slow. What the directory says is remembered.
    pub(crate) async fn challenged_by_book(
        settings: &Settings,
        who: &AtSign,
        book: &AddressBook,
        limit: Duration,
    ) -> Result<(Self, Challenge), ClientError> {
        // At the directory's own port question and claim travel together: there is nothing to save.
        let known = book.find(&settings.root, who).filter(|address| *address != settings.root);
        let by_directory = async {
            let found = Self::challenged(settings, who, None, limit).await?;
            note(book.remember(&settings.root, who, &found.0.address));
            Ok(found)
        };
        let Some(address) = known else { return by_directory.await };
        let remembered = async {
            let wire = Self::dial(settings, &address, limit).await.map_err(ClientError::Connect)?;
            wire.challenge(who).await
        };
        let (mut remembered, mut by_directory) = (Box::pin(remembered), Box::pin(by_directory));
        match timeout(REMEMBERED_ADDRESS, &mut remembered).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => {
                tracing::debug!(%error, %address, "not at the remembered address");
                note(book.forget(&settings.root, who));
                return by_directory.await;
            }
            Err(_) => tracing::debug!(%address, "slow at the remembered address: asking the directory too"),
        }
        tokio::select! {
            found = &mut by_directory => match found {
                Ok(found) => Ok(found),
                Err(error) => remembered.await.map_err(|_| error),
            },
            found = &mut remembered => match found {
                Ok(found) => Ok(found),
                Err(_) => by_directory.await,
            },
        }
    }

    async fn challenge(mut self, who: &AtSign) -> Result<(Self, Challenge), ClientError> {
        let text = self.ask(&Request::From(From::plain(who.clone()))).await?;
        let challenge = Challenge::parse(&text, who).ok_or(ClientError::Challenge)?;
        Ok((self, challenge))
    }

    /// Reaches the atServer of `identity` and proves who we are. `after` is sent
    /// in the same flight where the server allows it.
    pub(crate) async fn logged_in(
        settings: &Settings,
        identity: &Identity,
        known: Option<&ServerAddress>,
        limit: Duration,
        after: &str,
    ) -> Result<Self, ClientError> {
        let who = &identity.at_sign;
        let (mut wire, challenge) = Self::challenged(settings, who, known, limit).await?;
        let proof = challenge.answer(&identity.keys).map_err(|_| ClientError::Crypto("the challenge"))?;
        let proof = Request::Pkam(proof);
        let pipeline = wire.may_pipeline();
        wire.send(&if pipeline { format!("{proof}\n{after}") } else { format!("{proof}\n") }).await?;
        match wire.reply().await {
            Ok(_) => {}
            Err(ClientError::Server(error)) => return Err(ClientError::LoginRefused(who.clone(), error)),
            Err(error) => return Err(error),
        }
        if !pipeline && !after.is_empty() {
            wire.send(after).await?;
        }
        Ok(wire)
    }
}

/// A cache that cannot be written costs time and nothing else.
fn note(written: std::io::Result<()>) {
    if let Err(error) = written {
        tracing::debug!(%error, "the address is not remembered");
    }
}

/// Asks the directory where the atServer of `who` is.
pub async fn find_server(settings: &Settings, who: &AtSign, limit: Duration) -> Result<ServerAddress, ClientError> {
    let work = async {
        let mut root = Wire::dial(settings, &settings.root, limit).await.map_err(ClientError::Directory)?;
        root.send(&format!("{}\n", who.body())).await?;
        let found = root.directory_answer(who).await;
        let _ = root.send("@exit\n").await;
        found
    };
    timeout(limit, work).await.unwrap_or(Err(ClientError::TimedOut("the atDirectory")))
}
