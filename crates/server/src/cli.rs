//! `postern server`: what a person types and reads.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use postern_identity::limits::AT_SIGNS;
use postern_identity::{Activation, CramSecret};
use postern_net::ready::{self, Watchdog};
use postern_net::{signals, tasks, tcp};
use postern_observe::Verbosity;
use postern_observe::presence::{Presence, Present};
use postern_proto::{AtSign, ServerAddress};
use zeroize::Zeroizing;

use crate::beside;
use crate::health;
use crate::home::{Home, HomeError, Settings, Wanted};
use crate::limits::{DRAIN, Limits};
use crate::serve::{Config, Server};

/// The port of a directory. Source: atProtocol.
const DEFAULT_PORT: u16 = 64;

/// The directory and the atServers of any number of atSigns, in one process on one port.
#[derive(Parser)]
#[command(
    name = "postern server",
    version,
    after_help = "Exit status: 0 done, 1 failed (the reason is on stderr), 2 wrong usage.\n\
                  Data goes to stdout, everything else to stderr."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a directory for a server: settings, certificate, store
    Init {
        /// The directory; made with mode 0700
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Name or address by which clients reach this server [default: this machine's host name]
        #[arg(long)]
        host: Option<String>,
        /// Port to listen on, on all addresses
        #[arg(long, default_value_t = DEFAULT_PORT)]
        port: u16,
        /// Address and port to listen on, in place of --port
        #[arg(long, value_name = "ADDR:PORT", conflicts_with = "port")]
        listen: Option<SocketAddr>,
        /// Certificate chain, PEM; without one a private CA is made
        #[arg(long, value_name = "FILE", requires = "tls_key")]
        tls_cert: Option<PathBuf>,
        /// Private key of the certificate, PEM
        #[arg(long, value_name = "FILE", requires = "tls_cert")]
        tls_key: Option<PathBuf>,
    },
    /// Host further atSigns; prints what activates them, once
    ///
    /// Without --line: the secret of one, or NAME and SECRET of several, a line each, for at_activate.
    Add {
        /// The names, such as @alice; with --line a person's own, and then that of their devices
        #[arg(required = true, value_name = "NAME")]
        at_signs: Vec<AtSign>,
        /// Print one line for all of them, which their owner gives to `postern activate`: where this server is, by what to
        /// know it, the secrets
        #[arg(long, conflicts_with = "port")]
        line: bool,
        /// The server's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Give it a port of its own
        #[arg(long)]
        port: Option<u16>,
    },
    /// Forget an atSign and delete all its data
    Remove {
        /// The name, such as @alice
        at_sign: AtSign,
        /// The server's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Yes, delete it all
        #[arg(long, required = true)]
        delete_all_data: bool,
    },
    /// List the atSigns hosted here
    List {
        /// The server's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// One JSON array of objects
        #[arg(long)]
        json: bool,
    },
    /// Serve until SIGTERM or SIGINT
    Run {
        /// The server's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Make the directory first if it is not there: for a server that clients reach by this name or address
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        /// Address and port to listen on, in place of the settings'; port 0 lets the system choose
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<SocketAddr>,
        /// Run a relay beside it, as this atSign: its keys are made the first time, in DIR/relay
        #[arg(long, value_name = "@RELAY")]
        relay: Option<AtSign>,
        /// The relay's port [default: 4443]
        #[arg(long, value_name = "PORT", requires = "relay")]
        relay_port: Option<u16>,
        /// Directory that knows atSigns of other operators, in place of the settings'; may be repeated
        #[arg(long, value_name = "HOST[:PORT]")]
        directory: Vec<String>,
        /// Authorities of other operators' certificates, PEM, besides the system's and the settings'; may be repeated
        #[arg(long, value_name = "FILE")]
        peer_ca: Vec<PathBuf>,
        /// Say more; twice: say everything
        #[arg(short, long, action = clap::ArgAction::Count)]
        verbose: u8,
    },
    /// Ask the server that runs on this machine whether it answers, as its clients would
    ///
    /// For health checks: 0 it does, 1 it does not.
    Health {
        /// The server's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Address and port that it listens on, in place of the settings'
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<SocketAddr>,
    },
    /// Check settings, certificate and store without serving
    Validate {
        /// The server's directory
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// What went wrong, for a person.
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The command line, for completions.
pub fn command() -> clap::Command {
    <Args as clap::CommandFactory>::command()
}

/// Runs `postern server` with its arguments, the program name first; returns the exit code that `--help` documents.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let words = std::iter::once(OsString::from("postern server")).chain(args.into_iter().skip(1));
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match perform(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(text)) => {
            say(&format!("postern server: {text}"));
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> Result<(), Failure> {
    match command {
        Command::Init { dir, host, port, listen, tls_cert, tls_key } => {
            let host = match host {
                Some(host) => host,
                None => own_host_name()?,
            };
            let listen = listen.unwrap_or_else(|| SocketAddr::from(([0u16; 8], port)));
            let home = Home::init(&dir, &Wanted { host, listen, tls: tls_cert.zip(tls_key) })?;
            welcome(&home, &dir);
            Ok(())
        }
        Command::Add { at_signs, line, dir, port } => add(&Home::open(&dir)?, &at_signs, line, port),
        Command::Remove { at_sign, dir, delete_all_data: _ } => {
            let home = Home::open(&dir)?;
            let store = home.store()?;
            if block_on(home.remove(store.as_ref(), &at_sign))?? {
                say(&format!("{at_sign} and all its data are deleted."));
                Ok(())
            } else {
                Err(Failure(format!("{at_sign} does not live here; nothing was changed")))
            }
        }
        Command::List { dir, json } => list(&Home::open(&dir)?, json),
        Command::Run { dir, host, listen, relay, relay_port, directory, peer_ca, verbose } => {
            if let Some(host) = host {
                begin(&dir, host, listen)?;
            }
            postern_observe::init(match verbose {
                0 => Verbosity::Quiet,
                1 => Verbosity::Info,
                _ => Verbosity::Debug,
            });
            let whole = |file: &PathBuf| std::path::absolute(file);
            let peer_ca = peer_ca.iter().map(whole).collect::<io::Result<_>>()?;
            let home = Home::open(&dir)?.with_directories(directory, peer_ca);
            run(&home, listen, relay.map(|at_sign| beside::Wanted { at_sign, port: relay_port, verbose }))
        }
        Command::Health { dir, listen } => {
            let home = Home::open(&dir)?;
            let address =
                block_on_io(health::ask(&home, listen.unwrap_or(home.settings().listen)))?.map_err(Failure)?;
            say(&format!("{} answers at {address}", home.settings().host));
            Ok(())
        }
        Command::Validate { dir } => {
            let home = Home::open(&dir)?;
            home.tls()?;
            home.peers()?;
            let accounts = home.store()?.accounts()?.len();
            say(&format!("{}: settings, certificate and store are good; {accounts} atSigns", dir.display()));
            Ok(())
        }
    }
}

fn own_host_name() -> Result<String, Failure> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { Err(Failure("this machine has no host name; name it with --host".into())) } else { Ok(name) }
}

fn welcome(home: &Home, dir: &std::path::Path) {
    let dir = dir.display();
    say(&format!("A server for {} is ready in {dir}.", home.settings().host));
    if let Some(ca) = home.ca() {
        let ca = ca.display();
        say(&format!(
            "\nIt has a private certificate authority. Clients and devices need {ca} and trust it by one of:\n\
             \x20 POSTERN_CA_FILE=…/ca.pem        in the environment (Postern)\n\
             \x20 ~/.config/postern/ca.pem        a copy of it (Postern)\n\
             \x20 the system's store              cp ca.pem /usr/local/share/ca-certificates/postern.crt && update-ca-certificates"
        ));
    }
    say(&format!(
        "\nNext:\n  postern server run --dir {dir} --relay @relay\n  postern server add --dir {dir} --line @me @gateways"
    ));
}

fn add(home: &Home, at_signs: &[AtSign], line: bool, port: Option<u16>) -> Result<(), Failure> {
    if port.is_some() && at_signs.len() > 1 {
        return Err(Failure("--port is for one atSign".into()));
    }
    if line && at_signs.len() > AT_SIGNS {
        return Err(Failure(format!("a line has room for {AT_SIGNS} atSigns")));
    }
    let Settings { host, listen, advertised_port, .. } = home.settings();
    let directory = ServerAddress { host: host.clone(), port: advertised_port.unwrap_or(listen.port()) };
    if line && directory.port == 0 {
        return Err(Failure("this server's port is the system's choice: set advertised-port in server.toml".into()));
    }
    let anchor = home.anchor()?;
    let store = home.store()?;
    let mut added = Vec::new();
    for at_sign in at_signs {
        match block_on(home.add(store.as_ref(), at_sign, port))? {
            Ok(secret) => added.push((at_sign.clone(), secret)),
            Err(error) => {
                // Those that were made are shown: nobody will hear of their secrets again.
                hand_out(&added)?;
                return Err(error.into());
            }
        }
    }
    if !line {
        return hand_out(&added);
    }
    let secret = |(at_sign, secret): (AtSign, Zeroizing<String>)| Some((at_sign, CramSecret::parse(&secret)?));
    let at_signs: Option<Vec<_>> = added.into_iter().map(secret).collect();
    let at_signs = at_signs.ok_or_else(|| Failure("a secret is none of ours".into()))?;
    let activation = Activation { directory, anchor, relay: home.relay(), at_signs };
    print(&format!("{}\n", activation.print().as_str()))?;
    say("Added. Whoever has this line is their owner, once: postern activate LINE. It is not shown again.");
    Ok(())
}

/// Secrets as `at_activate` takes them.
fn hand_out(added: &[(AtSign, Zeroizing<String>)]) -> Result<(), Failure> {
    for (at_sign, secret) in added {
        let name = if added.len() == 1 { String::new() } else { format!("{at_sign}\t") };
        print(&format!("{name}{}\n", secret.as_str()))?;
        say(&format!("{at_sign} added. This is its activation secret; it is not shown again."));
    }
    Ok(())
}

fn list(home: &Home, json: bool) -> Result<(), Failure> {
    let accounts = home.store()?.accounts()?;
    if json {
        let list: Vec<_> = accounts
            .iter()
            .map(|a| serde_json::json!({"atSign": a.at_sign.as_str(), "port": a.port, "createdAt": a.created_at}))
            .collect();
        return print(&format!("{}\n", serde_json::Value::from(list)));
    }
    let lines = accounts.iter().map(|account| match account.port {
        Some(port) => format!("{}\t{port}\n", account.at_sign),
        None => format!("{}\n", account.at_sign),
    });
    print(&lines.collect::<String>())
}

fn run(home: &Home, listen: Option<SocketAddr>, relay: Option<beside::Wanted>) -> Result<(), Failure> {
    tcp::raise_file_limit();
    tasks::install_panic_hook();
    let settings = home.settings().clone();
    let settings_host = settings.host.clone();
    let store = home.store()?;
    let config = Config {
        host: settings.host,
        listen: listen.unwrap_or(settings.listen),
        advertised_port: settings.advertised_port,
        tls: home.tls()?,
        store: Arc::clone(&store),
        limits: Limits::default(),
        peers: home.peers()?,
    };
    let wanted = config.listen;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let drained = runtime.block_on(async {
        let stop = signals::shutdown_token()?;
        let server = Server::start(config).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "; ports below 1024 need CAP_NET_BIND_SERVICE, or choose another with --listen"
                }
                io::ErrorKind::AddrInUse => "; another program listens there, or this server runs already",
                _ => "",
            };
            Failure(format!("failed to listen on {wanted}: {error}{hint}"))
        })?;
        say(&format!("listening on {}", server.address()));
        let present = Present::now("server", &server.address().to_string()).with("serves", &settings_host);
        let _present = Presence::hold(&present);
        ready::notify_ready();
        ready::notify_status(&format!("listening on {}", server.address()));
        let mut watchdog = Watchdog::of_environment();
        let address = server.address();
        let beside = async {
            match &relay {
                Some(relay) => beside::keep(home, store.as_ref(), relay, address, &stop).await,
                None => stop.cancelled().await,
            }
        };
        let mut beside = pin!(beside);
        loop {
            // The beat is of the threads that serve, not of this one.
            let well = async {
                watchdog.due().await;
                server.turns().await
            };
            tokio::select! {
                biased;
                // Only when it is to stop.
                () = &mut beside => break,
                well = well => if well { ready::notify_alive() },
            }
        }
        ready::notify_stopping();
        Ok::<_, Failure>(server.stop_within(DRAIN).await)
    })?;
    runtime.shutdown_timeout(DRAIN);
    if drained { Ok(()) } else { Err(Failure("stopped before every connection had ended".into())) }
}

/// What `init` does, where nothing is yet.
fn begin(dir: &std::path::Path, host: String, listen: Option<SocketAddr>) -> Result<(), Failure> {
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([0u16; 8], DEFAULT_PORT)));
    match Home::init(dir, &Wanted { host: host.clone(), listen, tls: None }) {
        Ok(home) => welcome(&home, dir),
        Err(HomeError::Exists(_)) => {
            let known = Home::open(dir)?.settings().host.clone();
            if known != host {
                return Err(Failure(format!(
                    "{} is of a server for {known}, not for {host}: leave --host out, or name another directory",
                    dir.display()
                )));
            }
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

fn block_on_io<F: Future>(work: F) -> io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work))
}

fn block_on<F: Future>(work: F) -> io::Result<F::Output> {
    Ok(tokio::runtime::Builder::new_current_thread().build()?.block_on(work))
}

/// Data. A reader that has gone is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Talk. Nothing can be done when nobody listens.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

impl From<HomeError> for io::Error {
    fn from(error: HomeError) -> Self {
        Self::other(error.to_string())
    }
}
