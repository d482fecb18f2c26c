//! Plain TCP: connecting to the first address that answers, listening, keep-alive.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::{ADDRESSES_TRIED, LISTEN_BACKLOG, NEXT_ADDRESS_AFTER};

/// When the kernel asks a silent peer whether it is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Time between unanswered probes.
    pub interval: Duration,
    /// Unanswered probes after which the connection is dead.
    pub probes: u32,
}

impl KeepAlive {
    /// For sessions and handshakes in progress: a silent dead peer is noticed within a minute.
    pub const LIVE: Self = Self { idle: Duration::from_secs(30), interval: Duration::from_secs(10), probes: 3 };

    /// For the server's end of a gateway's idle connection. The side that knows its network pays for the signs of life, at
    /// least one in 27 minutes; who gives none is asked. At four minutes these probes alone cost a device 1.1 MB a month.
    pub const QUIET: Self = Self { idle: Duration::from_secs(1800), interval: Duration::from_secs(15), probes: 4 };
}

/// Connects to `host:port`, which may be a name or an address. The addresses of a name are tried in turn, IPv6 and IPv4
/// alternating, the next one [`NEXT_ADDRESS_AFTER`] after the last; the first that answers wins. The socket is tuned
/// with [`tune`].
///
/// # Errors
/// The name is unknown, no address answers (the first failure is told), or `limit` is over (`TimedOut`).
pub async fn connect_tcp(host: &str, port: u16, limit: Duration) -> io::Result<TcpStream> {
    let work = async {
        let addresses = resolve(host, port).await?;
        connect_first(addresses).await
    };
    timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sets what every socket of ours wants: no Nagle delay, and keep-alive [`KeepAlive::LIVE`].
///
/// # Errors
/// When the socket is already gone.
pub fn tune(socket: &TcpStream) -> io::Result<()> {
    tune_as(socket, KeepAlive::LIVE)
}

/// Like [`tune`] with a chosen keep-alive.
///
/// # Errors
/// When the socket is already gone.
pub fn tune_as(socket: &TcpStream, keep_alive: KeepAlive) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let KeepAlive { idle, interval, probes } = keep_alive;
    let keep_alive = TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(probes);
    SockRef::from(socket).set_tcp_keepalive(&keep_alive)
}

/// The kernel asks nothing of a silent peer: its owner does, when it thinks fit.
///
/// # Errors
/// When the socket is already gone.
pub fn no_keep_alive(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).set_keepalive(false)
}

/// Gives the connection up when what we sent stays unacknowledged for `limit` (`TCP_USER_TIMEOUT`; Linux alone
/// retransmits for about 15 minutes, and does not probe meanwhile).
///
/// For lines and replies only, never for a session's bytes: Linux counts a peer that acknowledges but does not read as
/// dead too, and a terminal stopped with Ctrl-S for an hour is no dead peer.
///
/// # Errors
/// When the socket is already gone.
pub fn limit_unacknowledged(socket: &TcpStream, limit: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    SockRef::from(socket).set_tcp_user_timeout(Some(limit))?;
    #[cfg(not(target_os = "linux"))]
    let _not_offered_here = (socket, limit);
    Ok(())
}

/// Lets no more than some `bytes` wait in the kernel that have not been sent yet (`TCP_NOTSENT_LOWAT`). What has been sent
/// and is not acknowledged does not count, so that a long path is as fast as before.
///
/// # Errors
/// When the socket is already gone.
pub fn limit_unsent(socket: &TcpStream, bytes: u32) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    SockRef::from(socket).set_tcp_notsent_lowat(bytes)?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _not_offered_here = (socket, bytes);
    Ok(())
}

/// Lets the closing of this socket be a reset, so that the other end does not take a cut stream for a finished one.
///
/// # Errors
/// When the socket is already gone.
pub fn reset_when_closed(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Listens on `address`; port 0 lets the system choose. `[::]` accepts IPv4 as well, and where the system has no IPv6 it
/// means `0.0.0.0`. To be called within the runtime.
///
/// # Errors
/// When the address is taken or not ours.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let any_v6 = address.is_ipv6() && address.ip().is_unspecified();
    match listen_on(address, any_v6) {
        Err(error) if any_v6 && has_no_ipv6(&error) => {
            listen_on(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), false)
        }
        outcome => outcome,
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn listen_on(address: SocketAddr, dual_stack: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if dual_stack {
        socket.set_only_v6(false)?;
    }
    // A restarted server takes its port back while old connections are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The addresses of a name or an address, in the order in which they are to be tried; a handful at most.
///
/// # Errors
/// The name is unknown.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(alternate(found))
}

/// IPv6 and IPv4 in turn, each in the resolver's order, the resolver's first choice first.
fn alternate(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let six_first = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found.into_iter().partition(|a| a.is_ipv6() == six_first);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    while order.len() < ADDRESSES_TRIED {
        let before = order.len();
        order.extend(first.next());
        order.extend(second.next());
        if order.len() == before {
            break;
        }
    }
    order.truncate(ADDRESSES_TRIED);
    order
}

type Attempt = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Connects to the first of these addresses that answers, as [`connect_tcp`] does, without asking for any name.
///
/// # Errors
/// None answers; the first failure is told.
pub async fn connect_first(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut running: Vec<Attempt> = Vec::new();
    let mut first_failure = None;
    loop {
        let more = match waiting.next() {
            Some(address) => {
                running.push(Box::pin(TcpStream::connect(address)));
                true
            }
            None if running.is_empty() => {
                return Err(first_failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
            }
            None => false,
        };
        let next_at = Instant::now() + NEXT_ADDRESS_AFTER;
        let answered = tokio::select! {
            biased; // an answer beats the start of one more attempt
            answered = any(&mut running) => answered,
            () = sleep_until(next_at), if more => continue,
        };
        match answered {
            Ok(socket) => {
                tune(&socket)?;
                return Ok(socket);
            }
            Err(error) => {
                first_failure.get_or_insert(error);
            }
        }
    }
}

/// Waits for the first attempt to end, and takes it out of the list. Cancel-safe: an attempt is removed only when it ended.
async fn any(running: &mut Vec<Attempt>) -> io::Result<TcpStream> {
    poll_fn(|context| {
        for index in 0..running.len() {
            if let Poll::Ready(answer) = running[index].as_mut().poll(context) {
                drop(running.swap_remove(index));
                return Poll::Ready(answer);
            }
        }
        Poll::Pending
    })
    .await
}

/// Raises the limit of open files to what the system allows: each socket is one, and the usual 1024 are few for a server.
/// Where that is refused a warning is logged, and the program goes on with what it has.
pub fn raise_file_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "limit of open files not raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn the_second_address_is_tried_when_the_first_refuses() {
        let dead = listen(loopback()).unwrap().local_addr().unwrap(); // dropped: refuses
        let alive = listen(loopback()).unwrap();
        let socket = connect_first(vec![dead, alive.local_addr().unwrap()]).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), alive.local_addr().unwrap());
        assert!(socket.nodelay().unwrap());
        assert!(SockRef::from(&socket).keepalive().unwrap());
    }

    #[tokio::test]
    async fn the_first_failure_is_told() {
        let dead = listen(loopback()).unwrap().local_addr().unwrap();
        let error = connect_tcp("127.0.0.1", dead.port(), LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_port_is_taken_back_at_once() {
        let listener = listen(loopback()).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        drop((server, listener)); // the server closes first: its side goes to TIME_WAIT
        drop(client);
        listen(address).unwrap();
    }

    #[tokio::test]
    async fn any_address_takes_ipv4() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (_client, accepted) = tokio::join!(connect_tcp("127.0.0.1", port, LIMIT), listener.accept());
        assert_eq!(accepted.unwrap().1.ip().to_canonical(), Ipv4Addr::LOCALHOST);
    }

    #[test]
    fn families_alternate_and_are_bounded() {
        let six: Vec<SocketAddr> = (1..=9).map(|n| format!("[::{n}]:1").parse().unwrap()).collect();
        let four: Vec<SocketAddr> = (1..=2).map(|n| format!("10.0.0.{n}:1").parse().unwrap()).collect();
        let order = alternate([six.clone(), four.clone()].concat());
        assert_eq!(&order[..5], [six[0], four[0], six[1], four[1], six[2]]);
        assert_eq!(order.len(), ADDRESSES_TRIED);
    }
}
