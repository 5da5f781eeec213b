//! A connection, and what is known of the arrival of what was written to it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ProtocolVersion;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::secret;
use crate::sys::socket::{Peer, Probe};

/// Bytes in both directions, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// How long a batch may be written: then what has arrived is settled, and the rest comes next. A slow
/// receiver would else have acknowledged much that a stop or a kill has sent again.
pub const TURN: Duration = Duration::from_millis(500);

/// How long the end of a connection may take that nobody waits for.
const FAREWELL: Duration = Duration::from_secs(2);
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A receiver says nothing of its own accord: who answers is another kind of server.
#[derive(Debug, thiserror::Error)]
#[error("the other side says `{0}`")]
pub struct Answers(String);

impl Answers {
    /// What was heard first, as a line of a log may have it.
    pub fn error(said: &[u8]) -> io::Error {
        let text = String::from_utf8_lossy(&said[..said.len().min(60)]).trim().to_owned();
        let text = secret::redact(&text.escape_debug().to_string());
        io::Error::new(io::ErrorKind::InvalidData, Self(text))
    }
}

/// A connection.
pub struct Wire {
    stream: Box<dyn Stream>,
    meter: Arc<Meter>,
    is_plain: bool,
}

impl Wire {
    /// Over a socket.
    pub fn plain<S>(socket: S, probe: Probe) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    {
        let meter = Arc::new(Meter::of(probe));
        let stream = Box::new(Counted { socket, meter: Arc::clone(&meter) });
        Self { stream, meter, is_plain: true }
    }

    /// The same within TLS.
    ///
    /// # Errors
    /// The handshake fails.
    pub async fn secured<S>(
        socket: S,
        probe: Probe,
        tls: &TlsConnector,
        name: ServerName<'static>,
    ) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static,
    {
        let meter = Arc::new(Meter::of(probe));
        let counted = Counted { socket, meter: Arc::clone(&meter) };
        let stream = tls.connect(name, counted).await?;
        let version = stream.get_ref().1.protocol_version();
        let mut wire = Self { stream: Box::new(stream), meter, is_plain: false };
        if version == Some(ProtocolVersion::TLSv1_3) {
            wire.hear_out().await?;
        }
        Ok(wire)
    }

    /// Within TLS 1.3 the handshake is over for us before the other side has seen our certificate: what
    /// it says then is a ticket, or that it refuses us. One that gives no tickets says nothing.
    async fn hear_out(&mut self) -> io::Result<()> {
        const MOST: Duration = Duration::from_secs(1);
        const A_TICKET: Duration = Duration::from_millis(30);
        let begun = Instant::now();
        while self.peer() == Peer::Quiet {
            if begun.elapsed() >= MOST {
                return Ok(());
            }
            sleep(Duration::from_millis(2)).await;
        }
        let mut said = Vec::new();
        match timeout(A_TICKET, self.read(&mut said)).await {
            Ok(Err(err)) => Err(err),
            Ok(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => Err(Answers::error(&said)),
            Err(_) => Ok(()),
        }
    }

    /// Whether what is written goes out as it is, byte for byte.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// What the other side does, as the kernel has it.
    pub fn peer(&self) -> Peer {
        self.meter.probe.peer().unwrap_or_else(|err| {
            self.meter.fail(&err.to_string());
            Peer::Gone
        })
    }

    /// Has the other side know at once what has come of what it said.
    pub fn confirm(&self) {
        self.meter.probe.confirm();
    }

    /// Writes all of it; without any progress for so long, it fails.
    pub async fn write_all(&mut self, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = timeout(patience, self.stream.write(bytes)).await;
            match written.unwrap_or_else(|_| Err(stalled(patience)))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
            // A slow receiver may be gone before all is written.
            self.meter.look()?;
        }
        timeout(patience, self.stream.flush()).await.unwrap_or_else(|_| Err(stalled(patience)))
    }

    /// Reads what comes into `into`, at least one byte of it; 0 at the end.
    pub async fn read(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        into.reserve(READ_AT_ONCE);
        self.stream.read_buf(into).await
    }

    /// Reads what has come already: 0 at the end, none when nothing has, or it is not known yet.
    pub async fn read_now(&mut self, into: &mut Vec<u8>) -> io::Result<Option<usize>> {
        into.reserve(READ_AT_ONCE);
        let mut read = std::pin::pin!(self.stream.read_buf(into));
        poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(done.map(Some)),
            Poll::Pending => Poll::Ready(Ok(None)),
        })
        .await
    }

    /// Writes of `out`, from `at` on, what can be written, and reads what has come: until one of both
    /// has got somewhere. Says how much it has written and read.
    pub async fn exchange(
        &mut self,
        out: &[u8],
        into: &mut Vec<u8>,
    ) -> io::Result<(usize, Option<usize>)> {
        into.reserve(READ_AT_ONCE);
        let stream = &mut self.stream;
        poll_fn(|cx| {
            let mut written = 0;
            while written < out.len() {
                match Pin::new(&mut *stream).poll_write(cx, &out[written..]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(bytes)) => written += bytes,
                    Poll::Ready(Err(err)) => return Poll::Ready(Err(err)),
                    Poll::Pending => break,
                }
            }
            // TLS keeps what it has encrypted and could not write.
            if let Poll::Ready(Err(err)) = Pin::new(&mut *stream).poll_flush(cx) {
                return Poll::Ready(Err(err));
            }
            let read = {
                let mut reading = std::pin::pin!(stream.read_buf(into));
                reading.as_mut().poll(cx)
            };
            match read {
                Poll::Ready(Ok(bytes)) => Poll::Ready(Ok((written, Some(bytes)))),
                Poll::Ready(Err(err)) => Poll::Ready(Err(err)),
                Poll::Pending if written > 0 => Poll::Ready(Ok((written, None))),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// What the other side says at the end, such as why it refuses our certificate.
    pub async fn last_words(&mut self) -> Option<io::Error> {
        let heard = async {
            let mut ignored = Vec::new();
            loop {
                match self.read(&mut ignored).await {
                    Ok(1..) => ignored.clear(),
                    Ok(0) => return None,
                    Err(err) => return Some(err),
                }
            }
        };
        timeout(LAST_WORDS, heard).await.unwrap_or(None)
    }

    /// Ends it in an orderly way: says that nothing more comes, and waits for the other side to have
    /// read all of it and to say the same, but not for long.
    pub async fn end(mut self) {
        let orderly = async {
            let position = self.meter.written();
            // Others may wait for the same, and longer.
            let _ = self.meter.arrived(position, Duration::MAX).await;
            let _ = self.stream.shutdown().await;
            let mut ignored = Vec::new();
            while let Ok(1..) = self.read(&mut ignored).await {
                ignored.clear();
            }
        };
        let _ = timeout(FAREWELL, orderly).await;
    }
}

const READ_AT_ONCE: usize = 8 << 10;

/// Nothing has moved for so long.
pub fn stalled(patience: Duration) -> io::Error {
    let text = format!("no progress within {} s", patience.as_secs_f32());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Counts what is written to a socket, and asks its kernel what of it has arrived.
///
/// A kernel tells an error once, to whoever asks or writes next, and without that error an emptied
/// queue looks like an arrival: so each who is told it calls [`Meter::fail`] before anybody else can
/// look. That holds because all deliveries of a courier are polled by one task.
pub struct Meter {
    probe: Probe,
    /// Bytes since the connection was made.
    written: AtomicU64,
    /// As many of them, at least, have arrived: seen while the connection was sound.
    arrived: AtomicU64,
    broken: OnceLock<String>,
}

impl Meter {
    /// Of a socket that nothing was written to.
    pub fn of(probe: Probe) -> Self {
        let (written, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { probe, written, arrived, broken: OnceLock::new() }
    }

    /// The position behind everything written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// So many more bytes were written.
    pub fn count(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    /// How far what was written is known to have arrived; does not ask the kernel.
    pub fn known(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }

    /// From now on nothing more counts as arrived.
    pub fn fail(&self, reason: &str) {
        let _ = self.broken.set(reason.to_owned());
    }

    /// Asks the kernel how far what was written has arrived.
    ///
    /// # Errors
    /// The connection is broken: what is not known by now to have arrived may not have.
    pub fn look(&self) -> io::Result<u64> {
        let broken = |reason: &String| Err(io::Error::other(reason.clone()));
        if let Some(reason) = self.broken.get() {
            return broken(reason);
        }
        // Before the question: what is written meanwhile counts as not arrived.
        let written = self.written();
        let unconfirmed = self.probe.unconfirmed()?;
        // After it: a reset empties the queue, and is no arrival.
        if let Err(err) = self.probe.fault() {
            self.fail(&err.to_string());
            return Err(err);
        }
        let arrived = written.saturating_sub(unconfirmed.unwrap_or(0));
        self.arrived.fetch_max(arrived, Ordering::SeqCst);
        Ok(self.known())
    }

    /// Waits until what was written before `position` has arrived.
    ///
    /// # Errors
    /// The connection is broken, or for so long nothing has arrived.
    pub async fn arrived(&self, position: u64, patience: Duration) -> io::Result<()> {
        const AT_ONCE: u32 = 8;
        const LONGEST: Duration = Duration::from_millis(20);
        let (mut known, mut since, mut asked) = (self.known(), Instant::now(), 0_u32);
        loop {
            // What is proven stays so, whatever befalls the connection then.
            let now = if self.known() >= position { self.known() } else { self.look()? };
            if now >= position {
                return Ok(());
            }
            if now > known {
                (known, since) = (now, Instant::now());
            } else if since.elapsed() >= patience {
                let err = stalled(patience);
                self.fail(&err.to_string());
                return Err(err);
            }
            // No kernel tells when its queue is empty. A peer confirms at once or within its delay of
            // 40 ms.
            match asked.checked_sub(AT_ONCE) {
                None => tokio::task::yield_now().await,
                Some(times) => {
                    let pause = Duration::from_millis(1 << times.min(8)).min(LONGEST);
                    sleep(pause.min(patience)).await;
                }
            }
            asked += 1;
        }
    }
}

/// A socket whose written bytes are counted. An error that it gives is one that its kernel does not give
/// again, and without which an empty queue would look like an arrival.
struct Counted<S> {
    socket: S,
    meter: Arc<Meter>,
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.socket).poll_write(cx, bytes);
        match &done {
            Poll::Ready(Ok(written)) => self.meter.count(*written),
            Poll::Ready(Err(err)) => self.meter.fail(&err.to_string()),
            Poll::Pending => {}
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.socket).poll_read(cx, into);
        if let Poll::Ready(Err(err)) = &done {
            self.meter.fail(&err.to_string());
        }
        done
    }
}
