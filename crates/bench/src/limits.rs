//! Every time and size the bench waits or allocates by, with its reason.

use std::time::Duration;

/// Bytes moved each way in a full run: long enough that set-up and ramp are
/// under 1 % of it at a gigabyte a second.
pub(crate) const BULK_BYTES: u64 = 1 << 30;
/// Bytes moved each way with `--quick`: shows that all of it works, no more.
pub(crate) const BULK_BYTES_QUICK: u64 = 64 << 20;
/// Slow rivals move this share of the bytes; their figures are per byte anyway.
pub(crate) const SLOW_SHARE: u64 = 4;

/// What the source writes and the sink reads at a time.
pub(crate) const LOAD_BUFFER: usize = 256 * 1024;

/// Plaintext bytes of a floor record: larger ones gain nothing measurable.
pub(crate) const FLOOR_RECORD: usize = 1024 * 1024;
/// Pipe behind the splicing relay: what an unprivileged user may ask for
/// (`/proc/sys/fs/pipe-max-size` as the kernel ships it).
pub(crate) const RELAY_PIPE: usize = 1024 * 1024;
/// Buffer of the copying relay that the splicing one is compared with.
pub(crate) const COPY_BUFFER: usize = 64 * 1024;

/// A program under test is listening by then, on a loaded machine too.
pub(crate) const READY_DEADLINE: Duration = Duration::from_secs(30);
/// A connection that carried nothing for so long is counted as broken.
pub(crate) const STALL: Duration = Duration::from_secs(60);
/// One set-up (an `ssh true` with loss on the line) is over by then.
pub(crate) const SETUP_DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks at something that has no event to wait for.
pub(crate) const POLL_PAUSE: Duration = Duration::from_millis(5);
/// A killed group is empty by then.
pub(crate) const GROUP_EMPTY_DEADLINE: Duration = Duration::from_secs(5);

/// `cpu.shares` of the run: a hundred times an ordinary group's 1024.
pub(crate) const CPU_SHARES: &str = "102400";

/// One-way delay of the line: 50 ms round trips between any two hosts.
pub(crate) const LINE_DELAY: Duration = Duration::from_millis(25);
/// Further one-way delays of the set-up table: between them what a machine computes drops out, and round trips remain.
pub(crate) const SLOPE_DELAYS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(50)];
/// Packets one output of the line holds back: 25 ms of a gigabit in 1,500-byte
/// packets is 2,100; more are dropped, as a router would.
pub(crate) const LINE_QUEUE: usize = 4096;
/// Packets lost of a million in the lossy rows: 0.5 %.
pub(crate) const LINE_LOSS_PPM: u32 = 5_000;
/// Largest IP packet the line carries.
pub(crate) const LINE_MTU: u16 = 1500;

/// Set-ups timed in a row.
pub(crate) const SETUP_ROUNDS: usize = 10;
/// The same with `--quick`.
pub(crate) const SETUP_ROUNDS_QUICK: usize = 3;
/// Interleaved rounds of the bulk table.
pub(crate) const BULK_ROUNDS: usize = 5;
/// The same with `--quick`.
pub(crate) const BULK_ROUNDS_QUICK: usize = 1;

/// How long each verb is said over and over, per number of connections.
pub(crate) const VERB_SPAN: Duration = Duration::from_secs(4);
/// The same with `--quick`.
pub(crate) const VERB_SPAN_QUICK: Duration = Duration::from_millis(500);
/// Connections of the crowded column.
pub(crate) const VERB_CROWD: usize = 100;
/// Puts and gets by the published SDK.
pub(crate) const PUBLISHED_ROUNDS: usize = 200;
/// The same with `--quick`.
pub(crate) const PUBLISHED_ROUNDS_QUICK: usize = 10;
/// Monitors on a server that is killed: the figure that is promised.
pub(crate) const FLEET: usize = 5_000;
/// The same with `--quick`.
pub(crate) const FLEET_QUICK: usize = 100;
/// All monitors are back by then: the promise.
pub(crate) const FLEET_BACK: Duration = Duration::from_secs(30);
/// After that long a monitor that is not back is counted as lost.
pub(crate) const FLEET_PATIENCE: Duration = Duration::from_secs(180);
/// Logins under way at once while the fleet gathers: below what the server lets one address have.
pub(crate) const FLEET_GATHERS: usize = 64;
/// Silence after which a monitor tests its connection, as `sshnpd` does it.
pub(crate) const FLEET_HEARTBEAT: Duration = Duration::from_secs(15);

/// How long sealed sessions of the bench would wait for a lost way: they only have to keep what they send.
pub(crate) const SEALED_RESUME: Duration = Duration::from_secs(60);
/// Streams that share a session: the figure that is promised.
pub(crate) const FAIR_STREAMS: usize = 200;
/// Until all of them flow.
pub(crate) const FAIR_RAMP: Duration = Duration::from_secs(1);
/// How long they are counted.
pub(crate) const FAIR_SPAN: Duration = Duration::from_secs(4);
/// Bytes moved with and without a stalled stream beside.
pub(crate) const STALLED_BYTES: u64 = 512 << 20;
/// Single bytes there and back.
pub(crate) const ECHOES: usize = 2_000;
/// The same while bulk is carried, which takes its time.
pub(crate) const ECHOES_BESIDE_BULK: usize = 200;
/// Bytes over the long path: some seconds, most of them behind the ramp.
pub(crate) const LONG_PATH_BYTES: u64 = 256 << 20;
/// Rounds of what is compared within a round.
pub(crate) const LONG_PATH_ROUNDS: usize = 5;
/// Sessions by ticket at one relay: the figure that is promised.
pub(crate) const RELAY_SESSIONS: usize = 5_000;
/// The same with `--quick`.
pub(crate) const RELAY_SESSIONS_QUICK: usize = 100;
/// Of one client's atSign: below the 1024 that a relay gives to one.
pub(crate) const RELAY_PER_CLIENT: usize = 1_000;
/// Sessions offered in a second: above what is promised, below the 1,000 whose tickets a relay checks for one address.
pub(crate) const RELAY_BEGINS: u32 = 500;
/// A session that carried nothing by then is counted as lost.
pub(crate) const RELAY_FIRST_BYTE: Duration = Duration::from_secs(20);
