//! Continuation tokens: bound to what they were made for, and mortal.

use super::rng::mix;
use super::world::Place;
use crate::event::Millis;

/// What a token says: of which reading it is, and how far that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The bounds it was made for.
    pub window: (Millis, Millis),
    /// The limit it was made for; 0 when none was asked.
    pub limit: u64,
    /// The last event of the page before.
    pub after: Place,
    /// How many pages the reading has had.
    pub pages: u32,
    /// When it was made.
    pub issued: Millis,
    /// How often all tokens had been revoked by then.
    pub generation: u64,
}

impl Ticket {
    /// As text: opaque, and with the characters that a client forgets to escape in a URL.
    pub fn seal(&self, seed: u64) -> String {
        let text = self.text();
        format!("{}+{:016x}/==", hex(&text), checksum(&text, seed))
    }

    /// What a text says that [`Ticket::seal`] made with the same seed; none for any other.
    pub fn open(text: &str, seed: u64) -> Option<Self> {
        let (hex, _) = text.split_once('+')?;
        let fields: Option<Vec<i128>> =
            unhex(hex)?.split('.').map(|field| field.parse().ok()).collect();
        let ticket = Self::from_fields(&fields?)?;
        (ticket.seal(seed) == text).then_some(ticket)
    }

    fn text(&self) -> String {
        let ((start, end), (time, number)) = (self.window, self.after);
        let Self { limit, pages, issued, generation, .. } = self;
        format!("{start}.{end}.{limit}.{time}.{number}.{pages}.{issued}.{generation}")
    }

    fn from_fields(fields: &[i128]) -> Option<Self> {
        let &[start, end, limit, time, number, pages, issued, generation] = fields else {
            return None;
        };
        Some(Self {
            window: (start.try_into().ok()?, end.try_into().ok()?),
            limit: limit.try_into().ok()?,
            after: (time.try_into().ok()?, number.try_into().ok()?),
            pages: pages.try_into().ok()?,
            issued: issued.try_into().ok()?,
            generation: generation.try_into().ok()?,
        })
    }
}

fn hex(text: &str) -> String {
    let digit = |number: u8| char::from_digit(number.into(), 16).expect("a nibble is a digit");
    text.bytes().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<String> {
    let pairs = text.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).ok());
    let bytes = pairs.map(|pair| u8::from_str_radix(pair?, 16).ok());
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
}

fn checksum(text: &str, seed: u64) -> u64 {
    text.bytes().fold(mix(seed), |sum, byte| mix(sum ^ u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_again_what_it_was_made_for_and_no_changed_one_says_anything() {
        let ticket = Ticket {
            window: (-5, 1_767_323_045_000),
            limit: 100,
            after: (1_767_323_044_999, u64::MAX),
            pages: 3,
            issued: 1_767_323_050_000,
            generation: 2,
        };
        let sealed = ticket.seal(1);

        assert_eq!(Ticket::open(&sealed, 1), Some(ticket));
        assert_eq!(Ticket::open(&sealed, 2), None);
        for bad in ["", "abc", "+", "zz+00/==", &sealed.replace('+', " "), &sealed[2..]] {
            assert_eq!(Ticket::open(bad, 1), None, "{bad}");
        }
    }
}
