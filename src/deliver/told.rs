//! What was told of a sink's trouble, so that each change of it is told, and told once.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

/// A trouble that comes and goes is not told again before this.
const AGAIN: Duration = Duration::from_secs(600);

/// Which troubles were told of since the sink last worked.
#[derive(Debug, Default)]
pub(super) struct Told {
    now: String,
    /// When each was told.
    lately: BTreeMap<String, Duration>,
    /// The batch that failed last: a destination's support asks for it.
    pub batch: Option<Uuid>,
}

impl Told {
    /// Whether this trouble is another than the one before; `now` is any clock that only rises.
    pub fn is_news(&mut self, error: &str, now: Duration) -> bool {
        let trouble = gist(error);
        if trouble == self.now {
            return false;
        }
        self.lately.retain(|_, told| now.saturating_sub(*told) < AGAIN);
        self.now.clone_from(&trouble);
        let is_known = self.lately.contains_key(&trouble);
        self.lately.entry(trouble).or_insert(now);
        !is_known
    }

    /// The sink works: whatever comes is news.
    pub fn forget(&mut self) {
        self.now.clear();
        self.lately.clear();
    }
}

/// What an error says but for what differs from one request to the next: what was asked and with
/// which status it was answered, and of that no ids, times and quotations.
fn gist(error: &str) -> String {
    let end = error.match_indices(": ").nth(1).map_or(error.len(), |(at, _)| at);
    let mut gist = String::new();
    let mut is_quoted = false;
    for word in error[..end].split(' ') {
        let begins = word.starts_with(['`', '\'', '"', '[']);
        let is_id = word.len() > 3 && word.contains(|c: char| c.is_ascii_digit());
        if !(is_quoted || begins || is_id) {
            gist.push_str(word);
            gist.push(' ');
        }
        let word = word.trim_end_matches([',', '.', ':', ';', ')']);
        let ends = word.len() > 1 && word.ends_with(['`', '\'', '"', ']']);
        is_quoted = (is_quoted || begins) && !ends;
    }
    gist
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_change_is_news_and_no_repetition_is() {
        let mut told = Told::default();
        let mut news = |error: &str, at: u32| told.is_news(error, SECOND * at);

        assert!(news("POST https://a: 401 Unauthorized: trace id 0b1c-77", 0));
        assert!(!news("POST https://a: 401 Unauthorized: trace id 9f2e-78", 1));
        assert!(news("POST https://a: 403 Forbidden: no", 2));
        assert!(!news("POST https://a: 401 Unauthorized", 3), "it comes and goes");
        assert!(news("connect to `a`: connection refused", 700));
        assert!(news("POST https://a: 403 Forbidden", 701));
    }

    #[test]
    fn what_is_quoted_and_what_is_numbered_is_no_difference() {
        let mut told = Told::default();

        assert!(told.is_news("field [a b] of 'x y' in 1234-5 cannot be parsed", SECOND));
        assert!(!told.is_news("field [c] of 'z' in 6789-0 cannot be parsed", SECOND));
    }

    #[test]
    fn after_the_sink_has_worked_the_same_is_news_again() {
        let mut told = Told::default();
        assert!(told.is_news("503", SECOND));

        told.forget();

        assert!(told.is_news("503", SECOND));
    }
}
