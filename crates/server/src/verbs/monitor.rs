//! `monitor`: what a connection wants to hear.

use postern_dialogue::server::Authority;
use postern_proto::ProtocolError;
use postern_proto::verb::Monitor;

use crate::hub::Subscription;
use crate::pattern::Pattern;

/// The subscription of an authenticated connection. Clients that recognise each other as
/// Postern watch over their connection themselves and are spared the statistics, a line
/// every few seconds that costs a gateway on a metered SIM tens of megabytes a month.
///
/// # Errors
/// The expression is none.
pub(crate) fn subscription(
    me: &Authority,
    monitor: &Monitor,
    speaks_postern: bool,
) -> Result<Subscription, ProtocolError> {
    let pattern = Pattern::parse(monitor.regex.as_deref())?;
    let stats = !monitor.strict && !speaks_postern;
    Ok(Subscription::new(pattern, monitor.self_notifications, me.limits().cloned(), stats))
}
