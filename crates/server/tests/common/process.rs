//! The server as a process of its own.
#![allow(clippy::print_stderr, reason = "a failing test shows what the server said")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// The program that calls `postern_server::main`.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_postern-server");

/// A running server; killed when dropped.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
}

/// Runs a command to its end.
pub fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

impl Process {
    /// Starts on a free port and waits for the ready line.
    pub fn start(dir: &Path) -> Self {
        Self::start_on(dir, "127.0.0.1:0", &[])
    }

    /// The same on a chosen address, with more arguments.
    pub fn start_on(dir: &Path, listen: &str, more: &[String]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["run", "--listen", listen, "--dir"])
            .arg(dir)
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // It may have something to say before.
        let listening = |line: String| line.strip_prefix("listening on ").map(str::to_owned);
        let address = lines.by_ref().find_map(|line| listening(line.unwrap())).expect("a ready line").parse().unwrap();
        // The rest is shown, so that a failing test tells why.
        std::thread::spawn(move || lines.for_each(|line| eprintln!("server: {}", line.unwrap_or_default())));
        Self { child, address }
    }

    /// `kill -9`, and gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
