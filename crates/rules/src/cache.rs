//! Answers a device still acts on.

use std::collections::BTreeMap;
use std::time::Instant;

use postern_proto::AtSign;

use crate::limits::{ANSWER_AGE, ANSWERS};
use crate::question::Answer;

/// The answers of the last seconds, by client.
#[derive(Default)]
pub struct AnswerCache {
    answers: BTreeMap<AtSign, (Instant, Answer)>,
}

impl AnswerCache {
    /// The answer about this client, while it holds.
    pub fn get(&self, client: &AtSign, now: Instant) -> Option<&Answer> {
        let (at, answer) = self.answers.get(client)?;
        (now.saturating_duration_since(*at) < ANSWER_AGE).then_some(answer)
    }

    /// Keeps an answer that came at `now`.
    pub fn put(&mut self, client: AtSign, answer: Answer, now: Instant) {
        self.answers.retain(|_, (at, _)| now.saturating_duration_since(*at) < ANSWER_AGE);
        if self.answers.len() >= ANSWERS {
            self.answers.clear();
        }
        self.answers.insert(client, (now, answer));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_holds_a_while_and_no_longer() {
        let (alice, bob) = (AtSign::parse("alice").unwrap(), AtSign::parse("bob").unwrap());
        let now = Instant::now();
        let mut cache = AnswerCache::default();
        cache.put(alice.clone(), Answer::deny("no"), now);
        assert_eq!(cache.get(&alice, now + Duration::from_millis(13_999)), Some(&Answer::deny("no")));
        assert_eq!(cache.get(&alice, now + ANSWER_AGE), None);
        assert_eq!(cache.get(&bob, now), None);
    }

    #[test]
    fn a_crowd_does_not_fill_the_memory() {
        let now = Instant::now();
        let mut cache = AnswerCache::default();
        for n in 0..3 * ANSWERS {
            cache.put(AtSign::parse(&format!("c{n}")).unwrap(), Answer::deny("no"), now);
            assert!(cache.answers.len() <= ANSWERS);
        }
    }
}
