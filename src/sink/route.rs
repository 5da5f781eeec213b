//! Which events a sink gets.

use serde::Deserialize;
use wildmatch::WildMatch;

use crate::event::{Event, OWN_API};

/// `route = { sources, include, exclude }`: globs (`*`, `?`) on the event's type.
///
/// Our own events go everywhere, unless `exclude` names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Only what these sources have read; all of them, unless set.
    pub sources: Option<Vec<String>>,
    /// Only types that one of these matches; all of them, unless set. An event without a type has
    /// an empty one.
    pub include: Option<Vec<Glob>>,
    /// No types that one of these matches.
    pub exclude: Vec<Glob>,
}

impl Route {
    /// True when the event is for the sink.
    pub fn takes(&self, event: &Event<'_>) -> bool {
        let event_type = event.event_type.unwrap_or_default();
        let matches = |globs: &[Glob]| globs.iter().any(|glob| glob.0.matches(event_type));
        if !self.exclude.is_empty() && matches(&self.exclude) {
            return false;
        }
        if event.api == OWN_API {
            return true;
        }
        let is_read_by = |names: &Vec<String>| names.iter().any(|name| name == event.source);
        self.sources.as_ref().is_none_or(is_read_by)
            && self.include.as_ref().is_none_or(|include| matches(include))
    }
}

/// A pattern: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "String")]
pub struct Glob(WildMatch);

// A pattern is text.
impl Eq for Glob {}

impl From<String> for Glob {
    fn from(pattern: String) -> Self {
        Self(WildMatch::new(&pattern))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Uid;

    fn takes(route: &str, source: &str, event_type: Option<&str>) -> bool {
        let route: Route = toml::from_str(route).unwrap();
        let api = if source == OWN_API { OWN_API } else { "keeper" };
        let (seq, uid, raw) = (1, Uid([0; 16]), &b"{}"[..]);
        route.takes(&Event { seq, uid, time: None, event_type, raw, source, api, received: 0 })
    }

    #[test]
    fn without_a_route_a_sink_gets_everything() {
        assert!(takes("", "acme", Some("login")) && takes("", "acme", None));
    }

    #[test]
    fn a_route_chooses_by_source_and_type() {
        let route =
            "sources = [\"acme\"]\ninclude = [\"login*\", \"set_?\"]\nexclude = [\"*_failure\"]";

        assert!(takes(route, "acme", Some("login")));
        assert!(takes(route, "acme", Some("login_console")));
        assert!(takes(route, "acme", Some("set_x")));
        assert!(!takes(route, "acme", Some("set_xy")));
        assert!(!takes(route, "acme", Some("login_failure")));
        assert!(!takes(route, "acme", Some("logout")));
        assert!(!takes(route, "acme", None));
        assert!(!takes(route, "other", Some("login")));
    }

    #[test]
    fn nothing_is_included_by_an_empty_list() {
        assert!(!takes("include = []", "acme", Some("login")));
        assert!(!takes("sources = []", "acme", Some("login")));
    }

    #[test]
    fn our_own_events_go_everywhere_unless_they_are_excluded() {
        let route = "sources = [\"acme\"]\ninclude = [\"login*\"]";
        assert!(takes(route, OWN_API, Some("sink_blocked")));

        let route = format!("{route}\nexclude = [\"sink_*\"]");
        assert!(!takes(&route, OWN_API, Some("sink_blocked")));
        assert!(takes(&route, OWN_API, Some("started")));
    }
}
