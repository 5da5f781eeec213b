//! What the courier is told of a batch.

use std::cmp::Ordering;

use super::relp;
use crate::sink::{Batch, DeliveryError, Receipt, Verdict};

/// What became of a batch: how many of its events, from the first on, have arrived, and what was wrong.
pub struct Arrived {
    pub events: usize,
    pub wrong: Option<DeliveryError>,
}

/// What a line without answers has come to.
pub fn receipt(batch: &Batch, arrived: Arrived) -> Result<Receipt, DeliveryError> {
    let Some(wrong) = arrived.wrong else { return Ok(Receipt::default()) };
    if arrived.events == 0 {
        return Err(wrong);
    }
    let reason = wrong.to_string();
    let is_ambiguous = wrong.is_ambiguous() && arrived.events < batch.ends.len();
    let retry = || Verdict::Retry { reason: reason.clone() };
    let verdict = |at| if at < arrived.events { Verdict::Accepted } else { retry() };
    let verdicts = (0..batch.ends.len()).map(verdict).collect();
    Ok(Receipt { verdicts: Some(verdicts), is_ambiguous, bookmark: None })
}

/// What becomes of a batch of so many events when the one behind the first `sent` fits into no
/// datagram: it alone is refused.
pub fn too_long(count: usize, sent: usize, reason: &str) -> Receipt {
    let verdict = |at: usize| match at.cmp(&sent) {
        Ordering::Less => Verdict::Accepted,
        Ordering::Equal => Verdict::Refused { reason: reason.to_owned() },
        Ordering::Greater => Verdict::Retry { reason: "it was not its turn yet".into() },
    };
    Receipt { verdicts: Some((0..count).map(verdict).collect()), ..Receipt::default() }
}

/// What a session of RELP has come to.
pub fn acknowledged(
    outcome: relp::Outcome,
    wrong: Option<DeliveryError>,
) -> Result<Receipt, DeliveryError> {
    let is_accepted = |verdict: &Option<Verdict>| matches!(verdict, Some(Verdict::Accepted));
    let has_any = outcome.verdicts.iter().any(Option::is_some);
    match wrong {
        Some(wrong) if !has_any => Err(wrong),
        None if outcome.verdicts.iter().all(is_accepted) => Ok(Receipt::default()),
        wrong => {
            let reason = wrong.map_or_else(String::new, |wrong| wrong.to_string());
            let retry = || Verdict::Retry { reason: reason.clone() };
            let verdicts = outcome.verdicts.into_iter().map(|found| found.unwrap_or_else(retry));
            let is_ambiguous = outcome.is_ambiguous;
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

    #[test]
    fn what_fits_into_no_datagram_is_refused_alone() {
        let receipt = too_long(4, 2, "Message too long");

        let refused = Verdict::Refused { reason: "Message too long".into() };
        let verdicts = receipt.verdicts.unwrap();
        assert_eq!(verdicts[..3], [Verdict::Accepted, Verdict::Accepted, refused]);
        assert!(matches!(verdicts[3], Verdict::Retry { .. }));
        assert!(!receipt.is_ambiguous);
    }
}
