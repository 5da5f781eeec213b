//! What the courier is told of a batch.

use std::cmp::Ordering;

use super::relp;
use crate::sink::{Batch, DeliveryError, Receipt, Verdict};

/// What became of a batch.
pub struct Arrived {
    /// How many of its events, from the first on, have arrived.
    pub events: usize,
    /// Of how many anything may have been sent.
    pub begun: usize,
    /// What was wrong.
    pub wrong: Option<DeliveryError>,
}

/// What a line without answers has come to.
pub fn receipt(batch: &Batch, arrived: Arrived) -> Result<Receipt, DeliveryError> {
    let (count, Arrived { events, begun, wrong }) = (batch.ends.len(), arrived);
    let is_ambiguous = wrong.as_ref().is_some_and(DeliveryError::is_ambiguous) && events < begun;
    let verdicts = match wrong {
        None if begun == count => return Ok(Receipt::default()),
        Some(wrong) if events == 0 && !is_ambiguous => return Err(wrong),
        wrong => {
            let reason = wrong.map(|wrong| wrong.to_string());
            let begun = begun.max(events + 1);
            let open = |at| not_taken(at, begun, reason.as_deref());
            (0..count).map(|at| if at < events { Verdict::Accepted } else { open(at) }).collect()
        }
    };
    Ok(Receipt { verdicts: Some(verdicts), is_ambiguous, bookmark: None })
}

/// What becomes of an event that is not known to be taken: in doubt up to `begun`, if something was
/// wrong. That has to reach one event beyond those taken, or nobody would be told.
fn not_taken(at: usize, begun: usize, wrong: Option<&str>) -> Verdict {
    match wrong {
        Some(reason) if at < begun => Verdict::Retry { reason: reason.to_owned() },
        _ => Verdict::Unsent,
    }
}

/// Nothing of a batch of so many events was sent.
pub fn unsent(count: usize) -> Receipt {
    Receipt { verdicts: Some(vec![Verdict::Unsent; count]), ..Receipt::default() }
}

/// What becomes of a batch of so many events when the one behind the first `sent` fits into no
/// datagram: it alone is refused.
pub fn too_long(count: usize, sent: usize, reason: &str) -> Receipt {
    let verdict = |at: usize| match at.cmp(&sent) {
        Ordering::Less => Verdict::Accepted,
        Ordering::Equal => Verdict::Refused { reason: reason.to_owned() },
        Ordering::Greater => Verdict::Unsent,
    };
    Receipt { verdicts: Some((0..count).map(verdict).collect()), ..Receipt::default() }
}

/// What a session of RELP has come to.
pub fn acknowledged(
    outcome: relp::Outcome,
    wrong: Option<DeliveryError>,
) -> Result<Receipt, DeliveryError> {
    let is_accepted = |verdict: &Option<Verdict>| matches!(verdict, Some(Verdict::Accepted));
    let relp::Outcome { verdicts, begun, is_ambiguous, .. } = outcome;
    let known = verdicts.iter().filter(|verdict| verdict.is_some()).count();
    match wrong {
        Some(wrong) if known == 0 && !wrong.is_ambiguous() => Err(wrong),
        None if verdicts.iter().all(is_accepted) => Ok(Receipt::default()),
        wrong => {
            let reason = wrong.map(|wrong| wrong.to_string());
            let begun = begun.max(known + 1);
            let open = |at| not_taken(at, begun, reason.as_deref());
            let verdicts = verdicts.into_iter().enumerate();
            let verdicts = verdicts.map(|(at, found)| found.unwrap_or_else(|| open(at)));
            Ok(Receipt { verdicts: Some(verdicts.collect()), is_ambiguous, bookmark: None })
        }
    }
}

/// The trouble with each address: where one passes by itself, all of it does.
pub fn together(mut failed: Vec<DeliveryError>) -> DeliveryError {
    if failed.len() == 1 {
        return failed.remove(0);
    }
    let told = |err: &DeliveryError| match err {
        DeliveryError::Blocked { source, hint: Some(hint), .. } => format!("{source} ({hint})"),
        other => other.to_string(),
    };
    let text = failed.iter().map(told).collect::<Vec<_>>().join("; ");
    if failed.iter().all(|err| matches!(err, DeliveryError::Blocked { .. })) {
        DeliveryError::blocked(text, None)
    } else {
        DeliveryError::passing(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(events: usize) -> Batch {
        Batch { ends: (1..=events).collect(), bytes: vec![b'x'; events], ..Batch::default() }
    }

    fn letters(receipt: &Receipt) -> String {
        let letter = |verdict: &Verdict| match verdict {
            Verdict::Accepted => 'a',
            Verdict::Retry { .. } => 'r',
            Verdict::Refused { .. } => 'x',
            Verdict::Unsent => '-',
        };
        receipt.verdicts.iter().flatten().map(letter).collect()
    }

    #[test]
    fn only_what_may_be_there_is_in_doubt() {
        let lost = |is_ambiguous| {
            Some(DeliveryError::Retry { after: None, source: "lost".into(), is_ambiguous })
        };
        for (events, begun, wrong, told, is_ambiguous) in [
            (5, 5, None, "", false),
            (3, 3, None, "aaa--", false),
            (1, 4, lost(true), "arrr-", true),
            (0, 2, lost(true), "rr---", true),
            (2, 2, lost(true), "aar--", false),
        ] {
            let receipt = receipt(&batch(5), Arrived { events, begun, wrong }).unwrap();
            assert_eq!((&*letters(&receipt), receipt.is_ambiguous), (told, is_ambiguous));
        }
        let nothing = Arrived { events: 0, begun: 0, wrong: lost(false) };
        assert!(receipt(&batch(5), nothing).is_err());
    }

    #[test]
    fn what_waits_for_an_acknowledgement_is_in_doubt_and_the_rest_unsent() {
        let lost = || DeliveryError::Retry { after: None, source: "".into(), is_ambiguous: true };
        let accepted = Some(Verdict::Accepted);
        let verdicts = vec![accepted.clone(), None, accepted, None, None];
        let outcome = relp::Outcome { verdicts, begun: 4, is_ambiguous: true, broken: None };

        let receipt = acknowledged(outcome, Some(lost())).unwrap();

        assert_eq!((&*letters(&receipt), receipt.is_ambiguous), ("arar-", true));
    }

    #[test]
    fn what_fits_into_no_datagram_is_refused_alone() {
        let receipt = too_long(4, 2, "Message too long");

        let refused = Verdict::Refused { reason: "Message too long".into() };
        let verdicts = receipt.verdicts.unwrap();
        assert_eq!(verdicts[..3], [Verdict::Accepted, Verdict::Accepted, refused]);
        assert_eq!(verdicts[3], Verdict::Unsent);
        assert!(!receipt.is_ambiguous);
    }
}
