//! The writer: one thread with the only connection that writes.
//!
//! Operations that wait together share a transaction, and so one flush of the disk. Each has a
//! savepoint of its own: one that fails takes nothing of the others with it. A caller is answered
//! only when its transaction is on stable storage. A full disk undoes what was asked for, to be asked
//! for again; a disk that fails ends all writing.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::{oneshot, watch};

use super::Error;
use super::disk::Disk;

/// How many operations share a commit at most.
const MOST_AT_ONCE: usize = 64;

/// How many frames the log may hold before it is moved into the database: 16 MiB.
const LONGEST_LOG: i64 = 2000;

trait Operation: Send {
    /// Runs it inside the transaction; when it fails, it is to be undone.
    fn run(&mut self, conn: &Connection, disk: &Disk) -> Result<(), Error>;

    /// Tells the caller its result, or that nothing of it is durable.
    fn answer(self: Box<Self>, failed: Option<Error>);
}

struct Asked<T, F> {
    operation: Option<F>,
    /// None until it has run.
    result: Option<Result<T, Error>>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Operation for Asked<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Error> + Send,
{
    fn run(&mut self, conn: &Connection, disk: &Disk) -> Result<(), Error> {
        let Some(operation) = self.operation.take() else { return Err(Error::Closed) };
        let result = self.result.insert(operation(conn).map_err(|err| disk.judge(err)));
        result.as_ref().map(drop).map_err(Clone::clone)
    }

    fn answer(self: Box<Self>, failed: Option<Error>) {
        let result = match (self.result, failed) {
            // What went wrong with the operation itself says more than that it was undone.
            (Some(Err(own)), _) => Err(own),
            (_, Some(failed)) => Err(failed),
            (Some(done), None) => done,
            (None, None) => Err(Error::Closed),
        };
        // The caller may have gone; what it asked for is done all the same.
        let _ = self.answer.send(result);
    }
}

/// The way to the writer thread.
pub struct Writer {
    operations: Mutex<Option<Sender<Box<dyn Operation>>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    breakdown: watch::Receiver<Option<Error>>,
}

impl Writer {
    /// Starts the thread.
    pub fn start(conn: Connection, disk: Arc<Disk>) -> std::io::Result<Self> {
        let (operations, waiting) = channel();
        let (told, breakdown) = watch::channel(None);
        let scribe = Scribe { conn, disk, breakdown: told };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || scribe.serve(&waiting))?;
        let (operations, thread) = (Mutex::new(Some(operations)), Mutex::new(Some(thread)));
        Ok(Self { operations, thread, breakdown })
    }

    /// Waits until the disk fails.
    pub async fn breakdown(&self) -> Error {
        let mut breakdown = self.breakdown.clone();
        match breakdown.wait_for(Option::is_some).await.map(|err| err.clone()) {
            Ok(Some(err)) => err,
            // It never will.
            _ => std::future::pending().await,
        }
    }

    /// Runs `operation` in a transaction; returns when that is on stable storage.
    pub async fn write<T, F>(&self, operation: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let operation = Some(operation);
        let asked = Asked { operation, result: None, answer };
        {
            let sender = self.operations.lock().expect("no panic while held");
            let sender = sender.as_ref().ok_or(Error::Closed)?;
            sender.send(Box::new(asked)).map_err(|_| Error::Closed)?;
        }
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Waits for the operations sent so far, moves the WAL into the database and ends the thread.
    pub fn close(&self) {
        self.operations.lock().expect("no panic while held").take();
        if let Some(thread) = self.thread.lock().expect("no panic while held").take() {
            // A panic of the thread was reported by the panic hook.
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread, with what it works with.
struct Scribe {
    conn: Connection,
    disk: Arc<Disk>,
    /// Why nothing is written any more.
    breakdown: watch::Sender<Option<Error>>,
}

impl Scribe {
    fn serve(&self, waiting: &Receiver<Box<dyn Operation>>) {
        while let Ok(first) = waiting.recv() {
            let together = std::iter::once(first).chain(waiting.try_iter()).take(MOST_AT_ONCE);
            let mut operations: Vec<_> = together.collect();
            let failed = self.commit(&mut operations).err();
            if failed.is_some() && !self.conn.is_autocommit() {
                // What cannot be rolled back was never committed either.
                let _ = self.conn.execute_batch("ROLLBACK");
            }
            for operation in operations {
                operation.answer(failed.clone());
            }
            self.move_log();
        }
        // The next start reads a WAL that is left as well; this only makes it quick.
        let _ = self.checkpoint("TRUNCATE");
    }

    fn commit(&self, operations: &mut [Box<dyn Operation>]) -> Result<(), Error> {
        if let Some(err) = &*self.breakdown.borrow() {
            return Err(err.clone());
        }
        self.execute("BEGIN IMMEDIATE")?;
        for operation in operations {
            self.execute("SAVEPOINT operation")?;
            let done = operation.run(&self.conn, &self.disk).inspect_err(|err| self.notice(err));
            if self.conn.is_autocommit() {
                // A full disk or an I/O error may undo the whole transaction, not the statement alone.
                return Err(Error::Undone);
            }
            if let Err(err) = done {
                if err.is_breakdown() {
                    return Err(err);
                }
                self.execute("ROLLBACK TO operation")?;
            }
            self.execute("RELEASE operation")?;
        }
        self.execute("COMMIT")
    }

    fn execute(&self, sql: &str) -> Result<(), Error> {
        let done = self.conn.execute_batch(sql).map_err(|err| self.disk.judge(err.into()));
        done.inspect_err(|err| self.notice(err))
    }

    /// Sees to it that the next attempt finds room, or that there is none.
    fn notice(&self, err: &Error) {
        if matches!(err, Error::Full) {
            self.disk.ran_full();
        } else if err.is_breakdown() {
            // Not even when the connection closes.
            let _ = self.conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            self.breakdown.send_replace(Some(err.clone()));
        }
    }

    /// Moves the log into the database when it is long, or when its room is needed. SQLite would do
    /// so by itself, but tell nobody of a disk that fails.
    fn move_log(&self) {
        let done = if self.disk.is_short() {
            // A short log stays: what is written next finds room in it, on the fullest disk.
            self.checkpoint(if self.disk.has_long_log() { "TRUNCATE" } else { "RESTART" })
        } else {
            match self.checkpoint("NOOP") {
                Ok((log, moved)) if log >= LONGEST_LOG && log > moved => self.checkpoint("PASSIVE"),
                looked => looked,
            }
        };
        if done.is_err_and(|err| err.is_full()) {
            // The ballast has gone meanwhile. If that was not enough, the next commit tries again.
            let _ = self.checkpoint("TRUNCATE");
        }
    }

    /// How many frames the log holds, and how many of them are in the database.
    fn checkpoint(&self, how: &str) -> Result<(i64, i64), Error> {
        if self.breakdown.borrow().is_some() {
            return Err(Error::Closed);
        }
        let counts = |row: &rusqlite::Row<'_>| Ok((row.get(1)?, row.get(2)?));
        let done = self
            .conn
            .prepare_cached(&format!("PRAGMA wal_checkpoint({how})"))
            .and_then(|mut pragma| pragma.query_row([], counts));
        done.map_err(|err| self.disk.judge(err.into())).inspect_err(|err| self.notice(err))
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;

    type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

    /// A writer on a new database, and another connection to it.
    fn writer() -> (tempfile::TempDir, Writer, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n)").unwrap();
        let disk = Arc::new(Disk::new(dir.path()));
        (dir, Writer::start(conn, disk).unwrap(), Connection::open(&path).unwrap())
    }

    /// Sends an operation without waiting for its answer.
    async fn send<'a, T, F>(writer: &'a Writer, operation: F) -> Answer<'a, T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let mut answer: Answer<'a, T> = Box::pin(writer.write(operation));
        assert!(poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx).is_pending())).await);
        answer
    }

    /// Holds the writer until the sender is dropped.
    async fn hold(writer: &Writer) -> (Sender<()>, Answer<'_, ()>) {
        let (release, held) = channel();
        let (begun, begins) = channel();
        let wait = move |_: &Connection| {
            let _ = begun.send(());
            let _: Result<(), _> = held.recv();
            Ok(())
        };
        let answer = send(writer, wait).await;
        begins.recv().unwrap();
        (release, answer)
    }

    fn insert(n: i64) -> impl FnOnce(&Connection) -> Result<(), Error> {
        move |conn| Ok(conn.execute("INSERT INTO t VALUES (?1)", [n]).map(drop)?)
    }

    fn rows(conn: &Connection) -> Vec<i64> {
        let mut select = conn.prepare("SELECT n FROM t ORDER BY n").unwrap();
        select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn an_answer_comes_when_the_others_can_see_it() {
        let (_dir, writer, other) = writer();

        writer.write(insert(1)).await.unwrap();

        assert_eq!(rows(&other), [1]);
    }

    #[tokio::test]
    async fn what_waits_together_is_committed_together() {
        let (_dir, writer, other) = writer();
        let (release, held) = hold(&writer).await;
        let mut first = send(&writer, insert(1)).await;
        let (done, second_is_done) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let second = send(&writer, move |conn| {
            insert(2)(conn)?;
            let _ = done.send(());
            let _: Result<(), _> = may_go_on.recv();
            Ok(())
        })
        .await;
        drop(release);
        held.await.unwrap();
        second_is_done.recv().unwrap();

        assert!(rows(&other).is_empty(), "neither is visible");
        let waits = poll_fn(|cx| Poll::Ready(first.as_mut().poll(cx).is_pending())).await;
        assert!(waits, "nor answered");
        drop(go_on);
        first.await.unwrap();
        assert_eq!(rows(&other), [1, 2], "both are");
        second.await.unwrap();
    }

    #[tokio::test]
    async fn one_that_fails_takes_nothing_of_the_others_with_it() {
        let (_dir, writer, other) = writer();
        let (release, held) = hold(&writer).await;
        let first = send(&writer, insert(1)).await;
        let failing = send(&writer, |conn| {
            insert(2)(conn)?;
            Err::<(), _>(Error::OutOfOrder { what: "it" })
        })
        .await;
        let third = send(&writer, insert(3)).await;
        drop(release);

        held.await.unwrap();
        first.await.unwrap();
        assert!(matches!(failing.await, Err(Error::OutOfOrder { .. })));
        third.await.unwrap();
        assert_eq!(rows(&other), [1, 3]);
    }

    #[tokio::test]
    async fn when_all_is_undone_only_the_culprit_is_told_why() {
        let (_dir, writer, other) = writer();
        let (release, held) = hold(&writer).await;
        let before = send(&writer, insert(1)).await;
        let culprit = send(&writer, |conn| {
            // As SQLite does by itself after an I/O error.
            conn.execute_batch("ROLLBACK")?;
            Err::<(), _>(Error::Sqlite(Arc::new(rusqlite::Error::InvalidQuery)))
        })
        .await;
        let behind = send(&writer, insert(2)).await;
        drop(release);

        held.await.unwrap();
        assert!(matches!(before.await, Err(Error::Undone)));
        assert!(matches!(culprit.await, Err(Error::Sqlite(_))), "an I/O error is to end the run");
        assert!(matches!(behind.await, Err(Error::Undone)));
        writer.write(insert(3)).await.expect("the writer goes on");
        assert_eq!(rows(&other), [3]);
    }

    #[tokio::test]
    async fn after_a_failure_of_the_disk_nothing_more_is_written() {
        let (_dir, writer, other) = writer();
        writer.write(insert(1)).await.unwrap();
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        let failure = Arc::new(rusqlite::Error::SqliteFailure(failure, None));

        let failed = writer.write::<(), _>(move |_| Err(Error::Sqlite(failure))).await;

        assert!(matches!(failed, Err(Error::Sqlite(_))));
        assert!(matches!(writer.breakdown().await, Error::Sqlite(_)));
        let after = writer.write(insert(2)).await;
        assert!(after.as_ref().is_err_and(Error::is_breakdown), "{after:?}");
        writer.close();
        assert_eq!(rows(&other), [1]);
    }

    #[tokio::test]
    async fn a_full_disk_ends_nothing_and_takes_the_ballast() {
        let (dir, writer, other) = writer();
        drop(writer);
        let disk = Arc::new(Disk::new(dir.path()));
        disk.keep_free(crate::units::Bytes::new(0));
        disk.tend(true);
        let writer = Writer::start(Connection::open(dir.path().join("db")).unwrap(), disk.clone());
        let writer = writer.unwrap();

        let failed = writer.write::<(), _>(|_| Err(Error::Full)).await;

        assert!(matches!(failed, Err(Error::Full)));
        assert!(disk.is_short() && !disk.ran_full(), "the ballast has gone");
        writer.write(insert(1)).await.unwrap();
        assert_eq!(rows(&other), [1]);
    }

    #[tokio::test]
    async fn closing_does_what_was_asked_before_and_nothing_after() {
        let (_dir, writer, other) = writer();
        let (release, held) = hold(&writer).await;
        let asked = send(&writer, insert(1)).await;

        drop(release);
        writer.close();

        held.await.unwrap();
        asked.await.unwrap();
        assert!(matches!(writer.write(insert(2)).await, Err(Error::Closed)));
        assert_eq!(rows(&other), [1]);
    }
}
