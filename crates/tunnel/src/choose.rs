//! Choosing the nearest of several relays: each says where it is, both ends measure how far that is.

use std::collections::BTreeMap;

use postern_client::{Client, Inbox};
use postern_proto::{AtSign, Notification};
use postern_rendezvous::hints::{
    DISCOVER_REQUEST, DISCOVER_RESPONSE, DiscoverRequest, Discovered, LATENCY_REQUEST, LATENCY_RESPONSE, Latencies,
    RelayMap,
};
use postern_session::{NAMESPACE, RELAY_NAMESPACE};
use tokio::time::{Instant, timeout_at};

use crate::limits::{DISCOVER, DISCOVER_REST, LATENCY, REQUEST_LIFE};
use crate::session::Common;
use crate::steps::Steps;

/// What the atServer is asked to push while relays are compared.
pub(crate) fn monitor_regex(common: &Common) -> Option<String> {
    (common.relays.len() > 1).then(|| {
        format!(r"{DISCOVER_RESPONSE}\.{RELAY_NAMESPACE}@|{LATENCY_RESPONSE}\.{}\.{NAMESPACE}@", common.device)
    })
}

/// The relay with the lowest mean of our and the device's time to it. When too little can be learned of them, the first.
pub(crate) async fn nearest(common: &Common, client: &Client, inbox: &mut Inbox, steps: &Steps) -> AtSign {
    let first = common.relays.first().expect("the command line names one at least").clone();
    if common.relays.len() == 1 {
        return first;
    }
    steps.tell("Choosing the nearest relay");
    // Boxed here and below: these states are large, and used once.
    let found = Box::pin(steps.follow("asking the relays", 2, 2, discover(common, client, inbox))).await;
    if found.0.is_empty() {
        tracing::info!(relay = %first, "no relay said where it is: taking the first");
        return first;
    }
    let measured = Box::pin(measure(common, client, inbox, &found));
    let (ours, theirs) = Box::pin(steps.follow("measuring the relays", 2, 2, measured)).await;
    let nearest = ours.nearest(&theirs).unwrap_or(first);
    tracing::info!(relay = %nearest, ?ours, ?theirs, "nearest relay");
    nearest
}

/// Asks all at once. Waits for all, but not long for the rest when one has answered.
async fn discover(common: &Common, client: &Client, inbox: &mut Inbox) -> RelayMap {
    let name = format!("{DISCOVER_REQUEST}.{RELAY_NAMESPACE}");
    let request = DiscoverRequest::new().print();
    let asking = async {
        for relay in &common.relays {
            if let Err(error) = client.notify(relay, &name, &request, Some(REQUEST_LIFE)).await {
                tracing::debug!(%relay, %error, "could not ask a relay where it is");
            }
        }
        std::future::pending::<()>().await;
    };
    let hearing = async {
        let mut deadline = Instant::now() + DISCOVER;
        let mut found = BTreeMap::new();
        while found.len() < common.relays.len()
            && let Ok(Some(push)) = timeout_at(deadline, inbox.next()).await
        {
            let is_answer = push.bare_key() == format!("{DISCOVER_RESPONSE}.{RELAY_NAMESPACE}");
            if is_answer
                && common.relays.contains(&push.from)
                && let Some(answer) = open(client, &push).await.and_then(|text| Discovered::parse(&text))
            {
                deadline = deadline.min(Instant::now() + DISCOVER_REST);
                found.insert(push.from, answer);
            }
        }
        RelayMap(found)
    };
    tokio::select! {
        found = hearing => found,
        () = asking => RelayMap::default(),
    }
}

/// Our times and the device's, side by side. A device that does not know the question says nothing.
async fn measure(common: &Common, client: &Client, inbox: &mut Inbox, found: &RelayMap) -> (Latencies, Latencies) {
    let theirs = async {
        let deadline = Instant::now() + LATENCY;
        let name = format!("{LATENCY_REQUEST}.{}.{NAMESPACE}", common.device);
        if let Err(error) = client.notify(&common.to, &name, &found.print(), Some(REQUEST_LIFE)).await {
            tracing::debug!(%error, "could not ask the device how far the relays are");
            return Latencies::default();
        }
        let answer = format!("{LATENCY_RESPONSE}.{}.{NAMESPACE}", common.device);
        while let Ok(Some(push)) = timeout_at(deadline, inbox.next()).await {
            if push.from == common.to && push.bare_key() == answer {
                let text = open(client, &push).await;
                return text.and_then(|text| Latencies::parse(&text)).unwrap_or_default();
            }
        }
        Latencies::default()
    };
    tokio::join!(postern_link::latencies(found), theirs)
}

async fn open(client: &Client, push: &Notification) -> Option<String> {
    let text = client.open(push).await;
    text.map(|text| text.to_string()).map_err(|error| tracing::debug!(%error, "could not read an answer")).ok()
}
