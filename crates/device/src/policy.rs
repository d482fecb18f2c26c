//! Asking the policy service who may come in.
//!
//! Only the exact policy atSign is heard, and only about questions that are open. No answer in time is a no.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postern_client::{Client, ClientError};
use postern_net::tasks::Tasks;
use postern_proto::{AtSign, Notification};
use postern_rules::limits::ANSWER_WAIT;
use postern_rules::rpc::{Domain, Kind, Reply, Request, RequestId, RequestIds, RpcKey};
use postern_rules::{Answer, AnswerCache, Question};
use postern_session::{Guest, NAMESPACE};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout_at};

use crate::cli::Config;
use crate::limits::{ASK_PAUSES, POLICY_SEATS, WAITING_PER_CLIENT};

/// The policy service, as a device sees it.
pub(crate) struct Policy {
    at_sign: AtSign,
    /// The question without its client.
    about: Question,
    domain: Domain,
    client: Client,
    tasks: Tasks,
    seats: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    ids: RequestIds,
    cache: AnswerCache,
    /// Open questions, by number.
    open: BTreeMap<RequestId, mpsc::Sender<Reply>>,
    /// Who waits for the answer about a client that is being asked about.
    waiting: BTreeMap<AtSign, Vec<oneshot::Sender<Answer>>>,
    /// The last question was not answered: said once, not each time.
    is_silent: bool,
}

/// Why there is no answer.
enum Unanswered {
    TimedOut,
    NotSent(ClientError),
    Refused(String),
}

impl Policy {
    /// `tasks`: who owns what is started here.
    pub(crate) fn new(at_sign: AtSign, config: &Config, client: Client, tasks: &Tasks) -> Arc<Self> {
        let about = Question {
            daemon: config.at_sign.clone(),
            device: config.device.as_str().to_owned(),
            group: config.device_group.clone(),
            client: config.at_sign.clone(),
        };
        let state = State {
            ids: RequestIds::new(u32::from_ne_bytes(postern_crypto::random())),
            cache: AnswerCache::default(),
            open: BTreeMap::new(),
            waiting: BTreeMap::new(),
            is_silent: false,
        };
        Arc::new(Self {
            at_sign,
            about,
            domain: Domain::checks(NAMESPACE),
            client,
            tasks: tasks.clone(),
            seats: Arc::new(Semaphore::new(POLICY_SEATS)),
            state: Mutex::new(state),
        })
    }

    /// What a monitor must let through.
    pub(crate) fn replies_regex() -> String {
        Domain::checks(NAMESPACE).replies_regex()
    }

    /// A place for one more client that has to be asked about; `None`: full.
    pub(crate) fn seat(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.seats).try_acquire_owned().ok()
    }

    /// Takes a reply. True when the notification was one, whether it was believed or not.
    pub(crate) fn hear(self: &Arc<Self>, push: &Notification) -> bool {
        let Some(key) = self.domain.read(&push.bare_key()) else { return false };
        if push.from != self.at_sign {
            tracing::debug!(from = %push.from, "a policy reply from somebody else");
            return true;
        }
        let Some(asker) = self.lock().open.get(&key.id).cloned() else {
            tracing::debug!(request = %key.id, "a policy reply to no open question");
            return true;
        };
        let (policy, push) = (Arc::clone(self), push.clone());
        self.tasks.spawn(async move { policy.read(key, &push, &asker).await });
        true
    }

    async fn read(&self, key: RpcKey, push: &Notification, asker: &mpsc::Sender<Reply>) {
        let text = match self.client.open(push).await {
            Ok(text) => text,
            Err(error) => return tracing::warn!(from = %push.from, %error, "could not read a policy reply"),
        };
        match Reply::read(key, &text) {
            // Whoever asked may have given up.
            Ok(reply) => drop(asker.try_send(reply)),
            Err(error) => tracing::warn!(from = %push.from, %error, "policy reply"),
        }
    }

    /// Whether this client may knock, by the policy service's word; `None`: no.
    pub(crate) async fn admit(self: &Arc<Self>, client: &AtSign) -> Option<Guest> {
        let answer = self.answer(client).await;
        if !answer.authorized {
            tracing::debug!(from = %client, reason = answer.reason(), "denied by policy");
        }
        answer.guest(client)
    }

    /// The answer about a client: one not older than 15 s, or a new one. Many who want the same one ask once.
    async fn answer(self: &Arc<Self>, client: &AtSign) -> Answer {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.lock();
            if let Some(answer) = state.cache.get(client, Instant::now()) {
                return answer.clone();
            }
            if let Some(waiting) = state.waiting.get_mut(client) {
                if waiting.len() >= WAITING_PER_CLIENT {
                    return Answer::deny("too many requests wait for the same answer");
                }
                waiting.push(sender);
            } else {
                state.waiting.insert(client.clone(), vec![sender]);
                let (policy, client) = (Arc::clone(self), client.clone());
                self.tasks.spawn(async move { policy.find_out(&client).await });
            }
        }
        receiver.await.unwrap_or_else(|_| Answer::deny("stopped"))
    }

    /// A new answer about a client whose sessions run; `None`: there is none, which changes nothing.
    pub(crate) async fn ask_anew(&self, client: &AtSign) -> Option<Answer> {
        match self.ask(client).await {
            Ok(answer) => {
                self.lock().cache.put(client.clone(), answer.clone(), Instant::now());
                Some(answer)
            }
            Err(why) => {
                tracing::debug!(%client, reason = %why.text(), "no new answer of the policy service");
                None
            }
        }
    }

    async fn find_out(&self, client: &AtSign) {
        let asked = tokio::select! {
            biased;
            () = self.tasks.token().cancelled() => return,
            asked = self.ask(client) => asked,
        };
        let mut state = self.lock();
        let answer = match asked {
            Ok(answer) => {
                state.cache.put(client.clone(), answer.clone(), Instant::now());
                if std::mem::take(&mut state.is_silent) {
                    tracing::warn!(policy = %self.at_sign, "the policy service answers again");
                }
                answer
            }
            Err(why) => {
                // Strangers can make us ask, but not make us say this more than once.
                if !std::mem::replace(&mut state.is_silent, true) {
                    tracing::warn!(policy = %self.at_sign, reason = %why.text(), "the policy service does not answer; only managers can come in");
                }
                Answer::deny(why.text())
            }
        };
        for waiting in state.waiting.remove(client).unwrap_or_default() {
            let _ = waiting.send(answer.clone());
        }
    }

    /// Asks, and waits for 10 s; "I am at it" begins the wait anew, once.
    async fn ask(&self, client: &AtSign) -> Result<Answer, Unanswered> {
        let (sender, mut replies) = mpsc::channel(4);
        let open = {
            let mut state = self.lock();
            let id = state.ids.next(micros_since_epoch());
            state.open.insert(id, sender);
            OpenQuestion { policy: self, id }
        };
        let question = Question { client: client.clone(), ..self.about.clone() };
        let name = self.domain.name(Kind::Request, open.id);
        let text = Request::print(open.id, question.to_json());
        let mut deadline = tokio::time::Instant::now() + ANSWER_WAIT;
        match timeout_at(deadline, self.send(&name, &text)).await {
            Ok(sent) => sent.map_err(Unanswered::NotSent)?,
            Err(_) => return Err(Unanswered::TimedOut),
        }
        let mut acknowledged = false;
        loop {
            let Ok(Some(reply)) = timeout_at(deadline, replies.recv()).await else { return Err(Unanswered::TimedOut) };
            match reply.kind() {
                Kind::Success => {
                    let answer = Answer::from_json(&reply.payload);
                    return answer.ok_or_else(|| Unanswered::Refused("the answer is malformed".to_owned()));
                }
                Kind::Ack if !acknowledged => {
                    acknowledged = true;
                    deadline = tokio::time::Instant::now() + ANSWER_WAIT;
                }
                key_word @ (Kind::Nack | Kind::Error) => {
                    return Err(Unanswered::Refused(reply.message.unwrap_or_else(|| key_word.to_string())));
                }
                Kind::Ack | Kind::Request => {}
            }
        }
    }

    async fn send(&self, name: &str, text: &str) -> Result<(), ClientError> {
        for pause in ASK_PAUSES {
            match self.client.notify(&self.at_sign, name, text, None).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!(policy = %self.at_sign, %error, "could not ask; trying again"),
            }
            sleep(pause).await;
        }
        self.client.notify(&self.at_sign, name, text, None).await
    }

    /// Tells the policy service that this device is there.
    pub(crate) async fn heartbeat(&self, ping_response: &str) {
        let name = format!("{}.devices.policy.{NAMESPACE}", self.about.device);
        if let Err(error) = self.client.notify(&self.at_sign, &name, ping_response, None).await {
            tracing::debug!(policy = %self.at_sign, %error, "could not send the heartbeat");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A question is closed however the wait ends.
struct OpenQuestion<'a> {
    policy: &'a Policy,
    id: RequestId,
}

impl Drop for OpenQuestion<'_> {
    fn drop(&mut self) {
        self.policy.lock().open.remove(&self.id);
    }
}

impl Unanswered {
    fn text(&self) -> String {
        match self {
            Self::TimedOut => "Timed out waiting for authorizer response".to_owned(),
            Self::NotSent(error) => format!("could not ask: {error}"),
            Self::Refused(why) => {
                format!("refused: {}", why.chars().filter(|c| !c.is_control()).take(200).collect::<String>())
            }
        }
    }
}

fn micros_since_epoch() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_micros()).unwrap_or(0)
}
