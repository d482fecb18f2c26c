//! Files, for one user: the sftp server as it runs behind [`crate::login`], with the rights of the user.
//!
//! Source: draft-ietf-secsh-filexfer-02 (version 3), and the extensions of OpenSSH's PROTOCOL file, 4.

mod files;
mod stdio;

use std::process::ExitCode;

use crate::talk::say;
use russh_sftp::server::{Config, run_with_config};

use crate::limits::SFTP_PACKET;

/// Serves standard input and output to their end.
pub(crate) fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format_args!("sftp cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        let (stdio, ended) = stdio::Stdio::new();
        run_with_config(stdio, files::Files::default(), Config { max_client_packet_len: SFTP_PACKET }).await;
        // The library serves in a task of its own, which drops its stream at the end.
        let _ = ended.await;
    });
    ExitCode::SUCCESS
}
