//! Whether a last page may have been cut: an API may end a list at its own limit without a word.

use crate::event::Page;

/// No API cuts its answers shorter than this.
const LEAST: usize = 10;

/// The sizes at which answers are known to be cut, besides those that the source tells.
#[derive(Clone, Debug, Default)]
pub struct Caps {
    /// The most records that came with a token for more.
    learned: usize,
}

impl Caps {
    /// Learns from a page.
    pub fn learn(&mut self, page: &Page) {
        if page.next.is_some() {
            self.learned = self.learned.max(count(page));
        }
    }

    /// True when the page claims to be the last and holds exactly as many records as fit: one of
    /// the `known` numbers, or as many as other pages.
    pub fn is_suspect(&self, page: &Page, known: &[usize]) -> bool {
        let count = count(page);
        let is_full = known.contains(&count) || (count == self.learned && count >= LEAST);
        page.next.is_none() && is_full
    }

    /// True when the API has been seen to say that there is more.
    pub fn pages(&self) -> bool {
        self.learned > 0
    }
}

fn count(page: &Page) -> usize {
    page.records.len() + page.bad.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::BadRecord;
    use crate::position::PageToken;

    fn page(count: usize, more: bool) -> Page {
        let bad = BadRecord { raw: b"1".to_vec(), reason: "it is not an object" };
        let next = more.then(|| PageToken("next".into()));
        Page { bad: vec![bad; count], next, ..Page::default() }
    }

    #[test]
    fn a_last_page_is_suspect_when_it_is_as_full_as_pages_get() {
        let mut caps = Caps::default();
        assert!(caps.is_suspect(&page(1000, false), &[1000]));
        assert!(!caps.is_suspect(&page(1000, true), &[1000]), "it says that there is more");
        assert!(!caps.is_suspect(&page(100, false), &[1000]));

        caps.learn(&page(100, true));

        assert!(caps.pages() && caps.is_suspect(&page(100, false), &[1000]));
        assert!(!caps.is_suspect(&page(99, false), &[1000]));
    }
}
