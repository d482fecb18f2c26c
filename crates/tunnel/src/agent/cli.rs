//! `postern agent`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_observe::{Verbosity, print, say};

use super::caller;
use super::keeper::keep;
use super::limits::IDLE;
use super::place::Place;
use super::warm::Warm;
use super::words::Status;
use crate::trouble::Trouble;

/// Keeps logins and sealed sessions to devices warm, so that the next connection is there at once.
///
/// connect starts it by itself where `agent: auto` stands in the configuration file, or with --agent auto. It
/// ends when nobody has wanted anything for ten minutes. It serves its own user alone, on a socket in
/// $XDG_RUNTIME_DIR/postern.
///
/// Exit status: 0; 1 it does not run, or could not be asked.
#[derive(Parser)]
#[command(name = "agent", version, max_term_width = 100)]
struct Flags {
    #[command(subcommand)]
    command: Word,
}

#[derive(Subcommand)]
enum Word {
    /// Start it in the background; does nothing when it runs.
    Start,
    /// Run it here, for a service manager.
    Run {
        /// Seconds without a wish after which it ends.
        #[arg(long, value_name = "SECONDS", default_value_t = IDLE.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86400))]
        idle: u64,
        /// Let go of the terminal once it listens.
        #[arg(long, hide = true)]
        detached: bool,
        /// Log every decision.
        #[arg(long)]
        debug: bool,
    },
    /// Close its sessions; its logins stay.
    Close,
    /// End it, and with it every session that goes through it.
    Stop,
    /// What it holds.
    Status {
        /// One JSON object on stdout.
        #[arg(long)]
        json: bool,
    },
}

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Runs `agent` with its arguments, the program name first.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags = match Flags::try_parse_from(args) {
        Ok(flags) => flags,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let verbosity = Verbosity::of(false, matches!(flags.command, Word::Run { debug: true, .. }));
    crate::run("agent", verbosity, async { Ok(run(flags.command).await) })
}

async fn run(word: Word) -> ExitCode {
    let outcome = match word {
        Word::Start => caller::start().await.map(|()| ExitCode::SUCCESS),
        Word::Run { idle, detached, .. } => serve(Duration::from_secs(idle), detached).await,
        Word::Stop => caller::stop().await.map(|ran| if ran { ExitCode::SUCCESS } else { not_there() }),
        Word::Close => caller::close().await.map(|ran| if ran { ExitCode::SUCCESS } else { not_there() }),
        Word::Status { json } => caller::status().await.map(|status| match status {
            Some(status) => {
                show(&status, json);
                ExitCode::SUCCESS
            }
            None => not_there(),
        }),
    };
    outcome.unwrap_or_else(|error| {
        say(format_args!("agent: {error}"));
        ExitCode::FAILURE
    })
}

fn not_there() -> ExitCode {
    say("agent: it does not run");
    ExitCode::FAILURE
}

async fn serve(idle: Duration, detached: bool) -> std::io::Result<ExitCode> {
    let Some(listening) = Place::usual()?.listen()? else {
        if detached {
            print("another one listens");
            return Ok(ExitCode::SUCCESS);
        }
        say("agent: another one runs already; see `postern agent status`");
        return Ok(ExitCode::FAILURE);
    };
    let stop = signals::shutdown_token()?;
    if detached {
        crate::detach::let_go("listening").map_err(|trouble| match trouble {
            Trouble::Detach(error) => error,
            other => std::io::Error::other(other.to_string()),
        })?;
    } else {
        say("agent: listening");
    }
    let tasks = Tasks::under(&stop);
    let dialler = Box::new(Warm::new(tasks.clone()));
    Box::pin(keep(listening, idle, stop, dialler, tasks)).await;
    Ok(ExitCode::SUCCESS)
}

fn show(status: &Status, json: bool) {
    if json {
        print(serde_json::to_string(status).unwrap_or_default());
    } else {
        lines(status).iter().for_each(print);
    }
}

/// What the agent of this user says of itself, for people and as JSON; `None`: there is none.
pub(crate) fn status() -> Option<(Vec<String>, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let status = runtime.block_on(caller::status()).ok()??;
    Some((lines(&status), serde_json::to_string(&status).unwrap_or_default()))
}

fn lines(status: &Status) -> Vec<String> {
    let mut lines = vec![format!("running since {} s, process {}", status.uptime_seconds, status.pid)];
    if status.ends_in_seconds > 0 {
        lines.push(format!("ends in {} s unless it is asked for something", status.ends_in_seconds));
    }
    lines.extend(status.sessions.iter().map(|session| {
        format!(
            "session  {} to {}{}: {}, {} s, {} open, {} bytes out, {} back, {}, {}",
            session.from,
            session.device,
            session.to,
            session.state,
            session.seconds,
            session.streams,
            session.bytes_out,
            session.bytes_back,
            session.key_exchange,
            session.cipher
        )
    }));
    lines
}
