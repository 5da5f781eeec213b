//! The envelope: where in a body the values are that a preset points to.
//!
//! Promises to walk over the body once, however many pointers there are, and to believe quotes and
//! brackets alone: what is unsound inside a value is for the reader of that value.

use std::ops::Range;

use crate::source::json::{self, Fault, Pointer, Segment};

/// How many keys are kept; enough to tell that there are more than are shown.
const KEYS: usize = 21;

/// What the walk found.
#[derive(Debug)]
pub(super) struct Outline {
    /// Where the value of each pointer is, quotes and brackets included.
    pub found: Vec<Option<Range<usize>>>,
    /// The arrays among the members of the outermost object.
    pub arrays: Vec<Range<usize>>,
    /// The first keys of the outermost object, quotes included.
    pub keys: Vec<Range<usize>>,
    /// Where the outermost value ends.
    pub end: usize,
}

/// Walks over the object or array that starts at `at`.
pub(super) fn outline<'a>(
    body: &'a [u8],
    at: usize,
    pointers: impl IntoIterator<Item = &'a Pointer>,
) -> Result<Outline, Fault> {
    let seek =
        |pointer: &'a Pointer| Seek { steps: pointer.segments(), depth: Some(0), found: None };
    let seeks = pointers.into_iter().map(seek).collect();
    let mut walk = Walk { body, at, seeks, frames: vec![], arrays: vec![], keys: vec![] };
    walk.run()?;
    let Walk { at: end, arrays, keys, .. } = walk;
    Ok(Outline {
        found: walk.seeks.into_iter().map(|seek| seek.found).collect(),
        arrays,
        keys,
        end,
    })
}

/// How far a pointer has been followed.
struct Seek<'a> {
    steps: &'a [Segment],
    /// How many steps lead to where the walk is; none once the value was found or is known to be
    /// absent, so that the first of duplicate keys wins.
    depth: Option<usize>,
    found: Option<Range<usize>>,
}

/// A container the walk is in.
struct Frame {
    start: usize,
    is_array: bool,
    index: usize,
}

struct Walk<'a> {
    body: &'a [u8],
    at: usize,
    seeks: Vec<Seek<'a>>,
    frames: Vec<Frame>,
    arrays: Vec<Range<usize>>,
    keys: Vec<Range<usize>>,
}

impl Walk<'_> {
    fn run(&mut self) -> Result<(), Fault> {
        loop {
            if self.enter()? {
                self.child()?;
            } else if self.leave()? {
                return Ok(());
            }
        }
    }

    /// Steps into the container at hand and tells true; any other value, it steps over.
    fn enter(&mut self) -> Result<bool, Fault> {
        let start = self.at;
        if !self.is_on_a_path() {
            self.at = json::skip_value(self.body, start)?;
            self.settle(start);
            return Ok(false);
        }
        let is_array = self.body[start] == b'[';
        self.at = json::skip_blank(self.body, start + 1);
        let closer = if is_array { b']' } else { b'}' };
        if self.peek() == Some(closer) {
            self.at += 1;
            self.settle(start);
            return Ok(false);
        }
        self.frames.push(Frame { start, is_array, index: 0 });
        Ok(true)
    }

    /// True when some pointer leads into the value at hand, and for the outermost object.
    fn is_on_a_path(&self) -> bool {
        let depth = self.frames.len();
        let here = self.seeks.iter().filter(|seek| seek.depth == Some(depth));
        let mut steps = here.filter_map(|seek| seek.steps.get(depth));
        match self.peek() {
            Some(b'{') => depth == 0 || steps.next().is_some(),
            Some(b'[') => steps.any(|step| step.index().is_some()),
            _ => false,
        }
    }

    /// Reads what is in front of a child's value and follows the pointers that lead there.
    fn child(&mut self) -> Result<(), Fault> {
        let frame = self.frames.last().expect("a child is in a container");
        if frame.is_array {
            let index = Some(frame.index);
            self.follow(|step| step.index() == index);
            return Ok(());
        }
        let key = self.key()?;
        let body = self.body;
        self.follow(|step| json::is_same(&body[key.start + 1..key.end - 1], step.key().as_bytes()));
        if self.frames.len() == 1 && self.keys.len() < KEYS {
            self.keys.push(key);
        }
        Ok(())
    }

    fn follow(&mut self, leads_here: impl Fn(&Segment) -> bool) {
        let depth = self.frames.len();
        for seek in self.seeks.iter_mut().filter(|seek| seek.depth == Some(depth - 1)) {
            if seek.steps.get(depth - 1).is_some_and(&leads_here) {
                seek.depth = Some(depth);
            }
        }
    }

    fn key(&mut self) -> Result<Range<usize>, Fault> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.fault("no key"));
        }
        let end = json::skip_string(self.body, start)?;
        self.at = json::skip_blank(self.body, end);
        if self.peek() != Some(b':') {
            return Err(self.fault("no colon behind a key"));
        }
        self.at = json::skip_blank(self.body, self.at + 1);
        Ok(start..end)
    }

    /// Goes on behind a value: to the next child, or true when it was the outermost.
    fn leave(&mut self) -> Result<bool, Fault> {
        while let Some(frame) = self.frames.last_mut() {
            self.at = json::skip_blank(self.body, self.at);
            match (self.body.get(self.at), frame.is_array) {
                (Some(b','), _) => {
                    frame.index += 1;
                    self.at = json::skip_blank(self.body, self.at + 1);
                    self.child()?;
                    return Ok(false);
                }
                (Some(b']'), true) | (Some(b'}'), false) => {
                    let start = frame.start;
                    self.frames.pop();
                    self.at += 1;
                    self.settle(start);
                }
                _ => return Err(self.fault("neither a comma nor the closing bracket")),
            }
        }
        Ok(true)
    }

    /// Notes the value that has just ended for the pointers that led to it or into it.
    fn settle(&mut self, start: usize) {
        let depth = self.frames.len();
        let value = start..self.at;
        for seek in self.seeks.iter_mut().filter(|seek| seek.depth == Some(depth)) {
            seek.depth = None;
            seek.found = (seek.steps.len() == depth).then(|| value.clone());
        }
        let is_member = depth == 1 && self.frames.last().is_some_and(|frame| !frame.is_array);
        if is_member && self.body[start] == b'[' {
            self.arrays.push(value);
        }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn fault(&self, reason: &'static str) -> Fault {
        Fault::new(self.body, self.at, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(body: &'a str, pointers: &[&str]) -> Vec<Option<&'a str>> {
        let pointers: Vec<Pointer> = pointers.iter().map(|text| text.parse().unwrap()).collect();
        let outline = outline(body.as_bytes(), 0, &pointers).unwrap();
        assert_eq!(outline.end, body.len());
        outline.found.into_iter().map(|value| value.map(|value| &body[value])).collect()
    }

    #[test]
    fn one_walk_serves_all_pointers() {
        let body = r#"{ "a" : { "b" : [ 1 , { "c" : "x]" } ] , "d" : {} } , "n" : null }"#;
        let pointers = ["/a/b/1/c", "/a/d", "/n", "/a/b/0", "/a/d/e", "/b", "/n/x", "/a/b/2"];

        let found = found(body, &pointers);

        let some = [Some("\"x]\""), Some("{}"), Some("null"), Some("1")];
        assert_eq!(found[..4], some);
        assert_eq!(found[4..], [None; 4]);
    }

    #[test]
    fn a_pointer_into_what_another_names_spoils_neither() {
        let body = r#"{"a":{"b":[0]},"c":[]}"#;

        let found = found(body, &["/a", "/a/b", "/a/b/0", "", "/a"]);

        let inner = Some(r#"{"b":[0]}"#);
        assert_eq!(found, [inner, Some("[0]"), Some("0"), Some(body), inner]);
    }

    #[test]
    fn the_first_of_duplicate_keys_wins_even_when_it_leads_nowhere() {
        let body = r#"{"a":{},"t":1,"\u0061":{"b":2},"a":{"b":3},"t":4}"#;

        assert_eq!(found(body, &["/a/b", "/t"]), [None, Some("1")]);
    }

    #[test]
    fn the_values_in_between_may_be_unsound() {
        let body = "{\"x\":[nul,,\"\n\"],\"t\":1,\"y\":undefined}";

        assert_eq!(found(body, &["/t"]), [Some("1")]);
    }

    #[test]
    fn a_bare_array_is_walked_for_indexes_alone() {
        let body = r#"[{"a":1},{"a":2}]"#;

        assert_eq!(found(body, &["", "/1/a", "/a", "/2"]), [Some(body), Some("2"), None, None]);
    }

    #[test]
    fn members_without_borders_are_a_fault() {
        for (body, reason) in [
            (r#"{"a" 1}"#, "no colon behind a key"),
            (r#"{"a":}"#, "no value"),
            (r#"{"a":1,}"#, "no key"),
            ("{a:1}", "no key"),
            (r#"{"a":1 "b":2}"#, "neither a comma nor the closing bracket"),
            (r#"{"a":[1}}"#, "brackets that do not match"),
            (r#"{"a":[1]]"#, "neither a comma nor the closing bracket"),
            (r#"{"a":[{"b":1},"#, "cut short"),
            (r#"{"a":1,"#, "cut short"),
            (r#"{"a"#, "cut short"),
            (r#"{"a":"#, "cut short"),
            ("{", "cut short"),
            ("[", "cut short"),
        ] {
            let fault = outline(body.as_bytes(), 0, &[]).unwrap_err();

            assert_eq!(fault.reason, reason, "{body}");
        }
    }
}
