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
    result: Result<T, Error>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Operation for Asked<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> Result<T, Error> + Send,
{
    fn run(&mut self, conn: &Connection) -> bool {
        if let Some(operation) = self.operation.take() {
            self.result = operation(conn);
        }
        self.result.is_ok()
    }

    fn answer(self: Box<Self>, failed: Option<Error>) {
        // The caller may have gone; what it asked for is done all the same.
        let _ = self.answer.send(failed.map_or(self.result, Err));
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
        let asked = Asked { operation, result: Err(Error::Closed), answer };
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
