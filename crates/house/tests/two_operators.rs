//! The person's atSign and the device's live with different operators: nobody shares a server, a directory, or a
//! certificate authority.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use postern_house::in_house;
use postern_testkit::limits::{COMMAND, READY, SESSION};
use postern_testkit::{Options, Piece, Process, World, postern_bin, run, say};

/// Who lives with the other operator.
const VISITOR: &str = "@visitor";

/// The other operator.
struct Elsewhere {
    dir: PathBuf,
    root: String,
    port: u16,
    server: Option<Process>,
}

impl Elsewhere {
    /// Starts its server and activates its atSign; makes the two operators know each other's directory.
    fn start(world: &mut World) -> anyhow::Result<Self> {
        let port = free_port()?;
        let dir = world.dir().join("elsewhere");
        let mut other = Self { dir, root: format!("localhost:{port}"), port, server: None };
        let mut init = other.command(world);
        init.args(["server", "init", "--host", "localhost", "--port", &port.to_string(), "--dir"]).arg(&other.dir);
        run(init, COMMAND)?.success()?;
        let mut add = other.command(world);
        add.args(["server", "add", VISITOR, "--dir"]).arg(&other.dir);
        let secret = run(add, COMMAND)?.success()?.text();
        other.run_server(world)?;
        let mut activate = other.command(world);
        activate.args(["at_activate", "onboard", "-a", VISITOR, "-c", &secret, "-r", &other.root, "-k"]);
        activate.arg(world.key_file(VISITOR));
        run(activate, COMMAND)?.success()?;

        let ca = other.dir.join("ca.pem");
        let settings = format!("\ndirectories = [{:?}]\npeer-ca = [{:?}]\n", other.root, ca);
        let mut file = std::fs::OpenOptions::new().append(true).open(world.dir().join("server/server.toml"))?;
        file.write_all(settings.as_bytes())?;
        world.kill_piece(Piece::Server)?;
        world.start_piece(Piece::Server)?;
        Ok(other)
    }

    fn run_server(&mut self, world: &World) -> anyhow::Result<()> {
        let mut command = self.command(world);
        command.args(["server", "run", "-vv", "--listen", &format!("127.0.0.1:{}", self.port), "--dir"]).arg(&self.dir);
        command.args(["--directory", &world.root(), "--peer-ca"]).arg(world.ca_file());
        let mut server = Process::start(command)?;
        server.wait_for_line(READY, |line| line.contains("listening on "))?;
        self.server = Some(server);
        Ok(())
    }

    /// A program of ours that trusts this operator alone.
    fn command(&self, world: &World) -> Command {
        let mut command = world.postern(VISITOR);
        command.env("POSTERN_CA_FILE", self.dir.join("ca.pem"));
        command
    }

    fn sshnp(&self, world: &World) -> Command {
        let mut command = self.command(world);
        command.args(["sshnp", "-f", VISITOR, "-t", World::DEVICE, "-d", World::DEVICE_NAME, "-r", World::RELAY]);
        command.arg("-k").arg(world.key_file(VISITOR)).args(["--root-domain", &self.root]);
        command.arg("-i").arg(world.identity());
        for option in world.ssh_options() {
            command.args(["-o", &format!("-o {option}")]);
        }
        command
    }
}

/// Below the range from which the kernel takes ports for outgoing connections.
fn free_port() -> anyhow::Result<u16> {
    let start = 12_000 + u16::try_from(std::process::id() % 6_000)?;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (start..19_000).find(free).context("no free port on loopback")
}

#[test]
fn a_session_from_one_operator_to_another() -> anyhow::Result<()> {
    postern_bin()?;
    in_house(Options { own_daemon: false, ..Options::default() }, |world| {
        let mut elsewhere = Elsewhere::start(world)?;
        let mut sshnpd = world.sshnpd(World::DEVICE_NAME);
        sshnpd.args(["-m", VISITOR]);
        let _daemon = world.start_daemon(sshnpd)?;
        let outcome = (|| {
            for round in ["first", "second"] {
                let mut sshnp = elsewhere.sshnp(world);
                sshnp.args(["--", "echo inside"]);
                let output = run(sshnp, SESSION)?.success()?;
                ensure!(output.stdout == b"inside\n", "stdout: {:?}", output.text());
                say(format_args!("the {round} session between two operators took {:.2?}", output.took));
            }
            // Both servers forget their connections; the person does not notice.
            world.kill_piece(Piece::Server)?;
            elsewhere.server.take().context("it runs")?.kill();
            elsewhere.run_server(world)?;
            world.start_piece(Piece::Server)?;
            let mut sshnp = elsewhere.sshnp(world);
            sshnp.args(["--", "echo again"]);
            let output = run(sshnp, SESSION)?.success()?;
            ensure!(output.stdout == b"again\n", "stdout: {:?}", output.text());
            Ok(())
        })();
        if outcome.is_err()
            && let Some(server) = &elsewhere.server
        {
            say(format_args!("{}", server.tail()));
        }
        outcome
    })
}
