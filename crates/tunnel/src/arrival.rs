//! Notifications that a session waits for, sorted as they arrive.

use postern_client::{Client, Inbox};
use postern_identity::Statement;
use postern_net::tasks::Tasks;
use postern_proto::{AtSign, Uuid};
use postern_session::{DeviceName, NAMESPACE, PingResponse, RELAY_NAMESPACE};
use tokio::sync::mpsc;

/// What has arrived; each from exactly the atSign that may send it.
pub(crate) struct Arrivals {
    /// For a session of 2024.
    pub(crate) answers: Answers,
    /// The daemon's signed refusals of a sealed session.
    pub(crate) refusal: mpsc::Receiver<Statement>,
}

/// Answers as in 2024.
pub(crate) struct Answers {
    /// The daemon's heartbeat.
    pub(crate) heartbeat: mpsc::Receiver<PingResponse>,
    /// The relay's answer: ports, or its refusal.
    pub(crate) relay: mpsc::Receiver<Result<String, String>>,
    /// The daemon's answer; a later one tells of a failure.
    pub(crate) reply: mpsc::Receiver<String>,
}

/// Whose words count for this session.
pub(crate) struct Parties {
    pub(crate) device_at_sign: AtSign,
    pub(crate) device: DeviceName,
    /// `None`: no relay is asked for ports.
    pub(crate) relay: Option<AtSign>,
    pub(crate) session: Uuid,
}

/// Sorts until the session ends. Messages from anybody else are passed over.
pub(crate) fn sort(parties: Parties, client: Client, mut inbox: Inbox, tasks: &Tasks) -> Arrivals {
    // Two: the first counts, a second is kept for the one case where it matters.
    let (heartbeat_in, heartbeat) = mpsc::channel(2);
    let (relay_in, relay) = mpsc::channel(2);
    let (reply_in, reply) = mpsc::channel(2);
    let (refusal_in, refusal) = mpsc::channel(2);
    let (device, session) = (&parties.device, &parties.session);
    let heartbeat_key = format!("heartbeat.{device}.{NAMESPACE}");
    let reply_key = format!("{session}.{device}.{NAMESPACE}");
    let relay_key = format!("{session}.{RELAY_NAMESPACE}");
    let nack_key = format!("nack.{session}.{RELAY_NAMESPACE}");
    tasks.spawn(async move {
        while let Some(push) = inbox.next().await {
            let key = push.bare_key();
            let from_device = push.from == parties.device_at_sign;
            let from_relay = parties.relay.as_ref() == Some(&push.from);
            let wanted = (from_device && (key == heartbeat_key || key == reply_key))
                || (from_relay && (key == relay_key || key == nack_key));
            if !wanted {
                tracing::debug!(from = %push.from, "a notification that is not for this session");
                continue;
            }
            let text = match client.open(&push).await {
                Ok(text) => text,
                Err(error) => {
                    tracing::warn!(from = %push.from, %error, "could not read a notification");
                    continue;
                }
            };
            // A full channel holds all that is needed; what is too much is dropped.
            if key == heartbeat_key {
                if let Some(ping) = PingResponse::parse(&text) {
                    let _ = heartbeat_in.try_send(ping);
                }
            } else if key == reply_key {
                match Statement::parse(&text) {
                    Ok(statement) => drop(refusal_in.try_send(statement)),
                    Err(_) => drop(reply_in.try_send(text.to_string())),
                }
            } else if key == relay_key {
                let _ = relay_in.try_send(Ok(text.to_string()));
            } else {
                let _ = relay_in.try_send(Err(text.to_string()));
            }
        }
    });
    Arrivals { answers: Answers { heartbeat, relay, reply }, refusal }
}
