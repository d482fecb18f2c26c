//! What handles ask of a session, and the targets that a device dials.

use std::future::Future as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use postern_streams::StreamId;

use super::way::{DONE, REVOKED, STOPPING};
use super::{Connection, Driver, Listen, Part};
use crate::sealed::ended::{StreamRefused, Why};
use crate::sealed::local::Io;
use crate::sealed::plan::{Authorize, Refusal, Target};
use crate::sealed::slot::{Answer, Done, Report};

/// What a handle asks of the driver.
pub(crate) enum Order {
    Open { text: String, io: Option<Box<dyn Io>>, answer: Answer, done: Done },
    Listen { port: u16, listen: Listen, io: Box<dyn Io>, answer: Answer, done: Done },
    Back { control: StreamId, io: Box<dyn Io>, report: Report },
    Attach { stream: StreamId, io: Box<dyn Io> },
    Dialled { stream: StreamId, outcome: Result<Box<dyn Io>, Refusal>, report: Option<Report> },
    Replace(Connection, u32),
    Close(String),
    Revoke(String),
}

impl Driver {
    pub(super) fn look_at_stop(&mut self, cx: &mut Context<'_>) {
        if let Some(stopped) = self.stopped.as_mut()
            && stopped.as_mut().poll(cx).is_ready()
        {
            self.stopped = None;
            self.leave(Why::Closed("stopped".into()), STOPPING);
        }
    }

    pub(super) fn take_orders(&mut self, cx: &mut Context<'_>) -> bool {
        let mut busy = false;
        while let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
            busy = true;
            match order {
                Order::Open { text, io, answer, done } => drop(self.open(&text, io, answer, done)),
                Order::Listen { port, listen, io, answer, done } => {
                    self.ask_to_listen(port, listen, io, answer, done);
                }
                Order::Back { control, io, report } => self.hand_back(control, io, report),
                Order::Attach { stream, io } => {
                    if let Some(slot) = self.slots.get_mut(&stream) {
                        slot.attach(io);
                        self.streams.ready(stream);
                        self.write_local(stream);
                    }
                }
                Order::Dialled { stream, outcome, report } => self.dialled(stream, outcome, report),
                Order::Replace(connection, epoch) => self.replace(connection, epoch),
                Order::Close(why) => self.leave(Why::Closed(why), DONE),
                Order::Revoke(why) => self.leave(Why::Closed(why), REVOKED),
            }
        }
        busy
    }

    pub(super) fn open(&mut self, text: &str, io: Option<Box<dyn Io>>, answer: Answer, done: Done) -> Option<StreamId> {
        let Some(stream) = self.streams.open(text) else {
            let _ = answer.send(Err(StreamRefused::TooMany));
            return None;
        };
        let slot = self.slot(stream);
        slot.answer = Some(answer);
        slot.done = Some(done);
        // Looked at once, so that dropping the handle wakes us.
        slot.is_abandoned();
        if let Some(io) = io {
            slot.attach(io);
            self.streams.ready(stream);
        }
        Some(stream)
    }

    /// The device: authorises and dials in a task of its own.
    pub(super) fn dial(&mut self, stream: StreamId, target: Target) {
        let Part::Device(authorize) = &self.part else { return };
        self.dial_by(Arc::clone(authorize), stream, target);
    }

    pub(super) fn dial_by(&mut self, authorize: Arc<dyn Authorize>, stream: StreamId, target: Target) {
        let (orders, stop) = (self.own_orders.clone(), self.stop.clone());
        self.slot(stream);
        drop(self.tasks.spawn(async move {
            let outcome = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                outcome = join(&*authorize, &target) => outcome,
            };
            let (outcome, address) = match outcome {
                Ok((io, address)) => (Ok(io), address),
                Err(refusal) => (Err(refusal), None),
            };
            let report: Report = Box::new(move |carried| authorize.over(&target, address, carried));
            let _ = orders.send(Order::Dialled { stream, outcome, report: Some(report) }).await;
        }));
    }

    pub(super) fn dialled(&mut self, stream: StreamId, outcome: Result<Box<dyn Io>, Refusal>, report: Option<Report>) {
        match outcome {
            Ok(io) => {
                if !self.streams.accept(stream) {
                    return;
                }
                let slot = self.slot(stream);
                slot.attach(io);
                report.into_iter().for_each(|report| slot.over_with(report));
                self.streams.ready(stream);
                self.write_local(stream);
            }
            Err(Refusal { code, text }) => {
                self.slots.remove(&stream);
                self.streams.refuse(stream, code, &text);
            }
        }
    }
}

/// What stands at the target, and the address that was dialled for it.
async fn join(authorize: &dyn Authorize, target: &Target) -> Result<(Box<dyn Io>, Option<SocketAddr>), Refusal> {
    if let Some(served) = authorize.serve(target).await {
        return served.map(|local| (local.0, None));
    }
    let socket = authorize.dial(target).await?;
    let _ = postern_net::tcp::tune(&socket);
    let address = socket.peer_addr().ok();
    Ok((Box::new(socket), address))
}
