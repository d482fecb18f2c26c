//! Asking again, after the way was lost.

use std::sync::{Arc, PoisonError};

use postern_client::{AddressBook, Client};
use postern_link::sealed::{AskAgain, Asked, Unbelieved};
use postern_net::tasks::Tasks;
use postern_seal::Waiting;
use tokio::time::timeout;

use super::line::{Line, Login};
use crate::arrival::{self, Parties};
use crate::limits::AGAIN;
use crate::trouble::Trouble;

impl Line {
    /// A fresh request for each epoch, by the login that is there or by a new one.
    pub(super) fn ask_again(self: &Arc<Self>) -> AskAgain<Waiting> {
        let line = Arc::clone(self);
        Box::new(move |epoch| {
            let line = Arc::clone(&line);
            Box::pin(async move {
                let knocked = line.knock_alone(epoch)?;
                line.send_again(&knocked.text).await?;
                let request = knocked.waiting.asked().request;
                let refused = Box::pin(async move { Unbelieved::from(line.refused(request).await) });
                Ok(Asked { knock: knocked.waiting, refused })
            })
        })
    }

    async fn send_again(&self, text: &str) -> Result<(), Trouble> {
        if let Ok(Ok(())) = timeout(AGAIN, self.send(&self.client(), text)).await {
            return Ok(());
        }
        // Where our address has changed, the link to the atServer is as dead as that to the relay, and does not know it.
        tracing::debug!("logging in anew to ask for the session to go on");
        let client = self.login_anew().await;
        self.send(&client, text).await
    }

    async fn login_anew(&self) -> Client {
        let identity = {
            let old = self.login.lock().unwrap_or_else(PoisonError::into_inner);
            old.tasks.token().cancel();
            old.client.identity().clone()
        };
        let tasks = Tasks::under(&self.stop);
        let (client, inbox, login) = Client::begin(identity, self.settings.clone(), AddressBook::usual(), &tasks);
        drop(login);
        let parties = Parties {
            device_at_sign: self.to.clone(),
            device: self.device.clone(),
            relay: None,
            session: self.session.clone(),
        };
        let arrivals = arrival::sort(parties, client.clone(), inbox, &tasks);
        *self.refusals.lock().await = arrivals.refusal;
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = Login { client: client.clone(), tasks };
        client
    }
}
