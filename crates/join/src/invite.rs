//! `postern invite`: gives out lines, and lets in who comes with them.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use postern_client::trust::{KnownKeys, Places};
use postern_client::{
    Client, EnrollmentRequest, EnrollmentStatus, Identity, Inbox, KeyFile, PendingEnrollment, Settings,
    default_key_file, home_dir, identity, parse_root,
};
use postern_identity::{Anchor, DeviceName, Fingerprint, Invitation, InvitationSecret, Passcode};
use postern_net::tasks::Tasks;
use postern_net::tls::Trust;
use postern_observe::{Waiting, print, say};
use postern_proto::{AtSign, ServerAddress};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde_json::json;
use zeroize::Zeroizing;

use crate::book::{Book, Entry, State};
use crate::fail::{Fail, Kind};
use crate::invite_cli::{Wanted, Who};
use crate::limits::{FAREWELL, HEARTBEAT, LOOK_EVERY};
use crate::tools::Tools;
use crate::{APP, anchor, date, namespaces, now, tend};

/// What is listened for while waiting: requests, and devices that have their keys. Source: the atProtocol, names of
/// enrolment records.
const NEWS: &str = r".*\.new\.enrollments\.__manage";
/// Where there is no other word.
const DEFAULT_ROOT: &str = "root.atsign.org";

/// The device's atSign, opened.
struct Desk {
    client: Client,
    inbox: Inbox,
    me: Option<AtSign>,
    at_sign: AtSign,
    root: ServerAddress,
    trust: Trust,
    tasks: Tasks,
    waiting: Waiting,
}

/// Gives out lines.
pub(crate) async fn run(who: &Who, wanted: Wanted) -> Result<(), Fail> {
    let book = Book::of_user()?;
    let mut desk = Desk::open(who).await?;
    let outcome = desk.give_out(who, &wanted, &book).await;
    desk.tasks.close_and_wait(FAREWELL).await;
    outcome
}

/// Looks at who has come.
pub(crate) async fn approve(who: &Who, wait: bool) -> Result<(), Fail> {
    let book = Book::of_user()?;
    let mut desk = Desk::open(who).await?;
    let at_sign = desk.at_sign.clone();
    let outcome = if wait {
        let all = book.all()?;
        let open = all.iter().filter(|entry| entry.at_sign == at_sign && entry.state.is_waiting());
        let names: Vec<DeviceName> = open.map(|entry| entry.device.clone()).collect();
        desk.wait_for(&names, &book).await
    } else {
        desk.look(&book).await.map(|changed| {
            if changed == 0 {
                say("nothing new");
            }
        })
    };
    desk.tasks.close_and_wait(FAREWELL).await;
    outcome
}

/// Takes lines back.
pub(crate) async fn cancel(who: &Who, names: &[DeviceName]) -> Result<(), Fail> {
    let book = Book::of_user()?;
    let desk = Desk::open(who).await?;
    for name in names {
        let Some(mut entry) = book.find(name, &desk.at_sign)?.filter(|entry| entry.state == State::Open) else {
            return Err(Fail::usage(format!("there is no open invitation for {name}{}", desk.at_sign)));
        };
        let passcode = entry.invitation.as_ref().map(|invitation| invitation.passcode.clone());
        entry.end(State::Cancelled);
        book.keep(&entry)?;
        if let Some(passcode) = passcode {
            desk.spend(name, &passcode).await;
        }
        print(format_args!("{name}{} cancelled", desk.at_sign));
    }
    // Who is at the door with one of them need not wait in vain.
    tend::look(&desk.client, &book, &desk.at_sign).await?;
    desk.tasks.close_and_wait(FAREWELL).await;
    Ok(())
}

/// Shows what was given out.
pub(crate) fn list(as_json: bool) -> Result<(), Fail> {
    for entry in Book::of_user()?.all()? {
        let Entry { at_sign, device, labels, expires, enrollment, identity, .. } = &entry;
        let is_over = entry.state == State::Open && now() > (*expires).into();
        let state = if is_over { State::Expired } else { entry.state };
        if as_json {
            print(json!({
                "device": device.as_str(), "atSign": at_sign.as_str(), "state": state.as_str(), "expires": date(*expires),
                "labels": labels, "enrollmentId": enrollment.as_ref().map(ToString::to_string),
                "identity": identity.map(|one| one.to_string()),
            }));
        } else {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let identity = identity.map(|one| one.to_string()).unwrap_or_default();
            let name = format!("{device}{at_sign}");
            let line =
                format!("{name:<28} {:<9} {:<20} {} {identity}", state.as_str(), date(*expires), labels.join(","));
            print(line.trim_end());
        }
    }
    Ok(())
}

impl Desk {
    async fn open(who: &Who) -> Result<Self, Fail> {
        let tools = Tools::read()?;
        let named = |text: Option<&String>, what: &str| {
            text.map(|text| {
                AtSign::parse(text).map_err(|error| Fail::usage(format!("{what} of the configuration: {error}")))
            })
            .transpose()
        };
        let me = who.from.clone().map_or_else(|| named(tools.from.as_ref(), "from"), |me| Ok(Some(me)))?;
        let at_sign = who.to.clone().map_or_else(|| named(tools.to.as_ref(), "to"), |to| Ok(Some(to)))?;
        let at_sign = at_sign.ok_or_else(|| Fail::usage("say whose device it is to be: -t @DEVICE"))?;
        let root = match &who.root {
            Some(root) => root.clone(),
            None => parse_root(tools.root.as_deref().unwrap_or(DEFAULT_ROOT)).map_err(Fail::usage)?,
        };
        let identity = identity(&at_sign, who.device_keys.as_deref()).map_err(|error| {
            Fail::usage(format!("{error}\nAn invitation needs keys of {at_sign} that may approve: --device-keys FILE"))
        })?;
        let trust = Trust::load().map_err(|error| Fail::world(format!("failed to {error}")))?;
        let settings =
            Settings { root: root.clone(), trust: trust.clone(), heartbeat: HEARTBEAT, monitor: Some(NEWS.to_owned()) };
        let (tasks, waiting) = (Tasks::new(), Waiting::on_terminal());
        waiting.on(format!("the server of {at_sign}"));
        let (client, inbox) = Client::connect(identity, settings, &tasks).await.map_err(Fail::world)?;
        Ok(Self { client, inbox, me, at_sign, root, trust, tasks, waiting })
    }

    /// Uses a passcode up, so that who comes with it hears at once that it is no good. No atServer has a verb for that.
    async fn spend(&self, name: &DeviceName, passcode: &Passcode) {
        let settings =
            Settings { root: self.root.clone(), trust: self.trust.clone(), heartbeat: HEARTBEAT, monitor: None };
        let wanted = EnrollmentRequest {
            app: APP.to_owned(),
            device: name.to_string(),
            namespaces: namespaces(),
            passcode: Zeroizing::new(passcode.as_str().to_owned()),
            keys_life: None,
        };
        let asked = PendingEnrollment::request(&settings, &self.at_sign, wanted).await;
        if let Ok(asked) = &asked {
            let denied = self.client.deny(asked.id()).await;
            let gone = self.client.delete_enrollment(asked.id()).await;
            tracing::debug!(ok = denied.is_ok() && gone.is_ok(), "the passcode is spent");
        }
    }

    async fn give_out(&mut self, who: &Who, wanted: &Wanted, book: &Book) -> Result<(), Fail> {
        let me = self.me.clone().ok_or_else(|| Fail::usage("say who may come in: -f @ME"))?;
        let known = self.client.enrollments(&[EnrollmentStatus::Pending, EnrollmentStatus::Approved]).await;
        let known = known.map_err(Fail::world)?;
        for name in &wanted.names {
            self.check_free(name, &known, book, wanted.again)?;
        }
        let manager_key = self.key_of(&me, who).await?;
        let anchor = anchor::choose(&self.root, &self.trust).await?;
        let on_terminal = std::io::stderr().is_terminal();
        for (n, name) in wanted.names.iter().enumerate() {
            self.waiting.on(format!("passcode {} of {}", n + 1, wanted.names.len()));
            let entry = self.invite(name, &me, manager_key, anchor, wanted).await?;
            // Kept before it is shown: a line that nobody remembers lets nobody in.
            book.keep(&entry)?;
            show(&entry, wanted, on_terminal && wanted.names.len() == 1);
        }
        if wanted.wait.unwrap_or(on_terminal && !wanted.json) {
            self.wait_for(&wanted.names, book).await
        } else {
            Ok(())
        }
    }

    fn check_free(
        &self,
        name: &DeviceName,
        known: &[postern_client::EnrollmentInfo],
        book: &Book,
        again: bool,
    ) -> Result<(), Fail> {
        let at_sign = &self.at_sign;
        if let Some(found) = known.iter().find(|one| one.app == APP && one.device == name.as_str()) {
            return Err(Fail::new(
                Kind::Taken,
                format!(
                    "there is a device {name}{at_sign} ({}) already. If it is gone: at_activate revoke -a {at_sign} -i {}",
                    found.status, found.id
                ),
            ));
        }
        let open =
            book.find(name, at_sign)?.filter(|entry| entry.state == State::Open && now() <= entry.expires.into());
        match open {
            Some(_) if !again => Err(Fail::new(
                Kind::Taken,
                format!(
                    "there is an open invitation for {name}{at_sign}; --again replaces it, postern invite cancel {name} takes it back"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// The manager's encryption key: from their own key file, or as it is pinned or shown.
    async fn key_of(&self, me: &AtSign, who: &Who) -> Result<Fingerprint, Fail> {
        if *me == self.at_sign {
            return Ok(Fingerprint::from(&self.client.identity().keys.encryption_public));
        }
        let file = match &who.keys {
            Some(file) => Some(file.clone()),
            None => home_dir().ok().map(|home| default_key_file(&home, me)).filter(|file| file.exists()),
        };
        if let Some(file) = file {
            let keys = KeyFile::load(&file).map_err(Fail::usage)?;
            return Ok(Fingerprint::from(&keys.encryption_public));
        }
        let known = KnownKeys::new(Places::of_user(), false);
        let key = known.encryption_key(&self.client, me).await.map_err(Fail::world)?;
        let shown = Fingerprint::from(&key);
        say(format_args!(
            "{me} is taken to have the key {shown}, as its server shows it: its key file is not here (-k)"
        ));
        Ok(shown)
    }

    async fn invite(
        &self,
        name: &DeviceName,
        me: &AtSign,
        manager_key: Fingerprint,
        anchor: Anchor,
        wanted: &Wanted,
    ) -> Result<Entry, Fail> {
        let code = self.client.one_time_passcode(Some(wanted.expires)).await.map_err(Fail::world)?;
        let passcode = Passcode::parse(&code).ok_or_else(|| Fail::world("the server's passcode is none"))?;
        let expires = u32::try_from(now().saturating_add(wanted.expires.as_secs())).unwrap_or(u32::MAX);
        let Identity { at_sign, keys } = self.client.identity();
        let invitation = Invitation {
            directory: self.root.clone(),
            anchor,
            at_sign: at_sign.clone(),
            at_sign_key: Fingerprint::from(&keys.encryption_public).half(),
            device: name.clone(),
            manager: me.clone(),
            manager_key,
            passcode,
            expires,
            secret: InvitationSecret::generate(),
        };
        Ok(Entry {
            at_sign: at_sign.clone(),
            device: name.clone(),
            labels: wanted.labels.iter().cloned().collect(),
            expires,
            state: State::Open,
            enrollment: None,
            identity: None,
            invitation: Some(invitation),
        })
    }

    /// Lets in who comes, until all of these are over.
    async fn wait_for(&mut self, names: &[DeviceName], book: &Book) -> Result<(), Fail> {
        say(format_args!(
            "waiting for {} to join; interrupt at any time: postern invite approve goes on",
            listed(names)
        ));
        // Its seconds are counted from now.
        self.waiting.off();
        let (mut failed, mut last) = (None, Instant::now());
        loop {
            match self.look(book).await {
                Ok(_) => last = Instant::now(),
                // The client comes back by itself.
                Err(fail) if last.elapsed() > Duration::from_secs(60) => return Err(fail),
                Err(fail) => tracing::debug!(%fail, "will look again"),
            }
            let (mut left, mut next) = (0, None);
            for name in names {
                match book.find(name, &self.at_sign)?.map(|entry| entry.state) {
                    Some(state) if state.is_waiting() => {
                        left += 1;
                        next.get_or_insert(name);
                    }
                    Some(State::Joined) => {}
                    state => failed = Some((name, state.map_or("gone", State::as_str))),
                }
            }
            let Some(next) = next else { break };
            self.waiting.on(match left {
                1 => format!("{next} to join"),
                _ => format!("{next} to join, and {} more", left - 1),
            });
            tokio::select! {
                // A request: at once.
                push = self.inbox.next() => {
                    if push.is_none() {
                        return Err(Fail::world("the connection was closed"));
                    }
                }
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        match failed {
            None => Ok(()),
            Some((name, state)) => Err(Fail::new(Kind::Invitation, format!("the invitation of {name} is {state}"))),
        }
    }

    /// How many stand otherwise now.
    async fn look(&self, book: &Book) -> Result<usize, Fail> {
        let news = tend::look(&self.client, book, &self.at_sign).await?;
        for tend::News { entry } in &news {
            let name = format!("{}{}", entry.device, entry.at_sign);
            match (entry.state, entry.identity) {
                (State::Joined, Some(identity)) => {
                    say(format_args!("{name} has joined; its key is pinned: {identity}"));
                    if let Some(me) = &self.me {
                        Tools::lead(me, &entry.at_sign, &entry.device, &self.root)?;
                    }
                }
                (State::Approved, _) => {}
                (state, _) => say(format_args!("{name}: the invitation is {}", state.as_str())),
            }
        }
        Ok(news.len())
    }
}

fn listed(names: &[DeviceName]) -> String {
    match names {
        [one] => one.to_string(),
        [first, .., last] => format!("{} devices, {first} to {last},", names.len()),
        [] => "nobody".to_owned(),
    }
}

/// The line on standard output, everything else beside it.
fn show(entry: &Entry, wanted: &Wanted, alone: bool) {
    let Some(invitation) = &entry.invitation else { return };
    let line = invitation.print();
    let (device, at_sign, expires) = (&entry.device, &entry.at_sign, date(entry.expires));
    if alone && !wanted.json {
        say(format_args!("On the device, before {expires}:  postern join LINE"));
    }
    if wanted.json {
        print(json!({
            "device": device.as_str(), "atSign": at_sign.as_str(), "expires": expires, "labels": entry.labels,
            "line": line.as_str(),
        }));
    } else {
        print(line.as_str());
    }
    if wanted.qr.unwrap_or(alone && !wanted.json) {
        match QrCode::with_error_correction_level(line.to_uppercase(), EcLevel::L) {
            Ok(code) => {
                let colours = |render: &mut qrcode::render::Renderer<'_, Dense1x2>| {
                    // Terminals are dark: what is printed is light.
                    render.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
                };
                say(colours(&mut code.render::<Dense1x2>()));
            }
            Err(error) => say(format_args!("no QR code: {error}")),
        }
    }
}
