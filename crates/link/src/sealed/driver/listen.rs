//! The reverse direction: the device listens for the client, and hands it the connections.
//!
//! ```text
//! client  OPEN +listen:8080 ──►  device listens on its loopback for as long as that stream (the control) is open
//! client  ◄── OPEN +back:3       somebody has connected; 3 is the number of the control
//! ```
//!
//! The client dials what its user has typed for that control, and nothing else: the device cannot name a target.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;

use postern_session::HostPort;
use postern_streams::{Ask, RefusalCode, StreamId};
use tokio::io::{AsyncReadExt as _, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Driver, Order, Part};
use crate::sealed::limits::ACCEPT_PAUSE;
use crate::sealed::local::Io;
use crate::sealed::plan::{Authorize, Target};
use crate::sealed::slot::{Answer, Done, Report};

/// What the client does with connections of one control.
pub(crate) struct Listen {
    pub(crate) target: HostPort,
    pub(crate) dial: Arc<dyn Authorize>,
}

impl Driver {
    /// The client: asks the device to listen.
    pub(super) fn ask_to_listen(&mut self, port: u16, listen: Listen, io: Box<dyn Io>, answer: Answer, done: Done) {
        if let Some(control) = self.open(&Ask::Listen(port).to_string(), Some(io), answer, done) {
            let slots = &self.slots;
            self.listens.retain(|control, _| slots.contains_key(control));
            self.listens.insert(control, listen);
        }
    }

    /// The client: somebody has connected to a port that the device listens on for us.
    pub(super) fn come_in(&mut self, stream: StreamId, control: StreamId) {
        let listen = self.listens.get(&control).filter(|_| self.slots.contains_key(&control));
        match listen {
            Some(Listen { target, dial }) => {
                let (target, dial) = (Target::HostPort(target.clone()), Arc::clone(dial));
                self.dial_by(dial, stream, target);
            }
            None => {
                self.slots.remove(&stream);
                self.streams.refuse(stream, RefusalCode::NotPermitted, "nobody here asked for it");
            }
        }
    }

    /// The device: somebody came to a port that is listened on. Where the session has no room for more streams they are let go.
    pub(super) fn hand_back(&mut self, control: StreamId, io: Box<dyn Io>, report: Report) {
        if let Some(stream) = self.streams.open(&Ask::Back(control).to_string()) {
            let slot = self.slot(stream);
            slot.over_with(report);
            slot.attach(io);
            self.streams.ready(stream);
        }
    }

    /// The device: listens, where that is permitted, in a task of its own.
    pub(super) fn listen(&mut self, control: StreamId, port: u16) {
        let Part::Device(authorize) = &self.part else { return };
        let (authorize, orders, stop) = (Arc::clone(authorize), self.own_orders.clone(), self.stop.clone());
        drop(self.tasks.spawn(async move {
            let listened = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                listened = authorize.listen(port) => listened,
            };
            let (ours, theirs) = tokio::io::duplex(1);
            let (listeners, outcome): (_, Result<Box<dyn Io>, _>) = match listened {
                Ok(listeners) => (listeners, Ok(Box::new(theirs))),
                Err(refusal) => (Vec::new(), Err(refusal)),
            };
            let refused = outcome.is_err();
            let told = orders.send(Order::Dialled { stream: control, outcome, report: None }).await;
            if refused {
                return;
            }
            let _closed = Closed { authorize: Arc::clone(&authorize), port };
            if told.is_ok() {
                let door = Door { control, port, authorize, orders };
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = gone(ours) => {}
                    () = door.serve(&listeners) => {}
                }
            }
        }));
    }
}

/// Says that a port is no longer listened on, however that came.
struct Closed {
    authorize: Arc<dyn Authorize>,
    port: u16,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.authorize.closed(self.port);
    }
}

/// Waits until the control is over: its end, its reset, or a byte, of which there should be none.
async fn gone(mut control: DuplexStream) {
    let _ = control.read(&mut [0]).await;
}

/// A port that the device listens on.
struct Door {
    control: StreamId,
    port: u16,
    authorize: Arc<dyn Authorize>,
    orders: mpsc::Sender<Order>,
}

impl Door {
    /// Hands over one connection after the other, until the session is over. Who comes while the session has no room for
    /// more streams is let go.
    async fn serve(&self, listeners: &[TcpListener]) {
        loop {
            match accept(listeners).await {
                Ok((socket, peer)) => {
                    if self.hand_over(socket, peer).await.is_none() {
                        return;
                    }
                }
                // Out of file descriptors: some connection will end.
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    async fn hand_over(&self, socket: TcpStream, peer: SocketAddr) -> Option<()> {
        let _ = postern_net::tcp::tune(&socket);
        let (authorize, port) = (Arc::clone(&self.authorize), self.port);
        let report = Box::new(move |carried| authorize.came_in(port, peer, carried));
        self.orders.send(Order::Back { control: self.control, io: Box::new(socket), report }).await.ok()
    }
}

async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|cx| {
        let mut accepted = listeners.iter().map(|listener| listener.poll_accept(cx));
        accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}
