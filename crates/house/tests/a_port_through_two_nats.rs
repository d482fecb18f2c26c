//! `npt`: a TCP service that only the device can reach, as a local port.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use postern_house::{NEIGHBOUR_PORT, NatHouse, behind_nat};
use postern_testkit::limits::BOUNDED_MEMORY_KIB;
use postern_testkit::{Memory, MemoryWatch, Piece, Process, say, tcp};

/// Connections, one short request each.
const CONNECTIONS: usize = 200;
/// Open at the same time.
const AT_ONCE: usize = 8;
/// What the slow reader gets.
const GIBIBYTE: u64 = 1 << 30;
/// How fast it reads, in bytes a second: slower than the way, so that everything before it fills up.
const SLOW: f64 = 64.0 * 1024.0 * 1024.0;
/// It does not read at all for this long, at the beginning and in the middle.
const STALL: Duration = Duration::from_secs(3);

#[test]
fn two_hundred_short_connections_each_get_their_answer() -> anyhow::Result<()> {
    behind_nat(|house| {
        let (_, service) = tcp::serve(&house.neighbour(), NEIGHBOUR_PORT, CONNECTIONS, tcp::echo_after_end)?;
        let (npt, port) = npt_to_neighbour(house)?;
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        for round in 0..CONNECTIONS / AT_ONCE {
            let answers: Vec<anyhow::Result<Duration>> = std::thread::scope(|scope| {
                let house = &*house;
                let guests = (0..AT_ONCE).map(|guest| scope.spawn(move || ask(house, port, round * AT_ONCE + guest)));
                let guests: Vec<_> = guests.collect();
                guests.into_iter().map(|guest| guest.join().expect("a guest does not panic")).collect()
            });
            for answer in answers {
                slowest = slowest.max(answer?);
            }
        }
        say(format_args!("{CONNECTIONS} connections in {:.2?}, the slowest {slowest:.2?}", start.elapsed()));
        service.join().expect("the service does not panic");
        drop(npt);
        Ok(())
    })
}

#[test]
fn a_slow_reader_of_a_gibibyte_fills_no_memory() -> anyhow::Result<()> {
    behind_nat(|house| {
        let pour = |stream| tcp::pour(stream, GIBIBYTE);
        let (_, _service) = tcp::serve(&house.neighbour(), NEIGHBOUR_PORT, 1, pour)?;
        let (npt, port) = npt_to_neighbour(house)?;
        let processes = [
            ("client", npt.id()),
            ("relay", house.piece(Piece::Relay)?.id()),
            ("device", house.piece(Piece::Device)?.id()),
        ];
        let watch = MemoryWatch::start(&processes);
        let stream = connect(house, port)?;
        std::thread::sleep(STALL);
        let start = Instant::now();
        let mut stalled = false;
        tcp::drink(stream, GIBIBYTE, |read| {
            if !stalled && read > GIBIBYTE / 2 {
                stalled = true;
                std::thread::sleep(STALL);
            }
            #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
            let due = Duration::from_secs_f64(read as f64 / SLOW);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        })?;
        say(format_args!("1 GiB to a slow reader in {:.1?}", start.elapsed()));
        let most = watch.finish();
        for (name, id) in processes {
            let most = *most.get(name).with_context(|| format!("{name} was never seen"))?;
            say(format_args!("{name}: at most {} MiB meanwhile, {}", most / 1024, Memory::of(id)?));
            ensure!(most < BOUNDED_MEMORY_KIB, "{name} grew to {most} KiB");
        }
        drop(npt);
        Ok(())
    })
}

fn npt_to_neighbour(house: &NatHouse) -> anyhow::Result<(Process, u16)> {
    let mut npt = house.npt(NEIGHBOUR_PORT);
    npt.args(["-h", &house.neighbour().address().to_string()]);
    house.start_npt(npt)
}

fn connect(house: &NatHouse, port: u16) -> anyhow::Result<TcpStream> {
    let stream = house.places().client.within(|| Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port))?))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

/// One request, its end, one answer, its end. Returns how long it took.
fn ask(house: &NatHouse, port: u16, number: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut stream = connect(house, port)?;
    let request = format!("request {number} ").repeat(number * 7 + 1);
    stream.write_all(request.as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("connection {number}"))?;
    ensure!(answer == request, "connection {number} got {} bytes for {}", answer.len(), request.len());
    Ok(start.elapsed())
}
