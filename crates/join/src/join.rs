//! `postern join`: from a line to a device that runs.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use postern_client::trust::{KnownKeys, OwnIdentity};
use postern_client::{Client, Identity, KeyFile, RecordOptions, Settings};
use postern_crypto::{hex_lower, random, sha256};
use postern_identity::{Fingerprint, Invitation, Origin, PinName};
use postern_net::tasks::Tasks;
use postern_observe::{Waiting, print, say};
use postern_proto::Uuid;
use zeroize::Zeroizing;

use crate::admission::{self, Admitted};
use crate::anchor::{self, Addition, Believed};
use crate::fail::{Fail, Kind};
use crate::files;
use crate::join_cli::{JoinFlags, Service};
use crate::limits::{ARRIVAL_LIFE, ARRIVAL_TRIES, BATCH_FILE_BYTES, BATCH_TRIES, FAREWELL, HEARTBEAT};
use crate::place::{Made, Place};
use crate::receipt::Receipt;
use crate::service::Manager;
use crate::{config_text, date, now};

const LINE_VARIABLE: &str = "POSTERN_JOIN";
const FILE_VARIABLE: &str = "POSTERN_JOIN_FILE";

/// Where the invitations come from.
enum Source {
    Line(Zeroizing<String>),
    File(PathBuf),
    /// None is given, and none is needed any more.
    Receipt(Box<Receipt>),
}

/// Who is to start the daemon.
fn service(flags: &JoinFlags) -> Option<Manager> {
    match flags.service {
        _ if flags.run => None,
        Service::None => None,
        Service::Auto => Manager::find(),
        Service::Systemd => Some(Manager::Systemd),
        Service::Procd => Some(Manager::Procd),
    }
}

/// Joins, and starts the service.
pub(crate) async fn run(flags: &JoinFlags) -> Result<(), Fail> {
    let service = service(flags);
    let place = Place::of(&flags.wishes.wishes(), service)?;
    let receipt = match source(flags, &place)? {
        Source::Receipt(receipt) => *receipt,
        Source::Line(line) => join(flags, &place, &invitation(&line)?).await?,
        Source::File(file) => join_from_file(flags, &place, &file).await?,
    };
    start(flags, service, &place, receipt)
}

/// Becomes the daemon; comes back only when that cannot be.
pub(crate) fn become_daemon(flags: &JoinFlags) -> ExitCode {
    let started = Place::of(&flags.wishes.wishes(), service(flags)).and_then(|place| {
        let program = std::env::current_exe().map_err(Fail::world)?;
        let mut daemon = Command::new(program);
        daemon.args(["sshnpd", "--config"]).arg(&place.config).env("HOME", &place.home);
        daemon.env_remove(LINE_VARIABLE);
        Err::<(), _>(Fail::world(format!("cannot run the daemon: {}", daemon.exec())))
    });
    let fail = started.err().unwrap_or_else(|| Fail::world("cannot run the daemon"));
    say(format_args!("join: {fail}"));
    fail.code()
}

fn source(flags: &JoinFlags, place: &Place) -> Result<Source, Fail> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let text = |value: OsString| value.into_string().map_err(|_| Fail::usage(format!("{LINE_VARIABLE} is no text")));
    match (&flags.line, &flags.file) {
        (Some(line), _) if line == "-" => {
            let mut line = Zeroizing::new(String::new());
            let read = std::io::stdin().lock().take(BATCH_FILE_BYTES).read_to_string(&mut line);
            read.map_err(|error| Fail::usage(format!("standard input: {error}")))?;
            Ok(Source::Line(line))
        }
        (Some(line), _) => Ok(Source::Line(Zeroizing::new(line.clone()))),
        (None, Some(file)) => Ok(Source::File(file.clone())),
        (None, None) => match (named(LINE_VARIABLE), named(FILE_VARIABLE)) {
            (Some(line), _) => Ok(Source::Line(Zeroizing::new(text(line)?))),
            (None, Some(file)) => Ok(Source::File(file.into())),
            (None, None) => Receipt::only(&place.receipts(), None)?.map(|receipt| Source::Receipt(Box::new(receipt))).ok_or_else(|| {
                Fail::usage(
                    "give the invitation: the line that postern invite printed, or its file with --file. Try postern join --help",
                )
            }),
        },
    }
}

fn invitation(line: &str) -> Result<Invitation, Fail> {
    Invitation::parse(line).map_err(Fail::usage)
}

/// Takes one line of a file that is still good, and removes the file.
async fn join_from_file(flags: &JoinFlags, place: &Place, file: &Path) -> Result<Receipt, Fail> {
    let told = |error: std::io::Error| Fail::world(format!("{}: {error}", file.display()));
    let Some(text) = files::read(file, BATCH_FILE_BYTES).map_err(told)? else {
        // A first-boot service calls this at every boot.
        return match Receipt::only(&place.receipts(), None)? {
            Some(receipt) => Ok(receipt),
            None => Err(Fail::usage(format!("there is no file {} and this machine has not joined", file.display()))),
        };
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let batch: Vec<Invitation> = lines.map(invitation).collect::<Result<_, _>>()?;
    if batch.is_empty() {
        return Err(Fail::usage(format!("{} holds no invitation", file.display())));
    }
    // Machines with the same card begin at different lines; one that has begun goes on with its own.
    let begun = batch.iter().position(|one| place.pending(one).exists() || is_joined(place, one));
    let first = begun.unwrap_or_else(|| usize::from(u16::from_ne_bytes(random())) % batch.len());
    let mut last = None;
    for one in batch.iter().cycle().skip(first).take(batch.len().min(BATCH_TRIES)) {
        match join(flags, place, one).await {
            Ok(receipt) => {
                burn(file);
                return Ok(receipt);
            }
            Err(fail) if fail.kind() == Kind::Invitation => {
                say(format_args!("{}: {fail}", one.device));
                last = Some(fail);
            }
            Err(fail) => return Err(fail),
        }
    }
    Err(last.unwrap_or_else(|| Fail::usage("no invitation was tried")))
}

fn burn(file: &Path) {
    if let Err(error) = fs::remove_file(file).or_else(|_| fs::write(file, "# used\n")) {
        say(format_args!(
            "join: {} cannot be removed ({error}); remove it yourself: other invitations may be in it",
            file.display()
        ));
    }
}

fn is_joined(place: &Place, invitation: &Invitation) -> bool {
    let receipt = Receipt::read(&place.receipt(&invitation.device, &invitation.at_sign));
    receipt.is_ok_and(|receipt| receipt.is_some_and(|receipt| receipt.invitation == mark(invitation)))
}

/// By which an invitation is known again.
fn mark(invitation: &Invitation) -> String {
    hex_lower(&sha256(invitation.print().as_bytes()))
}

async fn join(flags: &JoinFlags, place: &Place, invitation: &Invitation) -> Result<Receipt, Fail> {
    let (keys, receipt) = (place.keys(&invitation.at_sign), place.receipt(&invitation.device, &invitation.at_sign));
    if let Some(found) = Receipt::read(&receipt)?
        && found.invitation == mark(invitation)
        && found.keys.exists()
    {
        say(format_args!("{}{} has joined already", invitation.device, invitation.at_sign));
        return Ok(found);
    }
    let pending = place.pending(invitation);
    let has_begun = pending.exists();
    if now() > invitation.expires.into() && !has_begun {
        return Err(Fail::new(
            Kind::Invitation,
            format!(
                "the invitation expired at {}; here it is {}. If this clock is right, ask for another; if not, set it and run this again",
                date(invitation.expires),
                date(u32::try_from(now()).unwrap_or(u32::MAX)),
            ),
        ));
    }
    let mut made = Made::default();
    look_around(place, invitation, &keys, has_begun, &mut made)?;
    say(format_args!("joining as {}{} at {}", invitation.device, invitation.at_sign, invitation.directory));
    let waiting = Waiting::on_terminal();
    waiting.on(format!("the directory {}", invitation.directory));
    let believed = anchor::believe(&invitation.directory, invitation.anchor, flags.patience).await?;
    let settings = Settings {
        root: invitation.directory.clone(),
        trust: believed.trust.clone(),
        heartbeat: HEARTBEAT,
        monitor: None,
    };
    let admitted = admission::ask_and_wait(invitation, &settings, &pending, flags.patience, &waiting).await?;
    waiting.on("telling the inviter our key");
    let receipt = settle(flags, place, invitation, &settings, believed, admitted, &mut made).await?;
    let _ = fs::remove_file(&pending);
    made.keep();
    Ok(receipt)
}

/// Whatever is in the way is found before anybody is asked for anything.
fn look_around(
    place: &Place,
    invitation: &Invitation,
    keys: &Path,
    has_begun: bool,
    made: &mut Made,
) -> Result<(), Fail> {
    let taken = |path: &Path, what: &str| {
        Fail::new(
            Kind::Taken,
            format!(
                "there is {what} at {} already, and it is never overwritten. If it is of no use any more: postern leave, or move it away",
                path.display()
            ),
        )
    };
    if keys.exists() && !has_begun {
        return Err(taken(keys, "a key file"));
    }
    if place.config.exists() && !(has_begun && config_text::is_ours(&place.config)) {
        return Err(taken(&place.config, "a configuration"));
    }
    let known = KnownKeys::new(place.places(), false);
    let pins = known.pins().map_err(Fail::world)?;
    let manager = PinName::AtSign(invitation.manager.clone());
    if let Some(other) = pins.of(&manager).find(|pin| pin.fingerprint != invitation.manager_key) {
        return Err(Fail::new(
            Kind::Taken,
            format!(
                "{} is known here by another key ({}) than the invitation's ({}); if it has new keys: postern pin remove {}",
                invitation.manager, other.fingerprint, invitation.manager_key, invitation.manager
            ),
        ));
    }
    let receipt = place.receipt(&invitation.device, &invitation.at_sign);
    let rooms = [(keys, 0o700), (&*place.pending(invitation), 0o700), (&receipt, 0o700), (&place.ca(), 0o755)];
    for (file, mode) in rooms {
        made.room_for(file, mode)?;
    }
    made.room_for(&place.config, 0o755)
}

/// Writes down what was won. What is found half done is finished.
async fn settle(
    flags: &JoinFlags,
    place: &Place,
    invitation: &Invitation,
    settings: &Settings,
    believed: Believed,
    Admitted { id, keys }: Admitted,
    made: &mut Made,
) -> Result<Receipt, Fail> {
    let again = |what: &Path, error: &dyn std::fmt::Display| {
        Fail::world(format!(
            "this device is let in, but {} cannot be written: {error}. Nothing is lost: mend that and run the same line again",
            what.display()
        ))
    };
    let key_file = place.keys(&invitation.at_sign);
    let is_ours = KeyFile::load(&key_file).is_ok_and(|kept| kept.enrollment_id.as_deref() == Some(id.as_str()));
    if !is_ours {
        let text =
            keys.print(invitation.at_sign.as_str()).map_err(|_| Fail::world("the keys cannot be written as text"))?;
        KeyFile::create(&key_file, &text)
            .map_err(|trouble| Fail::world(format!("this device is let in, but: {trouble}")))?;
        made.file(&key_file);
    }
    let mut ca = believed.pem;
    if let Some(pem) = &ca {
        match anchor::add(pem, &place.ca()).map_err(|error| again(&place.ca(), &error))? {
            Addition::None => ca = None,
            Addition::Appended => {}
            Addition::Made => made.file(&place.ca()),
        }
    }
    let known = KnownKeys::new(place.places(), false);
    let manager = PinName::AtSign(invitation.manager.clone());
    let is_given = |pin: &postern_identity::Pin| pin.origin == Origin::Given;
    let was_known = known.pins().map_err(Fail::world)?.of(&manager).any(is_given);
    if !was_known {
        known.accept(manager, invitation.manager_key).map_err(|error| again(&place.settings, &error))?;
    }
    let identity = Identity { at_sign: invitation.at_sign.clone(), keys: keys.into() };
    let own = OwnIdentity::load(&place.places(), &identity, Some(&invitation.device)).map_err(Fail::world)?;
    let text = config_text::of(invitation, &key_file, flags);
    files::replace(&place.config, &text, 0o644).map_err(|error| again(&place.config, &error))?;
    made.file(&place.config);
    let receipt = Receipt {
        at_sign: invitation.at_sign.to_string(),
        device: invitation.device.to_string(),
        directory: invitation.directory.to_string(),
        enrollment: id.to_string(),
        invitation: mark(invitation),
        keys: key_file.clone(),
        config: place.config.clone(),
        ca,
        pin: (!was_known).then(|| invitation.manager.to_string()),
        service: None,
    };
    let path = place.receipt(&invitation.device, &invitation.at_sign);
    receipt.write(&path).map_err(|error| again(&path, &error))?;
    made.file(&path);
    announce(invitation, identity, settings, &id, own.fingerprint()).await;
    place.hand_over(&key_file).map_err(|error| again(&place.home, &error))?;
    print(format_args!("{}{} {}", invitation.device, invitation.at_sign, own.fingerprint()));
    say(format_args!(
        "joined: {} may come in\n  keys           {}\n  configuration  {}",
        invitation.manager,
        key_file.display(),
        place.config.display()
    ));
    Ok(receipt)
}

/// Tells the inviter our identity key, so that they need not believe the first one they see.
async fn announce(invitation: &Invitation, identity: Identity, settings: &Settings, id: &Uuid, own: Fingerprint) {
    let tasks = Tasks::new();
    let text = invitation.arrival(id.clone(), own).to_string();
    let options = RecordOptions { life: Some(ARRIVAL_LIFE), ..RecordOptions::default() };
    let mut outcome = Ok(());
    for _ in 0..ARRIVAL_TRIES {
        outcome = match Client::connect(identity.clone(), settings.clone(), &tasks).await {
            Ok((client, _inbox)) => client.put_own(&invitation.arrival_record(), &text, options).await,
            Err(error) => Err(error),
        };
        if !matches!(&outcome, Err(error) if error.is_passing()) {
            break;
        }
    }
    tasks.close_and_wait(FAREWELL).await;
    if let Err(error) = outcome {
        say(format_args!(
            "join: the inviter could not be told this device's identity key ({error}); it will be pinned at the first session"
        ));
    }
}

/// Starts the daemon, or says how.
fn start(flags: &JoinFlags, service: Option<Manager>, place: &Place, mut receipt: Receipt) -> Result<(), Fail> {
    let Some(manager) = service else {
        if !flags.run {
            let home = if place.is_elsewhere { format!("HOME={} ", place.home.display()) } else { String::new() };
            say(format_args!("  start it with  {home}postern sshnpd --config {}", receipt.config.display()));
        }
        return Ok(());
    };
    manager.start().map_err(|fail| Fail::world(format!("joined, but the service did not start: {fail}")))?;
    receipt.service = Some(manager.name().to_owned());
    receipt.write(&place.receipts().join(receipt.file_name())).map_err(Fail::world)?;
    say(format_args!("  started by     {}", manager.name()));
    Ok(())
}
