//! What the fate of events is told, and what it says. Pure.

use super::super::piece::Piece;
use crate::sink::Verdict;

/// Why a sink is blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub(super) why: Why,
    /// What is wrong.
    pub error: String,
    /// What to do.
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The destination says so.
    Said,
    /// Nothing was accepted.
    Everything,
    /// Too many suspects.
    TooMany,
}

/// What the destination has answered.
#[derive(Clone, Debug)]
pub enum Heard {
    /// It holds all of it.
    Accepted,
    /// A verdict for each event.
    Each(Vec<Verdict>),
    /// It holds none of it.
    Refused {
        /// What it said.
        reason: String,
    },
    /// Nobody's event is at fault, it seems.
    Blocked {
        /// What is wrong.
        error: String,
        /// What to do.
        hint: Option<String>,
        /// True when what an event says may be the cause.
        may_be_content: bool,
    },
    /// The event was not even sent, for it makes no message.
    Unencodable {
        /// What stands against it.
        reason: String,
    },
}

/// What follows from an answer.
#[derive(Debug, Default)]
pub struct Rulings {
    /// What has been accepted.
    pub accepted: Vec<Piece>,
    /// What is a dead letter.
    pub dead: Vec<Dead>,
    /// Why something is to be sent again, after a wait.
    pub again: Option<String>,
}

/// An event that is proven bad.
#[derive(Debug)]
pub struct Dead {
    /// The event alone.
    pub piece: Piece,
    /// What the destination said at last.
    pub reason: String,
    /// How often it was sent alone.
    pub attempts: u64,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this.
    Send(Piece),
    /// Send one event that comes behind all others, as a proof that the destination works; if there
    /// is none, send this, or else wait for one.
    Prove(Option<Piece>),
    /// Wait, and then [probe](super::Fate::probe).
    Blocked,
    /// Nothing: no trouble is left.
    Clear,
}
