//! A device whose clock is wrong by years: it comes up, says so, and serves; what was over stays over.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use postern_house::caller::{Caller, TicketRelay, Wish};
use postern_house::{in_house, with_clock};
use postern_net::tasks::Tasks;
use postern_proto::AtSign;
use postern_session::{Offer, RefusalCode};
use postern_testkit::limits::SESSION;
use postern_testkit::{Options, World, run};

fn no_daemon() -> Options {
    Options { own_daemon: false, ..Options::default() }
}

/// The offset that makes it the second of January 1970.
fn beginning_of_time() -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(format!("-{}", now - 86_400))
}

fn status(world: &World) -> Command {
    let mut command = world.postern(World::DEVICE);
    command.args(["sshnpd", "status"]);
    command
}

/// Starts the daemon with each of these clocks and comes in by a sealed session. The last is right.
#[test]
fn a_device_whose_clock_is_wrong_by_years_serves_by_the_time_of_its_at_server() -> anyhow::Result<()> {
    let clocks = [
        (beginning_of_time()?, "years behind the atServer's"),
        ("+3660d".to_owned(), "the clock is 10 years ahead of the atServer's"),
        // Where it was switched off: a clock that may be right.
        ("-3h".to_owned(), "the clock is 3 hours behind the atServer's"),
        ("+0".to_owned(), ""),
    ];
    in_house(no_daemon(), |world| {
        for (offset, told) in &clocks {
            let mut sshnpd = world.sshnpd(World::DEVICE_NAME);
            if !with_clock(&mut sshnpd, offset)? {
                return Ok(());
            }
            let daemon = world.start_daemon(sshnpd)?;
            let mut sshnp = world.sshnp();
            sshnp.args(["--min-security", "sealed", "--", "true"]);
            run(sshnp, SESSION)?.success()?;
            ensure!(daemon.tail().contains(told), "{offset}: {}", daemon.tail());
            let shown = run(status(world), SESSION)?.success()?.text();
            ensure!(shown.contains(told) && shown.contains("the clock is") != told.is_empty(), "{offset}: {shown}");
            daemon.terminate(SESSION)?;
        }
        Ok(())
    })
}

#[test]
fn a_request_that_is_over_is_refused_by_a_device_in_1970() -> anyhow::Result<()> {
    in_house(no_daemon(), |world| {
        let mut sshnpd = world.sshnpd(World::DEVICE_NAME);
        if !with_clock(&mut sshnpd, &beginning_of_time()?)? {
            return Ok(());
        }
        let _daemon = world.start_daemon(sshnpd)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let tasks = Tasks::new();
            let relay = TicketRelay::start(&tasks).await?;
            let mut caller = Caller::connect(world, World::CLIENT, world.dir().join("caller")).await?;
            let wish = Wish {
                ssh: false,
                resume: std::time::Duration::ZERO,
                idle: std::time::Duration::from_secs(60),
                relays: vec![relay.place()?],
                session: None,
                epoch: 0,
            };
            let hours_old = |offer: &mut Offer| {
                offer.issued_ms -= 4 * 3_600_000;
                offer.expires_ms -= 4 * 3_600_000;
            };
            // What somebody may have recorded who was there when the device's clock was right by chance.
            let of_1970 = |offer: &mut Offer| {
                offer.issued_ms = 86_400_000;
                offer.expires_ms = offer.issued_ms + 30_000;
            };
            let changes: [&dyn Fn(&mut Offer); 2] = [&hours_old, &of_1970];
            for change in changes {
                let request = caller.request(&wish, change)?;
                caller.send(&request).await?;
                let (code, message) = caller.refusal(&request).await?;
                ensure!(code == RefusalCode::Expired, "{code}: {message}");
            }
            // And one of now, sent twice, acts once.
            let request = caller.request(&wish, |_| ())?;
            caller.send(&request).await?;
            let plan = caller.plan(&wish, request.waiting, &request.session, None);
            let session = postern_link::sealed::dial(plan, SESSION, &tasks).await?;
            let guests = relay.guests();
            caller.client().notify(&AtSign::parse(World::DEVICE)?, &request.name, &request.text, None).await?;
            ensure!(
                caller.hears_nothing(&request.session, std::time::Duration::from_secs(2)).await,
                "a replay is answered"
            );
            ensure!(relay.guests() == guests, "the device dialled for a replay");
            session.close("done").await;
            anyhow::Ok(())
        })
    })
}
