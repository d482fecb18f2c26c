use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::limits::IDLE_PIPES;
use crate::tcp::{listen, tune};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1024 * 1024;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    tune(&near).unwrap();
    tune(&far).unwrap();
    (near, far)
}

struct Joined {
    a: TcpStream,
    b: TcpStream,
    cancel: CancellationToken,
    pump: JoinHandle<(Carried, io::Result<()>)>,
}

/// `a` and `b` are the outer ends; the pump holds the inner ones.
async fn joined(way: Way) -> Joined {
    let (a, inner_a) = pair().await;
    let (b, inner_b) = pair().await;
    let cancel = CancellationToken::new();
    let pump = tokio::spawn(join_by(inner_a, inner_b, cancel.clone(), way, None));
    Joined { a, b, cancel, pump }
}

async fn ended(pump: JoinHandle<(Carried, io::Result<()>)>) -> (Carried, io::Result<()>) {
    timeout(SOON, pump).await.expect("the pump ends").unwrap()
}

const BOTH: [Way; 2] = [Way::Best, Way::Copy];

#[tokio::test]
async fn the_end_of_one_direction_is_not_the_end_of_both() {
    for way in BOTH {
        for swap in [false, true] {
            let Joined { a, b, pump, .. } = joined(way).await;
            let (mut first, mut second) = if swap { (b, a) } else { (a, b) };
            first.write_all(b"question").await.unwrap();
            first.shutdown().await.unwrap();
            let mut text = String::new();
            second.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "question");
            second.write_all(b"a longer answer").await.unwrap();
            assert!(!pump.is_finished());
            second.shutdown().await.unwrap();
            text.clear();
            first.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "a longer answer");
            let (carried, outcome) = ended(pump).await;
            outcome.unwrap();
            let expected = if swap { (15, 8) } else { (8, 15) };
            assert_eq!((carried.a_to_b, carried.b_to_a), expected);
        }
    }
}

/// The n-th eight bytes of a stream: every position has its own value, so a lost, doubled or swapped piece shows.
fn word(seed: u64, n: u64) -> [u8; 8] {
    (n ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

async fn send(mut to: OwnedWriteHalf, seed: u64, bytes: u64) -> io::Result<()> {
    let mut n = 0;
    while n < bytes / 8 {
        let until = (n + 16 * 1024).min(bytes / 8);
        let piece: Vec<u8> = (n..until).flat_map(|n| word(seed, n)).collect();
        to.write_all(&piece).await?;
        n = until;
    }
    to.shutdown().await
}

async fn receive(mut from: OwnedReadHalf, seed: u64, bytes: u64) {
    let mut piece = vec![0; 128 * 1024];
    let mut n = 0;
    while n < bytes / 8 {
        let want = usize::try_from((bytes / 8 - n).min(16 * 1024) * 8).unwrap();
        from.read_exact(&mut piece[..want]).await.unwrap();
        for eight in piece[..want].chunks_exact(8) {
            assert_eq!(eight, word(seed, n), "at byte {}", n * 8);
            n += 1;
        }
    }
    assert_eq!(from.read(&mut piece).await.unwrap(), 0, "nothing after the end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_mebibytes_both_ways_at_once() {
    for (way, bytes) in [(Way::Best, 200 * MIB), (Way::Copy, 50 * MIB)] {
        let Joined { a, b, pump, .. } = joined(way).await;
        let ((a_in, a_out), (b_in, b_out)) = (a.into_split(), b.into_split());
        let (one, two) = (tokio::spawn(send(a_out, 1, bytes)), tokio::spawn(send(b_out, 2, bytes)));
        let three = tokio::spawn(receive(a_in, 2, bytes));
        receive(b_in, 1, bytes).await;
        three.await.unwrap();
        one.await.unwrap().unwrap();
        two.await.unwrap().unwrap();
        let (carried, outcome) = ended(pump).await;
        outcome.unwrap();
        assert_eq!(carried, Carried { a_to_b: bytes, b_to_a: bytes });
    }
}

#[tokio::test]
async fn small_packets_are_not_held_back() {
    for way in BOTH {
        let Joined { mut a, mut b, .. } = joined(way).await;
        let echo = tokio::spawn(async move {
            let mut byte = [0];
            while b.read_exact(&mut byte).await.is_ok() {
                b.write_all(&byte).await.unwrap();
            }
        });
        let started = std::time::Instant::now();
        for n in 0..500_u16 {
            let byte = n.to_le_bytes()[0];
            a.write_all(&[byte]).await.unwrap();
            let mut back = [0];
            a.read_exact(&mut back).await.unwrap();
            assert_eq!(back[0], byte);
        }
        // A single corked packet costs 200 ms; 500 of them would take 100 s.
        assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
        a.shutdown().await.unwrap();
        echo.await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_reader_stops_the_sender_and_loses_nothing() {
    for way in BOTH {
        let Joined { a, b, pump, .. } = joined(way).await;
        let bytes = 64 * MIB;
        let (_a_in, a_out) = a.into_split();
        let mut sender = tokio::spawn(send(a_out, 3, bytes));
        // Nobody reads: the kernel's buffers of four sockets and one pipe are all that fits.
        assert!(timeout(Duration::from_secs(1), &mut sender).await.is_err(), "64 MiB vanished somewhere");
        let (b_in, _b_out) = b.into_split();
        receive(b_in, 3, bytes).await;
        sender.await.unwrap().unwrap();
        drop((_a_in, _b_out));
        assert_eq!(ended(pump).await.0.a_to_b, bytes);
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    for way in BOTH {
        let Joined { a, mut b, pump, .. } = joined(way).await;
        SockRef::from(&a).set_linger(Some(Duration::ZERO)).unwrap();
        drop(a);
        let error = b.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(ended(pump).await.1.is_err());
    }
}

#[tokio::test]
async fn a_cancel_resets_both_and_counts() {
    for way in BOTH {
        let Joined { mut a, mut b, cancel, pump } = joined(way).await;
        a.write_all(b"12345").await.unwrap();
        b.read_exact(&mut [0; 5]).await.unwrap();
        cancel.cancel();
        let (carried, outcome) = ended(pump).await;
        assert_eq!(carried, Carried { a_to_b: 5, b_to_a: 0 });
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::Interrupted);
        for socket in [&mut a, &mut b] {
            let error = socket.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }
}

#[tokio::test]
async fn a_peer_that_closed_for_good_ends_the_join_even_if_the_other_only_reads() {
    for way in BOTH {
        let Joined { a, mut b, pump, .. } = joined(way).await;
        drop(a); // both halves; the pump sees an end of stream first
        assert_eq!(b.read(&mut [0; 8]).await.unwrap(), 0);
        b.write_all(b"still there?").await.unwrap(); // a's kernel answers with a reset
        assert!(ended(pump).await.1.is_err()); // although b neither writes again nor closes
    }
}

#[tokio::test]
async fn what_was_sent_before_the_end_survives_a_refusal_after_it() {
    for way in BOTH {
        let Joined { mut a, mut b, pump, .. } = joined(way).await;
        // Like an HTTP server that answers "too large" and closes while the upload still runs.
        b.write_all(&vec![7; 100_000]).await.unwrap();
        drop(b);
        let mut answer = vec![0; 100_000];
        a.read_exact(&mut answer[..50_000]).await.unwrap();
        // The upload goes on until the pump has given up, and only then the rest of the answer is read.
        while a.write_all(&[1; 4096]).await.is_ok() && !pump.is_finished() {}
        drop(ended(pump).await);
        a.read_exact(&mut answer[50_000..]).await.unwrap();
        assert!(answer.iter().all(|byte| *byte == 7));
    }
}

fn open_pipe_ends() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
}

/// Counts the pipes of this process: sharp only where every test has its own, as under nextest.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn idle_sessions_hold_no_pipes() {
    let before = open_pipe_ends();
    let mut sessions = Vec::new();
    for n in 0..3 * IDLE_PIPES {
        let mut session = joined(Way::Best).await;
        session.a.write_all(&n.to_le_bytes()).await.unwrap();
        session.b.read_exact(&mut [0; size_of::<usize>()]).await.unwrap();
        sessions.push(session);
    }
    // A whole round trip later each pump has gone back to waiting.
    for session in &mut sessions {
        session.b.write_all(b"x").await.unwrap();
        session.a.read_exact(&mut [0]).await.unwrap();
    }
    assert!(open_pipe_ends() <= before + 2 * IDLE_PIPES, "{} pipe ends", open_pipe_ends() - before);
    for session in sessions {
        session.cancel.cancel();
        drop(ended(session.pump).await);
    }
    assert!(open_pipe_ends() <= before + 2 * IDLE_PIPES);
}

/// A pipe that still holds one session's bytes must not carry them into another.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn bytes_left_in_a_pipe_never_reach_another_session() {
    let Joined { a, b, cancel, pump } = joined(Way::Best).await;
    let (_a_in, a_out) = a.into_split();
    let mut sender = tokio::spawn(send(a_out, 4, 64 * MIB));
    assert!(timeout(Duration::from_millis(500), &mut sender).await.is_err()); // the pipe is full now
    cancel.cancel();
    drop(ended(pump).await);
    drop(b);
    for _ in 0..4 {
        let Joined { mut a, mut b, .. } = joined(Way::Best).await;
        a.write_all(b"mine").await.unwrap();
        a.shutdown().await.unwrap();
        let mut text = Vec::new();
        b.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"mine");
    }
}
