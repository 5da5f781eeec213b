//! What befalls messages and connections, and what is told of it.

use std::time::Duration;

/// What is known when a message is about to be taken.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counts the connections, from 0. Of a kind without connections: 0.
    pub connection: usize,
    /// Counts the messages that came, taken or not, over all connections, from 0: who decides by it
    /// decides once.
    pub message: usize,
    /// The same, of this connection.
    pub on_connection: usize,
    /// How many messages were taken so far, over all connections.
    pub taken: usize,
    /// The message itself.
    pub content: Vec<u8>,
}

/// What befalls the message that is about to be taken, and its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Resets the connection. The message is not taken, nor what is behind it.
    Reset,
    /// Takes this and every whole message of what its kernel has by now; then resets.
    ResetAfterDraining,
    /// Ends the connection, with a `close_notify` where there is TLS. The message is not taken. What
    /// is unread has the kernel reset it.
    Close,
    /// Ends its own sending, and takes everything until the sender's end, or 2 s of silence. With
    /// RELP, nothing is acknowledged any more.
    FinishReading,
    /// From now on pauses before each reading of at most 256 bytes. The message is taken.
    Slow(Duration),
    /// Reads nothing and answers nothing until [`Receiver::mend`](super::Receiver::mend); then the message is taken.
    Freeze,
    /// Resets every connection, and is not there for so long. The message is not taken.
    Restart(Duration),
    /// RELP: takes the message, and ends the connection; what waits is not acknowledged.
    LoseAck,
    /// RELP: refuses the message with this code and text.
    RefuseMessage(u16, String),
    /// RELP: sends `serverclose`, and ends the connection. The message is not taken.
    ServerClose,
    /// RELP, only when a connection comes: refuses the `open` with this text.
    RefuseOpen(String),
    /// Answers this, and takes nothing more of this connection.
    Garbage(Vec<u8>),
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// By the sender, where it may: between two messages, after `close_notify` where there is TLS,
    /// and after an answered `close` where it is RELP.
    Orderly,
    /// By the sender, between two messages, without what belongs before it.
    Abrupt,
    /// By the sender, within a message of which so many bytes had come.
    Torn(usize),
    /// By a reset from the sender.
    Reset,
    /// There was no agreement about TLS, or it was broken.
    Tls(String),
    /// By the receiver, because of a violation.
    Refused(String),
    /// By a fault: a reset.
    WasReset,
    /// By a fault: an end of the receiver's own.
    WasClosed,
    /// The test was over.
    Over,
}

/// What is known of one connection.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Bytes that the application read from its kernel, decrypted.
    pub read: usize,
    /// The messages that came, and those of them that were taken.
    pub arrived: usize,
    pub messages: usize,
    /// The bytes of these, with their frames.
    pub taken: usize,
    /// RELP: the messages acknowledged.
    pub acknowledged: usize,
    /// What has befallen it, in this order.
    pub suffered: Vec<Fault>,
    /// Of a stream over TCP that a fault at a message has ended: the whole messages that its kernel
    /// had by then, or its process, and that were not taken. No sender can know of them.
    pub lost: Vec<Vec<u8>>,
    /// None as long as it is open.
    pub end: Option<How>,
}
