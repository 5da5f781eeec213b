//! The judge: compares what was delivered with what happened, copy by copy.

use std::collections::HashMap;
use std::fmt;

use super::json;

/// The member that every delivered line has as its last.
const OURS: &str = "siemferry";

/// How many examples of each failure are kept.
const EXAMPLES: usize = 3;

/// What became of the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many events happened.
    pub held: usize,
    /// How many lines were delivered.
    pub delivered: usize,
    /// Events of which no line tells.
    pub lost: usize,
    /// Lines about an event that has been told as often as it happened.
    pub doubled: usize,
    /// Lines about nothing that happened, or that are no delivered event at all.
    pub altered: usize,
    /// Some of the events lost, as canonical JSON.
    pub lost_examples: Vec<String>,
    /// Some of the events doubled, as canonical JSON.
    pub doubled_examples: Vec<String>,
    /// Some of the lines altered, as they were delivered.
    pub altered_examples: Vec<String>,
}

impl Report {
    /// True when every event was delivered once, as it was, and nothing else.
    pub fn is_exact(&self) -> bool {
        (self.lost, self.doubled, self.altered) == (0, 0, 0)
    }

    /// True when every event was delivered at least once, as it was, and nothing else.
    pub fn is_complete(&self) -> bool {
        (self.lost, self.altered) == (0, 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { held, delivered, lost, doubled, altered, .. } = self;
        write!(
            f,
            "{held} held, {delivered} delivered, {lost} lost, {doubled} doubled, {altered} altered"
        )
    }
}

/// Compares the events of [`super::Api::truth`] with the delivered lines, as multisets.
///
/// A line is the record as served, with one member `siemferry` appended as its last. Lines that tell
/// of siemferry itself are left out.
pub fn compare<L: AsRef<str>>(truth: &[String], lines: impl IntoIterator<Item = L>) -> Report {
    let mut report = Report { held: truth.len(), ..Report::default() };
    let mut known: HashMap<&str, (usize, usize)> = HashMap::with_capacity(truth.len());
    for event in truth {
        known.entry(event).or_default().0 += 1;
    }
    for line in lines.into_iter().filter(|line| !is_ours(line.as_ref())) {
        report.delivered += 1;
        let told = record_of(line.as_ref());
        match told.and_then(|told| known.get_mut(told.as_str())) {
            Some((_, told)) => *told += 1,
            None => note(&mut report.altered, &mut report.altered_examples, line.as_ref(), 1),
        }
    }
    for (event, (happened, told)) in known {
        let (lost, doubled) = (happened.saturating_sub(told), told.saturating_sub(happened));
        note(&mut report.lost, &mut report.lost_examples, event, lost);
        note(&mut report.doubled, &mut report.doubled_examples, event, doubled);
    }
    report.lost_examples.sort();
    report.doubled_examples.sort();
    report
}

/// True when the line is one of siemferry's own events. A quotation mark inside a text is escaped, so
/// that no text can look like the member.
fn is_ours(line: &str) -> bool {
    let last = line.rsplit_once(r#""siemferry":{"uid":""#);
    last.is_some_and(|(_, member)| member.contains(r#""api":"siemferry","#))
}

/// The record of a delivered line, as canonical JSON; none when it is not one.
fn record_of(line: &str) -> Option<String> {
    let (record, last) = json::without_last(line)?;
    if last == OURS { json::canonical(&record) } else { None }
}

fn note(count: &mut usize, examples: &mut Vec<String>, text: &str, times: usize) {
    *count += times;
    if times > 0 && examples.len() < EXAMPLES {
        examples.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(events: &[&str]) -> Vec<String> {
        events.iter().map(|event| json::canonical(event).unwrap()).collect()
    }

    #[test]
    fn the_same_events_in_another_order_and_with_other_key_orders_are_exact() {
        let truth = truth(&[r#"{"a":1,"b":2}"#, r#"{"a":1,"b":2}"#, "{}"]);
        let lines = [
            r#"{"siemferry":{"uid":"0"}}"#,
            r#"{"b":2,"a":1,"siemferry":{"uid":"1"}}"#,
            r#"{"a":1,"b":2,"siemferry":{"uid":"2"}}"#,
        ];

        let report = compare(&truth, lines);

        assert!(report.is_exact(), "{report}");
        assert_eq!((report.held, report.delivered), (3, 3));
    }

    #[test]
    fn every_lost_copy_and_every_doubled_line_is_counted() {
        let truth = truth(&[r#"{"a":1}"#, r#"{"a":1}"#, r#"{"a":1}"#, r#"{"b":1}"#]);
        let lines = [r#"{"a":1,"siemferry":0}"#, r#"{"b":1,"siemferry":0}"#];

        let report = compare(&truth, lines.iter().chain(&lines[1..]).chain(&lines[1..]));

        assert_eq!((report.lost, report.doubled, report.altered), (2, 2, 0));
        assert_eq!(report.lost_examples, [r#"{"a":1}"#]);
        assert_eq!(report.doubled_examples, [r#"{"b":1}"#]);
        assert!(!report.is_complete());
    }

    #[test]
    fn a_line_that_tells_something_else_is_altered_and_its_event_lost() {
        let truth = truth(&[r#"{"a":12345678901234567890}"#]);
        let lines = [
            r#"{"a":12345678901234567000,"siemferry":0}"#,
            r#"{"a":12345678901234567890}"#,
            r#"{"siemferry":0,"a":12345678901234567890}"#,
            r#"{"a":12345678901234567890,"siemf"#,
            "",
        ];

        let report = compare(&truth, lines);

        assert_eq!((report.lost, report.doubled, report.altered), (1, 0, 5));
    }

    #[test]
    fn what_siemferry_tells_of_itself_is_not_counted() {
        let truth = truth(&[r#"{"a":"\"api\":\"siemferry\","}"#]);
        let lines = [
            r#"{"event":"started","siemferry":{"uid":"0","source":"siemferry","api":"siemferry","type":"started"}}"#,
            r#"{"a":"\"api\":\"siemferry\",","siemferry":{"uid":"1","source":"acme","api":"keeper","type":"\"api\":\"siemferry\","}}"#,
        ];

        let report = compare(&truth, lines);

        assert!(report.is_exact(), "{report}");
        assert_eq!(report.delivered, 1);
    }

    #[test]
    fn a_record_with_a_member_of_our_name_keeps_it() {
        let truth = truth(&[r#"{"siemferry":"theirs","a":1}"#]);

        let report = compare(&truth, [r#"{"siemferry":"theirs","a":1,"siemferry":{}}"#]);

        assert!(report.is_exact(), "{report}");
    }
}
