//! The thread that writes.

use std::thread::{self, JoinHandle};

use async_channel::{Receiver, Sender, TrySendError};
use postern_proto::Millis;
use postern_store::{Batch, Committed, Pending, StoreError, Swept};
use rusqlite::Connection;

use crate::apply;
use crate::error::{Result, sql};
use crate::limits;

/// The door to the writing thread.
pub(crate) struct Writer {
    jobs: Sender<Job>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Commit(Batch, Answer<Committed>),
    Sweep(Millis, Answer<Swept>),
    #[cfg(test)]
    Panic,
}

/// Where the one who waits hears what became of it.
type Answer<T> = Sender<Result<T>>;

enum Done {
    Committed(Committed),
    Swept(Swept),
}

impl Writer {
    pub(crate) fn start(db: Connection) -> Result<Self> {
        let (jobs, queue) = async_channel::bounded(limits::QUEUE);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || write(&db, &Queue(queue)))
            .map_err(|error| StoreError::Io(format!("cannot start the writer: {}", error.kind())))?;
        Ok(Self { jobs, thread: Some(thread) })
    }

    pub(crate) fn commit(&self, batch: Batch) -> Pending<Result<Committed>> {
        self.submit(|answer| Job::Commit(batch, answer))
    }

    pub(crate) fn sweep(&self, now: Millis) -> Pending<Result<Swept>> {
        self.submit(|answer| Job::Sweep(now, answer))
    }

    /// Queues at once when there is room, so that batches handed in one after the other
    /// run in that order. When the queue is full the future waits for a place, in turn:
    /// the batch is in its caller's hands until then and callers are bounded by seats.
    fn submit<T: Send + 'static>(&self, job: impl FnOnce(Answer<T>) -> Job) -> Pending<Result<T>> {
        let (answer, result) = async_channel::bounded(1);
        let full = match self.jobs.try_send(job(answer)) {
            Ok(()) => None,
            Err(TrySendError::Full(job)) => Some((self.jobs.clone(), job)),
            Err(TrySendError::Closed(_)) => return Box::pin(std::future::ready(Err(gone()))),
        };
        Box::pin(async move {
            if let Some((jobs, job)) = full {
                jobs.send(job).await.map_err(|_| gone())?;
            }
            // The answer is dropped unsent only by a writer that panicked.
            result.recv().await.unwrap_or_else(|_| Err(gone()))
        })
    }

    /// Accepts nothing more, finishes what was accepted.
    pub(crate) fn stop(&mut self) {
        self.jobs.close();
        let Some(thread) = self.thread.take() else { return };
        // An answer may wake and drop a task that held the store: then this is the
        // writer's own thread, which ends by itself.
        if thread.thread().id() != thread::current().id() {
            // Its panic was told to those it concerned.
            let _ = thread.join();
        }
    }
}

fn gone() -> StoreError {
    StoreError::Io("the writer is gone".into())
}

/// What waits. When the writer ends, by whatever way, it refuses what comes and drops
/// what is left, so that nobody waits for ever.
struct Queue(Receiver<Job>);

impl Drop for Queue {
    fn drop(&mut self) {
        self.0.close();
        while self.0.try_recv().is_ok() {}
    }
}

fn write(db: &Connection, queue: &Queue) {
    // Ends when the store is closed and nothing is left.
    while let Ok(first) = queue.0.recv_blocking() {
        let rest = std::iter::from_fn(|| queue.0.try_recv().ok()).take(limits::GROUP - 1);
        serve(db, std::iter::once(first).chain(rest).collect());
    }
}

/// Runs a group and tells each its result.
fn serve(db: &Connection, group: Vec<Job>) {
    match transaction(db, &group) {
        Ok(results) => {
            for (job, result) in group.into_iter().zip(results) {
                job.answer(result);
            }
        }
        // SQLite rolled back everything for want of space. Perhaps only one asked too much.
        Err(StoreError::Full) if group.len() > 1 => {
            for job in group {
                serve(db, vec![job]);
            }
        }
        Err(error) => {
            for job in group {
                job.answer(Err(error.clone()));
            }
        }
    }
}

/// Runs a group in one transaction. An error is everybody's: nothing was kept, or, with
/// `Io` from the disk at the very end, nobody knows.
fn transaction(db: &Connection, group: &[Job]) -> Result<Vec<Result<Done>>> {
    let work = || {
        run(db, "BEGIN IMMEDIATE")?;
        let results = group.iter().map(|job| savepoint(db, job)).collect::<Result<Vec<_>>>()?;
        run(db, "COMMIT")?;
        Ok(results)
    };
    let results = work();
    if results.is_err() && !db.is_autocommit() {
        // Nothing can be done about its failure; the next BEGIN will tell.
        let _ = run(db, "ROLLBACK");
    }
    results
}

/// Runs one job so that its failure undoes it alone. The outer error means that the
/// transaction is lost: a full disk can make SQLite roll it back under us.
fn savepoint(db: &Connection, job: &Job) -> Result<Result<Done>> {
    run(db, "SAVEPOINT one")?;
    let result = job.run(db);
    match &result {
        Err(error) if db.is_autocommit() => return Err(error.clone()),
        Err(_) => run(db, "ROLLBACK TO one")?,
        Ok(_) => {}
    }
    run(db, "RELEASE one")?;
    Ok(result)
}

fn run(db: &Connection, text: &str) -> Result<()> {
    db.prepare_cached(text).map_err(sql)?.execute([]).map_err(sql).map(|_| ())
}

impl Job {
    fn run(&self, db: &Connection) -> Result<Done> {
        match self {
            Self::Commit(batch, _) => apply::batch(db, batch).map(Done::Committed),
            Self::Sweep(now, _) => apply::sweep(db, *now).map(Done::Swept),
            #[cfg(test)]
            Self::Panic => panic!("asked to, by a test"),
        }
    }

    fn answer(self, result: Result<Done>) {
        // Sending fails only when nobody listens any more.
        let _ = match (self, result) {
            (Self::Commit(_, answer), Ok(Done::Committed(done))) => answer.try_send(Ok(done)).is_ok(),
            (Self::Sweep(_, answer), Ok(Done::Swept(done))) => answer.try_send(Ok(done)).is_ok(),
            (Self::Commit(_, answer), Err(error)) => answer.try_send(Err(error)).is_ok(),
            (Self::Sweep(_, answer), Err(error)) => answer.try_send(Err(error)).is_ok(),
            // `run` makes no such pair.
            (_, _) => false,
        };
    }
}

#[cfg(test)]
mod tests {
    use postern_proto::{AtKey, AtSign, Metadata, Record};
    use postern_store::battery::wait;
    use postern_store::{Account, LogAs};

    use super::*;
    use crate::schema;

    fn started(setting: &str) -> Writer {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        db.execute_batch(setting).unwrap();
        Writer::start(db).unwrap()
    }

    fn alice() -> AtSign {
        AtSign::parse("alice").unwrap()
    }

    fn add_alice() -> Batch {
        Batch::new(0).add_account(Account { at_sign: alice(), port: None, created_at: 0 })
    }

    fn put(value: &str) -> Batch {
        let record = Record::new(value, Metadata::default(), 0);
        Batch::new(0).put(&alice(), &AtKey::own("k", &alice()), record, LogAs::Put)
    }

    #[test]
    fn a_panic_is_told_to_those_who_wait() {
        let writer = started("");
        wait(writer.commit(add_alice())).unwrap();
        writer.jobs.send_blocking(Job::Panic).unwrap();
        let waiting: Vec<_> = (0..limits::QUEUE + 9).map(|_| writer.commit(put("v"))).collect();
        for one in waiting {
            assert_eq!(wait(one), Err(gone()));
        }
        assert_eq!(wait(writer.sweep(0)), Err(gone()));
    }

    #[test]
    fn a_stopped_writer_refuses() {
        let mut writer = started("");
        wait(writer.commit(add_alice())).unwrap();
        writer.stop();
        assert_eq!(wait(writer.commit(put("v"))), Err(gone()));
    }

    #[test]
    fn a_full_disk_is_named_and_survived() {
        let writer = started("PRAGMA max_page_count = 60");
        wait(writer.commit(add_alice())).unwrap();
        assert_eq!(wait(writer.commit(put(&"x".repeat(1 << 20)))), Err(StoreError::Full));
        assert_eq!(wait(writer.commit(put("v"))).unwrap().commits, [Some(0)]);
    }

    #[test]
    fn of_a_group_each_fails_alone() {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        let full = "x".repeat(1 << 20);
        db.execute_batch("PRAGMA max_page_count = 60").unwrap();
        let batches = [put("early"), add_alice(), put("a"), add_alice(), put(&full), put("b")];
        let (jobs, results): (Vec<_>, Vec<_>) = batches
            .into_iter()
            .map(|batch| {
                let (answer, result) = async_channel::bounded(1);
                (Job::Commit(batch, answer), result)
            })
            .unzip();
        serve(&db, jobs);
        let results: Vec<_> = results.iter().map(|r| r.try_recv().unwrap().map(|done| done.commits)).collect();
        let conflict = Err(StoreError::Conflict);
        assert_eq!(results[..4], [conflict.clone(), Ok(vec![None]), Ok(vec![Some(0)]), conflict]);
        assert_eq!(results[4..], [Err(StoreError::Full), Ok(vec![Some(1)])]);
    }
}
