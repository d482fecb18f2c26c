//! The service: hears questions, holds them against who asks, answers.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postern_client::{Client, ClientError, Settings, StartError, connect_patiently, identity};
use postern_net::ready::{self, Watchdog};
use postern_net::signals;
use postern_net::tasks::Tasks;
use postern_net::tls::{TlsError, Trust};
use postern_observe::{Verbosity, say};
use postern_proto::verb::Noop;
use postern_proto::{AtSign, Notification, NotificationId, Request as AtRequest, ServerAddress};
use postern_rules::manage::{self, Operation, may_manage};
use postern_rules::rpc::{Domain, Kind, Reply, Request, RpcError, RpcKey};
use postern_rules::{Answer, Question, RowKind};
use serde_json::{Value as Json, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;

use crate::book::Book;
use crate::keep::{FileMark, Keep, KeepError, record_name};
use crate::limits::{
    CHANGE_LIFE, DRAIN, FILE_POLL, HEARTBEAT, LOG_LIFE, LOGS_PER_MINUTE, OWN_CHANGES, QUESTIONS, QUESTIONS_PER_SENDER,
};

/// What the service is to do.
#[derive(Debug)]
pub(crate) struct ServiceConfig {
    pub(crate) at_sign: AtSign,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) root: ServerAddress,
    /// Devices that may ask; `None`: every device, about itself.
    pub(crate) daemons: Option<Vec<AtSign>>,
    /// Who may change tables.
    pub(crate) managers: Vec<AtSign>,
    pub(crate) keep: Keep,
    /// Namespace of everything, `sshnp`.
    pub(crate) base: String,
    /// Domain of the manager's requests, `npp`.
    pub(crate) domain: String,
    pub(crate) verbosity: Verbosity,
}

/// Why the service cannot run.
#[derive(Debug)]
pub(crate) enum ServiceError {
    Start(StartError),
    Trust(TlsError),
    Login(ClientError),
    Signals(std::io::Error),
    Rules(KeepError),
}

struct Service {
    config: ServiceConfig,
    client: Client,
    checks: Domain,
    manage: Domain,
    book: Mutex<Book>,
    /// Held while rules are written, or read again.
    writing: tokio::sync::Mutex<()>,
    seats: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Questions being answered, by sender.
    busy: BTreeMap<AtSign, usize>,
    /// Changes that we told others of.
    own_changes: VecDeque<NotificationId>,
    /// Log entries since the minute began.
    logged: Option<(Instant, u32)>,
}

/// What a notification is to us.
enum Heard {
    Check(RpcKey),
    Manage(RpcKey),
    Changed,
}

/// Runs until a signal comes.
pub(crate) async fn run(name: &str, config: ServiceConfig) -> Result<(), ServiceError> {
    let identity = identity(&config.at_sign, config.key_file.as_deref()).map_err(ServiceError::Start)?;
    let stop = signals::shutdown_token().map_err(ServiceError::Signals)?;
    let tasks = Tasks::under(&stop);
    let (checks, manage) = (Domain::checks(&config.base), Domain::manage(&config.domain, &config.base));
    let settings = Settings {
        root: config.root.clone(),
        trust: Trust::load().map_err(ServiceError::Trust)?,
        heartbeat: HEARTBEAT,
        monitor: Some(monitor_regex(&config, &checks, &manage)),
    };
    let (client, mut inbox) = match connect_patiently(identity, settings, &tasks).await {
        Ok(connected) => connected,
        Err(ClientError::Stopped) => return Ok(()),
        Err(error) => return Err(ServiceError::Login(error)),
    };
    let mut mark = config.keep.file().map(FileMark::of);
    let book = config.keep.load(&client, &config.base).await.map_err(ServiceError::Rules)?;
    let size = book.size();
    let service = Arc::new(Service {
        checks,
        manage,
        client,
        book: Mutex::new(book),
        writing: tokio::sync::Mutex::new(()),
        seats: Arc::new(Semaphore::new(QUESTIONS)),
        state: Mutex::default(),
        config,
    });
    // Answered behind `monitor` on the same connection: from here on nothing is missed.
    let _ = service.client.request(AtRequest::Noop(Noop { ms: 0 })).await;
    say(format_args!(
        "{name}: monitor started for {} ({size}, version {})",
        service.config.at_sign,
        env!("CARGO_PKG_VERSION")
    ));
    ready::notify_ready();
    ready::notify_status(&format!("{} answers by {size}", service.config.at_sign));
    let mut watchdog = Watchdog::of_environment();
    let mut look = tokio::time::interval(FILE_POLL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = watchdog.beat() => {}
            push = inbox.next() => match push {
                Some(push) => service.hear(push, &tasks),
                None => break,
            },
            _ = look.tick(), if mark.is_some() => service.look(&mut mark).await,
        }
    }
    ready::notify_stopping();
    tasks.close_and_wait(DRAIN).await;
    Ok(())
}

fn monitor_regex(config: &ServiceConfig, checks: &Domain, manage: &Domain) -> String {
    let mut parts = vec![checks.requests_regex(), manage.requests_regex()];
    parts.extend(config.keep.watched().iter().map(|what| format!(r"[0-9]+\.{what}\.policy\.{}@", config.base)));
    format!("({})", parts.join("|"))
}

impl Service {
    /// Everything in here can be caused by a stranger: nothing is said above DEBUG, and each sender has so many seats.
    fn hear(self: &Arc<Self>, push: Notification, tasks: &Tasks) {
        let Some(heard) = self.read(&push) else { return };
        let Some(seat) = self.seat(&push.from) else {
            return tracing::debug!(from = %push.from, "too many requests at once");
        };
        let service = Arc::clone(self);
        tasks.spawn(async move {
            match heard {
                Heard::Check(key) => service.check(key, &push).await,
                Heard::Manage(key) => service.managed(key, &push).await,
                Heard::Changed => service.read_again().await,
            }
            drop(seat);
        });
    }

    fn read(&self, push: &Notification) -> Option<Heard> {
        let (from, key) = (&push.from, push.bare_key());
        if let Some(key) = self.checks.read(&key).filter(|key| key.kind == Kind::Request) {
            if self.config.daemons.as_ref().is_some_and(|daemons| !daemons.contains(from)) {
                tracing::debug!(%from, "not in --daemon-atsigns");
                return None;
            }
            return Some(Heard::Check(key));
        }
        if let Some(key) = self.manage.read(&key).filter(|key| key.kind == Kind::Request) {
            if !may_manage(&self.config.managers, from) {
                tracing::debug!(%from, "not in --manager-allow-list");
                return None;
            }
            return Some(Heard::Manage(key));
        }
        let is_record =
            |what: &&str| key.strip_suffix(&record_name("", what, &self.config.base)).is_some_and(|id| !id.is_empty());
        let is_own = self.lock().own_changes.contains(&push.id);
        let watched = self.config.keep.watched();
        (*from == self.config.at_sign && !is_own && watched.iter().any(is_record)).then_some(Heard::Changed)
    }

    fn seat(self: &Arc<Self>, from: &AtSign) -> Option<Seat> {
        let permit = Arc::clone(&self.seats).try_acquire_owned().ok()?;
        let mut state = self.lock();
        let busy = state.busy.entry(from.clone()).or_default();
        if *busy >= QUESTIONS_PER_SENDER {
            return None;
        }
        *busy += 1;
        Some(Seat { service: Arc::clone(self), from: from.clone(), _permit: permit })
    }

    /// A device's question.
    async fn check(&self, key: RpcKey, push: &Notification) {
        let from = &push.from;
        let question = match self.payload(key, push).await {
            Ok(payload) => Question::from_json(&payload).ok_or("the payload is no question"),
            Err(error) => Err(error),
        };
        // The one thing that nobody can write for somebody else is who sends a notification.
        let question = question.and_then(|question| {
            if question.daemon == *from { Ok(question) } else { Err("payload.daemonAtsign is not who asks") }
        });
        let question = match question {
            Ok(question) => question,
            Err(why) => {
                tracing::debug!(%from, why, "a question is refused");
                return self.reply(&self.checks, from, &Reply::nack(key.id, why)).await;
            }
        };
        let (answer, known) = {
            let book = self.book();
            (book.answer(&question), book.knows_daemon(from))
        };
        let Question { client, device, .. } = &question;
        if known {
            tracing::info!(daemon = %from, device, %client, authorized = answer.authorized, "asked");
        } else {
            tracing::debug!(daemon = %from, device, %client, "asked by a device that no rule names");
        }
        // One connection carries both, in this order.
        let (ack, success) = (Reply::ack(key.id), Reply::success(key.id, answer.to_json()));
        tokio::join!(self.reply(&self.checks, from, &ack), self.reply(&self.checks, from, &success));
        if known {
            self.log(&question, &answer).await;
        }
    }

    /// A manager's wish.
    async fn managed(&self, key: RpcKey, push: &Notification) {
        let from = &push.from;
        let reply = match self.payload(key, push).await {
            Err(why) => Reply::nack(key.id, why),
            Ok(payload) => {
                self.reply(&self.manage, from, &Reply::ack(key.id)).await;
                match Operation::from_json(&payload) {
                    Ok(operation) => match self.operate(from, operation).await {
                        Ok(payload) => Reply::success(key.id, payload),
                        Err(why) => Reply::error(key.id, why),
                    },
                    Err(why) => Reply::error(key.id, why.to_string()),
                }
            }
        };
        self.reply(&self.manage, from, &reply).await;
    }

    async fn operate(&self, from: &AtSign, operation: Operation) -> Result<Json, String> {
        let changed = match operation {
            Operation::Ping => return Ok(json!({"success": true, "version": env!("CARGO_PKG_VERSION")})),
            Operation::Simulate(question) => return Ok(self.book().answer(&question).to_json()),
            Operation::Get(kind) => return self.tables().map(|tables| manage::listed(&tables.rows(kind))),
            Operation::Put(row) => {
                let _one_at_a_time = self.writing.lock().await;
                let mut tables = self.tables()?;
                let row = match tables.put(row) {
                    Ok(row) => row,
                    Err(error) => return Ok(manage::not_done(&error.to_string())),
                };
                let (keep, base) = (&self.config.keep, &self.config.base);
                keep.put(&self.client, base, &tables, &row).await.map_err(|error| error.to_string())?;
                *self.book() = Book::Tables(tables);
                (row.kind(), row.id().to_owned())
            }
            Operation::Delete(kind, id) => {
                let _one_at_a_time = self.writing.lock().await;
                let mut tables = self.tables()?;
                let gone = tables.delete(kind, &id);
                if gone.is_empty() {
                    return Ok(manage::not_done(&format!("there is no {} with the id {id:?}", kind.as_str())));
                }
                let (keep, base) = (&self.config.keep, &self.config.base);
                // Taken away first: should the records resist, nobody comes in by them meanwhile.
                *self.book() = Book::Tables(tables.clone());
                keep.delete(&self.client, base, &tables, &gone).await.map_err(|error| error.to_string())?;
                (kind, id)
            }
        };
        let (kind, id) = changed;
        tracing::info!(manager = %from, row = kind.as_str(), id, "rules changed");
        self.tell_others(kind, &id).await;
        Ok(manage::done(kind, &id))
    }

    fn tables(&self) -> Result<postern_rules::Tables, String> {
        match &*self.book() {
            Book::Tables(tables) => Ok(tables.clone()),
            Book::File(_) => Err("the rules of this service are in a file: edit the file".to_owned()),
            Book::Groups(_) => Err("the rules of this service are groups: see npp groups".to_owned()),
        }
    }

    /// Other programs under our name read the rules anew when they hear this.
    async fn tell_others(&self, kind: RowKind, id: &str) {
        if self.config.keep != Keep::Rows {
            return;
        }
        let name = record_name(id, kind.record(), &self.config.base);
        match self.client.notify_own(&name, "changed", CHANGE_LIFE).await {
            Ok(id) => {
                let mut state = self.lock();
                state.own_changes.push_back(id);
                if state.own_changes.len() > OWN_CHANGES {
                    state.own_changes.pop_front();
                }
            }
            Err(error) => tracing::warn!(%error, "could not tell others of a change"),
        }
    }

    /// Reads the rules anew when their file has changed.
    async fn look(&self, mark: &mut Option<FileMark>) {
        let now = self.config.keep.file().map(FileMark::of);
        if now != *mark {
            *mark = now;
            self.read_again().await;
        }
    }

    /// Rules that cannot be read change nothing: those in force stay.
    async fn read_again(&self) {
        let _one_at_a_time = self.writing.lock().await;
        match self.config.keep.load(&self.client, &self.config.base).await {
            Ok(book) => {
                tracing::info!(rules = book.size(), "rules read");
                *self.book() = book;
            }
            Err(error) => tracing::warn!(%error, "the rules cannot be read; those from before stay in force"),
        }
    }

    async fn payload(&self, key: RpcKey, push: &Notification) -> Result<Json, &'static str> {
        let text = self.client.open(push).await.map_err(|_| "the request cannot be decrypted")?;
        Request::read(key.id, &text).map_err(|error| match error {
            RpcError::OtherId => "the reqId in the text is not the one in the key",
            _ => "malformed request",
        })
    }

    async fn reply(&self, domain: &Domain, to: &AtSign, reply: &Reply) {
        let name = domain.name(reply.kind(), reply.id());
        if let Err(error) = self.client.notify(to, &name, &reply.print(), None).await {
            tracing::debug!(%to, %error, "could not answer");
        }
    }

    /// An entry that other programs under our name can show. Source: NoPorts policy, log.
    async fn log(&self, question: &Question, answer: &Answer) {
        let now = Instant::now();
        {
            let mut state = self.lock();
            let (since, count) =
                state.logged.filter(|(since, _)| now - *since < Duration::from_secs(60)).unwrap_or((now, 0));
            if count >= LOGS_PER_MINUTE {
                return;
            }
            state.logged = Some((since, count + 1));
        }
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let entry = json!({
            "daemon": question.daemon.as_str(),
            "timestamp": u64::try_from(ms).unwrap_or(u64::MAX),
            "payload": {"request": question.to_json(), "response": answer.to_json()},
        });
        let name = record_name(&ms.to_string(), "logs", &self.config.base);
        if let Err(error) = self.client.notify_own(&name, &entry.to_string(), LOG_LIFE).await {
            tracing::debug!(%error, "could not write a log entry");
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those being answered; given back when it is dropped.
struct Seat {
    service: Arc<Service>,
    from: AtSign,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.service.lock();
        if let Some(busy) = state.busy.get_mut(&self.from) {
            *busy -= 1;
            if *busy == 0 {
                state.busy.remove(&self.from);
            }
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(error) => error.fmt(f),
            Self::Trust(error) => error.fmt(f),
            Self::Login(error) => error.fmt(f),
            Self::Signals(error) => write!(f, "cannot listen for signals: {error}"),
            Self::Rules(error) => error.fmt(f),
        }
    }
}
