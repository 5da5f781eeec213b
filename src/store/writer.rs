//! The writer: one thread with the only connection that writes.
//!
//! Operations that wait together share a transaction, and so one flush of the disk. Each has a
//! savepoint of its own: one that fails takes nothing of the others with it. A caller is answered
//! only when its transaction is on stable storage.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::Error;

/// How many operations share a commit at most.
const MOST_AT_ONCE: usize = 64;

trait Operation: Send {
    /// Runs it inside the transaction; false when it failed and is to be undone.
    fn run(&mut self, conn: &Connection) -> bool;

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
    fn run(&mut self, conn: &Connection) -> bool {
        if let Some(operation) = self.operation.take() {
            self.result = Some(operation(conn));
        }
        matches!(self.result, Some(Ok(_)))
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
}

impl Writer {
    /// Starts the thread.
    pub fn start(conn: Connection) -> std::io::Result<Self> {
        let (operations, waiting) = channel();
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || serve(&conn, &waiting))?;
        Ok(Self { operations: Mutex::new(Some(operations)), thread: Mutex::new(Some(thread)) })
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

fn serve(conn: &Connection, waiting: &Receiver<Box<dyn Operation>>) {
    while let Ok(first) = waiting.recv() {
        let together = std::iter::once(first).chain(waiting.try_iter()).take(MOST_AT_ONCE);
        let mut operations: Vec<_> = together.collect();
        let failed = commit(conn, &mut operations).err();
        if failed.is_some() && !conn.is_autocommit() {
            // What cannot be rolled back was never committed either.
            let _ = conn.execute_batch("ROLLBACK");
        }
        for operation in operations {
            operation.answer(failed.clone());
        }
    }
    // The next start reads a WAL that is left as well; this only makes it quick.
    let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
}

fn commit(conn: &Connection, operations: &mut [Box<dyn Operation>]) -> Result<(), Error> {
    conn.execute_batch("BEGIN IMMEDIATE")?;
    for operation in operations {
        conn.execute_batch("SAVEPOINT operation")?;
        let done = operation.run(conn);
        if conn.is_autocommit() {
            // A full disk or an I/O error may undo the whole transaction, not the statement alone.
            return Err(Error::Undone);
        }
        if !done {
            conn.execute_batch("ROLLBACK TO operation")?;
        }
        conn.execute_batch("RELEASE operation")?;
    }
    Ok(conn.execute_batch("COMMIT")?)
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::Poll;

    use super::*;

    type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

    /// A writer on a new database, and another connection to it.
    fn writer() -> (tempfile::TempDir, Writer, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n)").unwrap();
        (dir, Writer::start(conn).unwrap(), Connection::open(&path).unwrap())
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
