//! The client's end of a session: a local port, and sockets to the relay.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use postern_net::tasks::Tasks;
use postern_session::{ControlLine, ControlReader, StreamKeys};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::control::{ControlWriter, control_of};
use crate::device::LinkError;
use crate::dial::RelayPort;
use crate::limits::{CONNECTIONS, CONTROL_HEARTBEAT};
use crate::pump::{Carried, Crypt, pump, pump_telling};

/// A session that the device accepted.
pub struct ClientSession {
    /// Our side of the relay.
    pub relay: RelayPort,
    /// The first socket to it, dialled while the device was still deciding.
    pub first: TcpStream,
    /// `None`: not encrypted.
    pub keys: Option<StreamKeys>,
    /// The device holds a key for each direction.
    pub twin: bool,
    /// How often to say something on the control channel; `None`: the device would not understand it.
    pub heartbeat: Option<Duration>,
    /// Announce a connection before its socket has authenticated, in a line without an end, as clients of 2024 do.
    pub announces_first: bool,
    /// For devices whose relay sockets come in any order ([`PAIRING`]): how long the next connection waits for the
    /// device's first byte on the one before. `None`: the device keeps the order.
    pub pairing: Option<Duration>,
    /// Ends the session.
    pub stop: CancellationToken,
}

/// Binds the local end: port 0 lets the system choose.
pub async fn bind_local(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in tokio::net::lookup_host((host, port)).await? {
        // IPv4 first: ssh and most clients try 127.0.0.1 when they are told localhost.
        match bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

impl ClientSession {
    /// One connection: the first one accepted; the local port closes behind it.
    pub async fn single(self, listener: TcpListener) -> Result<Carried, LinkError> {
        match self.stop.clone().run_until_cancelled(accept_one(listener)).await {
            None => Ok(Carried::default()),
            Some(accepted) => {
                let (local, _) = accepted.map_err(|error| self.relay_trouble(error))?;
                self.single_on(local).await
            }
        }
    }

    /// The same, if that connection comes within `idle`.
    pub async fn single_within(self, listener: TcpListener, idle: Duration) -> Result<Carried, LinkError> {
        let came = tokio::time::timeout(idle, self.stop.run_until_cancelled(accept_one(listener))).await;
        match came {
            Ok(Some(accepted)) => {
                let (local, _) = accepted.map_err(|error| self.relay_trouble(error))?;
                self.single_on(local).await
            }
            Ok(None) | Err(_) => Ok(Carried::default()),
        }
    }

    /// The same for a connection that is there already.
    pub async fn single_on(self, local: TcpStream) -> Result<Carried, LinkError> {
        let crypt = Crypt::of_client(self.keys.as_ref()).map_err(|_| LinkError::Keys)?;
        let _ = local.set_nodelay(true);
        Ok(pump(local, self.first, crypt, &self.stop).await.0)
    }

    /// Many connections. Ends when the device closes the control channel, or
    /// after `idle` without connections.
    pub async fn multi(self, listener: &TcpListener, idle: Duration, tasks: &Tasks) -> Result<Carried, LinkError> {
        let crypt = Crypt::of_client(self.keys.as_ref()).map_err(|_| LinkError::Keys)?;
        let (mut incoming, mut control) = control_of(self.first, crypt, ControlReader::default());
        let (done, mut ended) = mpsc::channel(CONNECTIONS);
        let mut carried = Carried::default();
        let mut live = 0usize;
        let mut number = 0u32;
        let mut last_end = Instant::now();
        let mut beat = tokio::time::interval(self.heartbeat.unwrap_or(CONTROL_HEARTBEAT));
        beat.reset();
        let mut beats = 0u64;
        let children = self.stop.child_token();
        let _stop_children = children.clone().drop_guard();
        let mut unpaired = None;
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                () = paired(&mut unpaired) => unpaired = None,
                Some(part) = ended.recv() => {
                    let part: Carried = part;
                    carried.out += part.out;
                    carried.back += part.back;
                    live = live.saturating_sub(1);
                    last_end = Instant::now();
                }
                more = incoming.read(|_| {}) => {
                    if !more.unwrap_or(false) {
                        break;
                    }
                }
                accepted = listener.accept(), if live < CONNECTIONS && unpaired.is_none() => {
                    let Ok((local, _)) = accepted else {
                        // Out of file descriptors: some connection will end.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let _ = local.set_nodelay(true);
                    let keys = self.keys.as_ref().map(|_| if self.twin { StreamKeys::twin() } else { StreamKeys::single() });
                    let how = Opening { number: number.wrapping_add(1), twin: self.twin, first: self.announces_first };
                    match open(&self.relay, &mut control, keys.as_ref(), how).await {
                        Ok(relay) => {
                            // Counted when announced, as the device does.
                            number = number.wrapping_add(1);
                            live += 1;
                            let (stop, done) = (children.clone(), done.clone());
                            let (heard, hears) = oneshot::channel();
                            unpaired = self.pairing.map(|limit| (hears, tokio::time::Instant::now() + limit));
                            tasks.spawn(async move {
                                let part = match Crypt::of_client(keys.as_ref()) {
                                    Ok(crypt) => pump_telling(local, relay, crypt, &stop, heard).await.0,
                                    Err(_) => Carried::default(),
                                };
                                let _ = done.send(part).await;
                            });
                        }
                        Err(error) => {
                            tracing::debug!(%error, "the relay takes no further connection");
                            if live == 0 {
                                break;
                            }
                        }
                    }
                }
                _ = beat.tick(), if self.heartbeat.is_some() => {
                    beats += 1;
                    if control.write(&format!("heartbeat:{beats}\n")).await.is_err() {
                        break;
                    }
                }
                () = tokio::time::sleep_until((last_end + idle).into()), if live == 0 => break,
            }
        }
        Ok(carried)
    }

    fn relay_trouble(&self, error: io::Error) -> LinkError {
        LinkError::Relay(format!("{}:{}", self.relay.host, self.relay.port), error)
    }
}

/// Until the device has been heard on the latest connection, which is then known to be joined with its own socket;
/// or that connection has ended; or it took too long, for some protocols leave the first word to the client.
async fn paired(unpaired: &mut Option<(oneshot::Receiver<()>, tokio::time::Instant)>) {
    match unpaired {
        None => pending().await,
        Some((hears, limit)) => drop(tokio::time::timeout_at(*limit, hears).await),
    }
}

/// How one more connection begins.
struct Opening {
    number: u32,
    twin: bool,
    /// Announced first.
    first: bool,
}

/// Takes one connection; the port closes behind it.
async fn accept_one(listener: TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    listener.accept().await
}

/// Authenticates a relay socket first, then announces it: relays that do not know numbers pair by order of arrival.
async fn open(
    relay: &RelayPort,
    control: &mut ControlWriter,
    keys: Option<&StreamKeys>,
    how: Opening,
) -> io::Result<TcpStream> {
    let line = match keys {
        Some(keys) => ControlLine::connect(keys, how.twin),
        None => ControlLine::connect_plain(),
    };
    if how.first {
        // Clients before 5.6.1 end no line, where its length says where it ends.
        control.write(if keys.is_some() { line.trim_end() } else { &line }).await?;
        return relay.dial(how.number).await;
    }
    let socket = relay.dial(how.number).await?;
    control.write(&line).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::time::timeout;

    use super::*;
    use crate::dial::RelayAuth;

    const SOON: Duration = Duration::from_secs(20);

    /// A device of others dials its relay sockets in any order. While the first of two connections has not been
    /// joined for certain, the second must not be announced.
    #[tokio::test]
    async fn a_device_that_keeps_no_order_is_asked_for_one_connection_at_a_time() {
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = relay.local_addr().unwrap().port();
        let first = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (control, _) = relay.accept().await.unwrap();
        let mut control = BufReader::new(control).lines();
        let tasks = Tasks::new();
        let session = ClientSession {
            relay: RelayPort { host: "127.0.0.1".to_owned(), port, auth: RelayAuth::Nothing, numbered: false },
            first,
            keys: None,
            twin: false,
            heartbeat: None,
            announces_first: false,
            pairing: Some(SOON * 10),
            stop: tasks.token().child_token(),
        };
        let local = bind_local("127.0.0.1", 0).await.unwrap();
        let address = local.local_addr().unwrap();
        let owner = tasks.clone();
        let running = tasks.spawn(async move { session.multi(&local, SOON, &owner).await });
        let _one = TcpStream::connect(address).await.unwrap();
        let _two = TcpStream::connect(address).await.unwrap();

        let announced = timeout(SOON, control.next_line()).await.unwrap().unwrap();
        assert_eq!(announced.as_deref(), Some("connect:no:encrypt"));
        let (mut joined, _) = timeout(SOON, relay.accept()).await.unwrap().unwrap();
        let early = timeout(Duration::from_millis(200), control.next_line()).await;
        assert!(early.is_err(), "the second connection was announced at once: {early:?}");
        joined.write_all(b"220 hello").await.unwrap();
        let announced = timeout(SOON, control.next_line()).await.unwrap().unwrap();
        assert_eq!(announced.as_deref(), Some("connect:no:encrypt"));
        tasks.token().cancel();
        running.await.unwrap().unwrap();
    }
}
