//! `at_activate interactive`: several commands over one connection.

use std::io::{BufRead as _, Write as _};

use postern_net::tasks::Tasks;
use postern_observe::{print, say};
use tokio::sync::mpsc;

use crate::cli::{Target, read_line};
use crate::manage::Desk;

/// Until `exit` or the end of the input. Commands that fail are told and do not end it.
pub(crate) async fn run(target: &Target, tasks: &Tasks) -> Result<(), String> {
    let mut desk = Desk::open(target, true, tasks).await?;
    let (lines, mut heard) = mpsc::channel(1);
    // A thread of its own: reading a terminal cannot be given up, and must not keep this from ending.
    std::thread::spawn(move || {
        prompt();
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = heard.recv().await {
        match line.trim() {
            "" => {}
            "exit" | "quit" | "q" => return Ok(()),
            "help" | "?" | "h" => print(
                "otp spp list fetch approve deny revoke unrevoke delete auto, with the options of the commands of that name; exit",
            ),
            line => match read_line(line) {
                Ok(task) => {
                    if let Err(why) = desk.perform(task).await {
                        say(why);
                    }
                }
                Err(why) => say(why),
            },
        }
        prompt();
    }
    Ok(())
}

fn prompt() {
    let mut out = std::io::stdout().lock();
    // A reader that went away ends the input too.
    let _ = out.write_all(b"$ ").and_then(|()| out.flush());
}
