//! One connection: who is logged in, and its channels.

mod forward;
mod offer;
mod seats;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use postern_net::tasks::Tasks;
use russh::server::{Auth, ChannelOpenHandle, Handle, Handler, Msg, Session};
use russh::{Channel, ChannelId, ChannelOpenFailure, Disconnect, Pty, Sig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::account::Account;
use crate::cut::Cut;
use crate::input::Input;
use crate::key::HostKey;
use crate::limits::{
    LAST_WORDS, LOGIN, ORDERS, TERMINAL_BYTES, TRICKLE, TRICKLE_PAUSE, VARIABLE_BYTES, VARIABLES, WINDOW,
};
use crate::login::Program;
use crate::program::{Order, Start, command, signal};
use crate::terminal::{Wanted, size};
use forward::carry;
use seats::{Seat, Seats, Stage, Wishes};

/// What a dialled target is, or why it is not reached, in words for the client.
pub type Dial<'a> = Pin<Box<dyn Future<Output = Result<TcpStream, String>> + Send + 'a>>;

/// What the client at the other end of the stream may do. Asked at the moment of doing.
pub trait Access: Send + Sync + 'static {
    /// Who it is, for the environment of its programs: `@alice`.
    fn client(&self) -> String;

    /// Whether it may log in as this user (whose name is not looked at yet).
    ///
    /// # Errors
    /// Why not, in words for the client.
    fn may_be(&self, user: &str) -> Result<(), String>;

    /// It has logged in, or was refused, for the books.
    fn logged_in(&self, user: &str, outcome: Result<(), &str>);

    /// Dials a target of a forwarded port, if it may.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dial<'a>;
}

/// Serves one connection to its end. Its programs end with it; they run on `tasks`, which are to be waited for.
pub async fn serve<S>(stream: S, key: &HostKey, access: Arc<dyn Access>, tasks: &Tasks)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (logged_in, mut is_logged_in) = watch::channel(false);
    let over = tasks.token().child_token();
    let connection = Connection {
        access,
        tasks: tasks.clone(),
        over: over.clone(),
        login: Login::Nobody,
        logged_in,
        seats: Arc::default(),
    };
    // Whatever ends this ends the programs, and the library's task.
    let _guard = over.clone().drop_guard();
    let stream = Cut::new(stream, over.clone());
    let started = timeout(LOGIN, russh::server::run_stream(Arc::new(offer::config(key)), stream, connection)).await;
    let running = match started {
        Ok(Ok(running)) => running,
        Ok(Err(error)) => return tracing::debug!(%error, "ssh: no connection"),
        Err(_) => return tracing::debug!("ssh: the client is silent"),
    };
    let handle = running.handle();
    let nobody = async {
        if timeout(LOGIN, async { is_logged_in.wait_for(|is| *is).await.map(drop) }).await.is_ok() {
            return std::future::pending().await;
        }
        let _ = handle.disconnect(Disconnect::ByApplication, "nobody has logged in".into(), String::new()).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        outcome = running => {
            if let Err(error) = outcome {
                tracing::debug!(%error, "ssh: the connection ended");
            }
        }
        () = nobody => {}
    }
}

/// Who is logged in. Everything a client asks for goes through [`Connection::user`], and only `As` answers it.
enum Login {
    Nobody,
    /// ssh itself says that it was let in, only to hear why it goes out again: a refusal of the protocol has no words.
    Refused(String),
    As(Account),
}

struct Connection {
    access: Arc<dyn Access>,
    tasks: Tasks,
    over: CancellationToken,
    login: Login,
    logged_in: watch::Sender<bool>,
    seats: Arc<Seats>,
}

/// Why a connection ends early.
#[derive(Debug)]
enum Fault {
    Ssh(russh::Error),
    /// Its client sends more than its window allows.
    TooMuch,
}

impl Connection {
    fn user(&self) -> Option<&Account> {
        match &self.login {
            Login::As(account) => Some(account),
            Login::Nobody | Login::Refused(_) => None,
        }
    }

    /// A change of what a channel wishes; false: it is too late, or not permitted.
    fn wish(&self, id: ChannelId, change: impl FnOnce(&mut Wishes) -> bool) -> bool {
        match self.seats.lock().get_mut(&id).map(|seat| &mut seat.stage) {
            Some(Stage::Waits(wishes)) => change(wishes),
            _ => false,
        }
    }

    fn order(&self, id: ChannelId, order: Order) {
        if let Some(Stage::Runs(orders)) = self.seats.lock().get(&id).map(|seat| &seat.stage) {
            // Full: it is told the next one.
            let _ = orders.try_send(order);
        }
    }

    /// Starts what a channel is for; a channel has one program. False: it has one, or nobody is logged in.
    fn start(&self, id: ChannelId, program: Program, handle: Handle) -> bool {
        let Some(account) = self.user() else { return false };
        let mut seats = self.seats.lock();
        let Some(seat) = seats.get_mut(&id) else { return false };
        if !matches!(seat.stage, Stage::Waits(_)) {
            return false;
        }
        let (orders, theirs) = mpsc::channel(ORDERS);
        let Stage::Waits(wishes) = std::mem::replace(&mut seat.stage, Stage::Runs(orders)) else { return false };
        let Wishes { channel, terminal, mut variables } = *wishes;
        variables.push(("POSTERN_CLIENT".into(), self.access.client()));
        let start = Start {
            user: account.name.clone(),
            program,
            terminal,
            variables,
            channel,
            handle,
            input: Arc::clone(&seat.input),
            orders: theirs,
            over: seat.over.clone(),
        };
        drop(seats);
        let place = self.seats.place(id);
        self.tasks.spawn(async move {
            start.run().await;
            drop(place);
        });
        true
    }
}

/// Tells the client that what it asked for is done, or not.
fn answer(session: &mut Session, id: ChannelId, is_done: bool) -> Result<(), Fault> {
    if is_done {
        session.channel_success(id)?
    } else {
        session.channel_failure(id)?
    }
    Ok(())
}

impl Handler for Connection {
    type Error = Fault;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, Fault> {
        // Whether there is such a user is for those who may be it.
        let found = self.access.may_be(user).and_then(|()| Account::find(user));
        match found {
            Ok(account) => {
                self.access.logged_in(user, Ok(()));
                self.login = Login::As(account);
            }
            Err(why) => {
                self.access.logged_in(user, Err(&why));
                self.login = Login::Refused(why);
            }
        }
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), Fault> {
        match &self.login {
            Login::As(_) => drop(self.logged_in.send_replace(true)),
            Login::Refused(why) => session.disconnect(Disconnect::NoMoreAuthMethodsAvailable, why, "en")?,
            Login::Nobody => {}
        }
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        if self.user().is_none() {
            return Ok(());
        }
        let (id, (_, channel)) = (channel.id(), channel.split());
        let seat = Seat {
            input: Arc::default(),
            over: self.over.child_token(),
            stage: Stage::Waits(Box::new(Wishes { channel, terminal: None, variables: Vec::new() })),
        };
        // It is given back when its program is over, or by `channel_close`.
        if self.seats.take(id, seat) {
            reply.accept().await;
        } else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Fault> {
        let (Some(_), Ok(port)) = (self.user(), u16::try_from(port)) else { return Ok(()) };
        let (id, (_, channel)) = (channel.id(), channel.split());
        let (input, over) = (Arc::<Input>::default(), self.over.child_token());
        let seat = Seat { input: Arc::clone(&input), over: over.clone(), stage: Stage::Carries };
        if !self.seats.take(id, seat) {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        }
        let place = self.seats.place(id);
        let (access, host) = (Arc::clone(&self.access), host.to_owned());
        self.tasks.spawn(async move {
            let carrying = async {
                match access.dial(&host, port).await {
                    Ok(socket) => {
                        reply.accept().await;
                        carry(socket, &channel, &input).await;
                    }
                    Err(reason) => reply.reject(ChannelOpenFailure::Other { code: 1, reason }).await,
                }
            };
            tokio::select! {
                () = over.cancelled() => {}
                () = carrying => {}
            }
            input.close();
            drop(place);
        });
        Ok(())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Fault> {
        let Some(input) = self.seats.lock().get(&id).map(|seat| Arc::clone(&seat.input)) else { return Ok(()) };
        input.push(data).map_err(|_| Fault::TooMuch)?;
        if input.is_full() {
            // Not for long: nothing else of this connection is read meanwhile.
            let _ = timeout(TRICKLE_PAUSE, input.has_room()).await;
        }
        Ok(())
    }

    /// Called when a window was opened, for the next time.
    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        if self.seats.lock().values().any(|seat| seat.input.is_full()) { TRICKLE } else { WINDOW }
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Fault> {
        if let Some(seat) = self.seats.lock().get(&id) {
            seat.input.end();
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Fault> {
        let mut seats = self.seats.lock();
        if let Some(seat) = seats.get(&id) {
            seat.over.cancel();
            // One that runs is removed by its task, when its program is gone.
            if matches!(seat.stage, Stage::Waits(_)) {
                seats.remove(&id);
            }
        }
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Fault> {
        let fits = term.len() <= TERMINAL_BYTES && term.bytes().all(|b| b.is_ascii_graphic());
        let is_done = fits
            && self.wish(id, |wishes| {
                let terminal = Wanted {
                    name: if term.is_empty() { "dumb".into() } else { term.to_owned() },
                    size: size(columns, rows, width, height),
                    modes: modes.to_vec(),
                };
                wishes.terminal.replace(terminal).is_none()
            });
        answer(session, id, is_done)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Fault> {
        let is_done = is_harmless(name, value)
            && self.wish(id, |wishes| {
                let has_room = wishes.variables.len() < VARIABLES;
                if has_room {
                    wishes.variables.push((name.to_owned(), value.to_owned()));
                }
                has_room
            });
        answer(session, id, is_done)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Fault> {
        let is_done = self.start(id, Program::Shell, session.handle());
        answer(session, id, is_done)
    }

    async fn exec_request(&mut self, id: ChannelId, data: &[u8], session: &mut Session) -> Result<(), Fault> {
        let program = command(data).map(Program::Command);
        let is_done = program.is_some_and(|program| self.start(id, program, session.handle()));
        answer(session, id, is_done)
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Fault> {
        // What it says is bytes, whatever the client asked for before.
        self.wish(id, |wishes| wishes.terminal.take().is_some());
        let is_done = name == "sftp" && self.start(id, Program::Sftp, session.handle());
        answer(session, id, is_done)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _: &mut Session,
    ) -> Result<(), Fault> {
        self.order(id, Order::Resize(size(columns, rows, width, height)));
        Ok(())
    }

    async fn signal(&mut self, id: ChannelId, sig: Sig, _: &mut Session) -> Result<(), Fault> {
        if let Some(signal) = signal(&sig) {
            self.order(id, Order::Signal(signal));
        }
        Ok(())
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Fault> {
        answer(session, id, false)
    }
}

/// Languages alone: other variables lead programs.
fn is_harmless(name: &str, value: &str) -> bool {
    let of_locale = |rest: &str| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    (name == "LANG" || name == "LANGUAGE" || name.strip_prefix("LC_").is_some_and(of_locale))
        && name.len() + value.len() <= VARIABLE_BYTES
        && value.bytes().all(|b| b.is_ascii_graphic())
        // Some programs take a path there.
        && !value.contains('/')
}

impl From<russh::Error> for Fault {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ssh(error) => error.fmt(f),
            Self::TooMuch => f.write_str("the client sends more than it may"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_may_be_set_and_nothing_else() {
        assert!(is_harmless("LANG", "de_DE.UTF-8") && is_harmless("LC_ALL", "C") && is_harmless("LC_TIME", "en@x"));
        for (name, value) in [("LD_PRELOAD", "x"), ("LC_", "C"), ("LC_all", "C"), ("PATH", "/tmp"), ("LANG", "../x")] {
            assert!(!is_harmless(name, value), "{name}={value}");
        }
        assert!(!is_harmless("LANG", &"x".repeat(VARIABLE_BYTES)));
    }
}
