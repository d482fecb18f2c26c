//! The running server: listeners, and the few tasks that serve everybody.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portable_atomic::AtomicU64;
use postern_net::seats::Seats;
use postern_net::tasks::Tasks;
use postern_net::tcp::{self, KeepAlive};
use postern_net::tls::ServerTls;
use postern_proto::{AtSign, Millis};
use postern_store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::abroad::{self, Abroad, Peers};
use crate::accounts::Accounts;
use crate::guesses::Guesses;
use crate::guest;
use crate::hub::Hub;
use crate::limits::{ACCEPT_PAUSE, ACCOUNTS_EVERY, COMMITS_UNDER_WAY, DRAIN, LARGE_LINES_BYTES, Limits, SWEEP_EVERY};
use crate::misses::Misses;

/// Everything that a server needs to start.
pub struct Config {
    /// The host name that the directory gives out.
    pub host: String,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The port that the directory gives out, when a router or proxy in front uses another than `listen`.
    pub advertised_port: Option<u16>,
    /// Certificate and key.
    pub tls: ServerTls,
    /// Where households live.
    pub store: Arc<dyn Store>,
    /// Bounds that differ from the defaults.
    pub limits: Limits,
    /// How to meet servers of other operators; `None`: not at all.
    pub peers: Option<Peers>,
}

/// A server that runs until it is stopped or dropped.
pub struct RunningServer {
    address: SocketAddr,
    tasks: Tasks,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) accounts: Arc<Accounts>,
    /// Servers of other operators, if we meet any.
    pub(crate) abroad: Option<Abroad>,
    pub(crate) hub: Hub,
    pub(crate) tls: ServerTls,
    pub(crate) seats: Seats,
    pub(crate) misses: Misses,
    pub(crate) guesses: Guesses,
    pub(crate) limits: Limits,
    pub(crate) tasks: Tasks,
    /// Bytes of long answers to strangers that may be on their way.
    pub(crate) long_answers: Semaphore,
    /// Places for batches on their way to the disk. Fewer than the store queues, so that it takes them in order.
    pub(crate) commits: Semaphore,
    pub(crate) started: Instant,
    /// When a failure of the store was last logged, seconds since the start.
    failure_logged: AtomicU64,
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX)
}

/// Starts a server on the current tokio runtime.
pub struct Server;

impl Server {
    /// Binds, and serves from then on.
    ///
    /// # Errors
    /// The address is taken or not allowed; the store cannot be read.
    pub fn start(config: Config) -> io::Result<RunningServer> {
        let listener = listen(config.listen)?;
        let address = listener.local_addr()?;
        let port = config.advertised_port.unwrap_or(address.port());
        let accounts = Accounts::load(Arc::clone(&config.store), config.host, port).map_err(io::Error::other)?;
        let accounts = Arc::new(accounts);
        let quarantine = config.limits.quarantine;
        let abroad =
            config.peers.map(|peers| Abroad::new(peers, Arc::clone(&config.store), Arc::clone(&accounts), quarantine));
        let shared = Arc::new(Shared {
            store: config.store,
            accounts,
            abroad,
            hub: Hub::default(),
            tls: config.tls,
            seats: Seats::new(config.limits.seats),
            misses: Misses::default(),
            guesses: Guesses::default(),
            limits: config.limits,
            tasks: Tasks::new(),
            long_answers: Semaphore::new(LARGE_LINES_BYTES),
            commits: Semaphore::new(COMMITS_UNDER_WAY),
            started: Instant::now(),
            failure_logged: AtomicU64::new(u64::MAX),
        });
        let tasks = shared.tasks.clone();
        tasks.spawn(accept(Arc::clone(&shared), listener, None, tasks.token().clone()));
        // Who hears that the server listens finds these open too.
        let mut own_ports = OwnPorts { ip: address.ip(), open: HashMap::new(), complained: HashSet::new() };
        own_ports.follow(&shared);
        tasks.spawn(until_stopped(tasks.token().clone(), keep_accounts(Arc::clone(&shared), own_ports)));
        tasks.spawn(until_stopped(tasks.token().clone(), keep_statistics(Arc::clone(&shared))));
        tasks.spawn(until_stopped(tasks.token().clone(), keep_swept(Arc::clone(&shared))));
        tasks.spawn(until_stopped(tasks.token().clone(), abroad::keep_delivering(Arc::clone(&shared))));
        tasks.spawn(until_stopped(tasks.token().clone(), abroad::keep_tidy(Arc::clone(&shared))));
        Ok(RunningServer { address, tasks })
    }
}

/// IPv6 and IPv4 where the machine has both, IPv4 alone where it has not.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match tcp::listen(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6(&error) => {
            tcp::listen(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        outcome => outcome,
    }
}

fn no_ipv6(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

async fn until_stopped(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        biased; // stopping first
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Takes connections in until `stop`.
async fn accept(shared: Arc<Shared>, listener: TcpListener, port_of: Option<AtSign>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            biased; // stopping wins over a new guest
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Strangers can use up our descriptors: no more than a breath, and no line in the log.
                tracing::debug!(%error, "connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(seat) = shared.seats.take(peer.ip()) else {
            tracing::debug!(%peer, "no seat");
            continue;
        };
        if tcp::tune_as(&tcp, KeepAlive::QUIET).is_err() {
            continue; // gone already
        }
        let guest = guest::receive(Arc::clone(&shared), tcp, peer.ip(), port_of.clone(), seat);
        shared.tasks.spawn(guest);
    }
}

/// Households come and go while we run, and some have a port of their own.
async fn keep_accounts(shared: Arc<Shared>, mut own_ports: OwnPorts) {
    loop {
        match shared.accounts.refresh() {
            Ok(gone) => gone.iter().for_each(|name| shared.hub.evict(name)),
            Err(error) => shared.store_failed(&error),
        }
        own_ports.follow(&shared);
        tokio::time::sleep(ACCOUNTS_EVERY).await;
    }
}

/// The ports that are of one atSign each.
struct OwnPorts {
    ip: IpAddr,
    open: HashMap<AtSign, (u16, CancellationToken)>,
    /// Those that were taken by somebody else when we first tried.
    complained: HashSet<u16>,
}

impl OwnPorts {
    /// Opens what accounts have and closes what they have no more.
    fn follow(&mut self, shared: &Arc<Shared>) {
        let all = shared.accounts.all();
        self.open.retain(|name, (port, stop)| {
            let stays = all.get(name).and_then(|account| account.port) == Some(*port);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for account in all.values() {
            let Some(port) = account.port else { continue };
            if self.open.contains_key(&account.at_sign) {
                continue;
            }
            match listen(SocketAddr::new(self.ip, port)) {
                Ok(listener) => {
                    let stop = shared.tasks.token().child_token();
                    self.open.insert(account.at_sign.clone(), (port, stop.clone()));
                    let name = Some(account.at_sign.clone());
                    shared.tasks.spawn(accept(Arc::clone(shared), listener, name, stop));
                }
                Err(error) if self.complained.insert(port) => {
                    tracing::warn!(%error, port, "failed to listen on the port of an atSign; trying on");
                }
                Err(_) => {}
            }
        }
    }
}

/// One timer for all monitors.
async fn keep_statistics(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(shared.limits.stats_every).await;
        shared.hub.tick(shared.store.as_ref(), now_ms());
    }
}

/// Forgets what expired.
async fn keep_swept(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        loop {
            match shared.store.sweep(now_ms()).await {
                Ok(swept) if swept.more => {}
                Ok(_) => break,
                Err(error) => {
                    shared.store_failed(&error);
                    break;
                }
            }
        }
    }
}

impl Shared {
    /// Worth waking somebody, once a minute.
    pub(crate) fn store_failed(&self, error: &StoreError) {
        if *error == StoreError::Conflict {
            return;
        }
        let minute = self.started.elapsed().as_secs() / 60;
        if self.failure_logged.swap(minute, Ordering::Relaxed) != minute {
            tracing::error!(%error, "storage failed");
        }
    }
}

impl RunningServer {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a task gets its turn on the threads that serve connections, and they were not told to stop.
    pub async fn turns(&self) -> bool {
        let turn = self.tasks.spawn(async { tokio::task::yield_now().await });
        turn.await.is_ok() && !self.tasks.token().is_cancelled()
    }

    /// Stops: connections end, commits under way are finished. False: some did not end in time.
    pub async fn stop(self) -> bool {
        self.tasks.close_and_wait(DRAIN).await
    }

    /// The same with another patience.
    pub async fn stop_within(self, limit: Duration) -> bool {
        self.tasks.close_and_wait(limit).await
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.tasks.token().cancel();
    }
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("host", &self.host).field("listen", &self.listen).finish_non_exhaustive()
    }
}
