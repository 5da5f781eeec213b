//! Connections that can be made to fail: cut in the middle of a body, or before an answer.
//!
//! HTTP libraries take care never to send a broken answer. This stands below them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// What is done to the next answer on a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Takes out the `Date` header, which the HTTP library always writes.
    pub without_date: bool,
    /// Closes the connection at this place.
    pub cut: Option<Cut>,
}

/// Where an answer is cut.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Before its first byte.
    Answer,
    /// Behind so many bytes of its body.
    Body(usize),
}

/// The handle by which a request reaches the connection it came on.
#[derive(Clone, Debug, Default)]
pub struct Line(Arc<Mutex<Option<Plan>>>);

impl Line {
    /// Says what is to be done to the next answer.
    pub fn plan(&self, plan: Plan) {
        *self.0.lock().expect("no holder panics") = Some(plan);
    }

    fn take(&self) -> Option<Plan> {
        self.0.lock().expect("no holder panics").take()
    }
}

impl Connected<IncomingStream<'_, Door>> for Line {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.io().line.clone()
    }
}

/// Accepts connections.
pub struct Door(pub TcpListener);

impl Listener for Door {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.0).await;
        // Failure costs speed alone.
        let _ = stream.set_nodelay(true);
        (Wire { stream, line: Line::default(), unsent: Vec::new(), is_cut: false }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// One connection.
pub struct Wire {
    stream: TcpStream,
    line: Line,
    unsent: Vec<u8>,
    is_cut: bool,
}

impl Wire {
    /// Takes the bytes in, changed as planned. An answer's head always comes in one piece.
    fn take_in(&mut self, bytes: &[u8]) {
        let Some(plan) = self.line.take() else {
            self.unsent.extend_from_slice(bytes);
            return;
        };
        let (head, body) = bytes.split_at(head_length(bytes));
        let body = match plan.cut {
            None => body,
            Some(cut) => {
                self.is_cut = true;
                match cut {
                    Cut::Answer => return,
                    Cut::Body(most) => &body[..body.len().min(most)],
                }
            }
        };
        let lines = head.split_inclusive(|byte| *byte == b'\n');
        let kept = lines.filter(|line| !(plan.without_date && is_date(line)));
        kept.for_each(|line| self.unsent.extend_from_slice(line));
        self.unsent.extend_from_slice(body);
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            self.unsent.drain(..sent);
        }
        Poll::Ready(if self.is_cut { Err(cut_off()) } else { Ok(()) })
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_cut {
            return Poll::Ready(Err(cut_off()));
        }
        self.take_in(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn cut_off() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut as planned")
}

fn head_length(bytes: &[u8]) -> usize {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    end.map_or(bytes.len(), |end| end + 4)
}

fn is_date(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"date:"))
}
