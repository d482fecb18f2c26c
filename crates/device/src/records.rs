//! What managers can read of a device: user name and device information.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postern_client::{ClientError, user_name};
use postern_proto::AtSign;
use postern_session::{Features, HostKeys, NAMESPACE, PingResponse};

use crate::daemon::Daemon;
use crate::limits::DEVICE_INFO_LIFE;

/// Version of the session core that we speak, in the reference's counting: twin keys and heartbeats.
const CORE_VERSION: &str = "6.6.0";

impl Daemon {
    /// The answer to a ping, and the text of `device_info`.
    pub(crate) fn ping_response(&self) -> PingResponse {
        PingResponse {
            devicename: self.config.device.as_str().to_owned(),
            device_group_name: self.config.device_group.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            core_package_version: CORE_VERSION.to_owned(),
            supported_features: Features {
                sr_auth: true,
                sr_e2ee: true,
                accepts_public_keys: self.config.accept_keys,
                supports_port_choice: true,
                adjustable_timeout: true,
                control_channel_heartbeats: true,
                twin_keys: true,
                supports_ram_escr: self.signing_key.get().is_some(),
                numbers_sockets: true,
                sealed: self.own.ready_voucher().is_some(),
            },
            allowed_services: self.config.permit_open.to_strings(),
            public_signing_key_uri: self.signing_key.get().map(ToString::to_string),
            twin: self.twins.found(),
        }
    }

    /// Tells every manager, or takes back what was told when the device hides. An
    /// unknown manager must not keep the others from being told.
    pub(crate) async fn publish(self: Arc<Self>) {
        let mut failed = false;
        if self.signing_key.get().is_none() {
            match self.client.publish_signing_key().await {
                Ok(name) => drop(self.signing_key.set(name)),
                Err(error) => {
                    failed = true;
                    tracing::warn!(%error, "could not publish the signing key: relay sockets use signed lines");
                }
            }
        }
        if let Err(error) = self.own.voucher(&self.client).await {
            failed = true;
            tracing::warn!(%error, "no voucher for the identity key of this device yet: sealed sessions are not served");
        }
        self.read_host_keys().await;
        for manager in &self.managers_now() {
            if let Err(error) = Box::pin(self.publish_to(manager)).await {
                failed = true;
                tracing::warn!(%manager, %error, "could not share the device information");
            }
        }
        self.unpublished.store(failed, Ordering::Relaxed);
    }

    async fn publish_to(&self, manager: &AtSign) -> Result<(), ClientError> {
        let (client, device) = (&self.client, self.config.device.as_str());
        let username = format!("username.{device}.{NAMESPACE}");
        let info = format!("device_info.{device}.{NAMESPACE}");
        let host_keys = HostKeys::record(&self.config.device);
        if self.config.hide {
            return self.take_back_from(manager).await;
        }
        client.prepare(manager).await?;
        let user = user_name().unwrap_or_default();
        let text = self.ping_response().print_as(self.config.dialect);
        let signed = self.signed_host_keys();
        let (a, b, c) = tokio::join!(
            client.put_shared(manager, &username, &user, None),
            client.put_shared(manager, &info, &text, Some(DEVICE_INFO_LIFE)),
            async {
                match &signed {
                    Some(text) => client.put_shared(manager, &host_keys, text, Some(DEVICE_INFO_LIFE)).await,
                    None => client.delete_shared(manager, &host_keys).await,
                }
            },
        );
        a.and(b).and(c)
    }

    /// Takes back what somebody could read who is no manager any more.
    pub(crate) async fn take_back(&self, manager: &AtSign) {
        if let Err(error) = self.take_back_from(manager).await {
            tracing::warn!(%manager, %error, "could not take back the device information");
        }
    }

    async fn take_back_from(&self, manager: &AtSign) -> Result<(), ClientError> {
        let (client, device) = (&self.client, self.config.device.as_str());
        let [username, info] = ["username", "device_info"].map(|kind| format!("{kind}.{device}.{NAMESPACE}"));
        let host_keys = HostKeys::record(&self.config.device);
        let (a, b, c) = tokio::join!(
            client.delete_shared(manager, &username),
            client.delete_shared(manager, &info),
            client.delete_shared(manager, &host_keys)
        );
        a.and(b).and(c)
    }
}
