//! What the types of an API's events mean elsewhere; so far, how severe they are.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde::Deserialize;

/// The embedded mapping of the events of Keeper Security.
const KEEPER: &str = include_str!("../../config/mappings/keeper.toml");

/// How severe an event is. (RFC 5424, table 2)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody must act.
    Critical = 2,
    /// Something is wrong.
    Error = 3,
    /// Something may be wrong.
    Warning = 4,
    /// Worth to be known, like every audit event.
    #[default]
    Notice = 5,
    /// Without meaning for security.
    Info = 6,
}

/// How severe an event of this API is; one that no mapping names is a notice.
pub fn severity(api: &str, event_type: Option<&str>) -> Severity {
    static MAPPING: LazyLock<Mapping> =
        LazyLock::new(|| Mapping::parse(KEEPER).expect("the embedded mapping is sound"));
    match event_type {
        Some(event_type) if api == "keeper" => MAPPING.severity(event_type),
        _ => Severity::default(),
    }
}

/// A mapping as its file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shape {
    /// The types of each severity but notice: names, or their beginnings before a `*`.
    severity: BTreeMap<Severity, Vec<String>>,
}

/// A mapping that is fast to look into.
struct Mapping {
    names: HashMap<String, Severity>,
    /// The longest first.
    beginnings: Vec<(String, Severity)>,
}

impl Mapping {
    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let shape: Shape = toml::from_str(text)?;
        let (mut names, mut beginnings) = (HashMap::new(), Vec::new());
        for (severity, types) in shape.severity {
            for name in types {
                match name.strip_suffix('*') {
                    Some(beginning) => beginnings.push((beginning.to_owned(), severity)),
                    None => {
                        names.insert(name, severity);
                    }
                }
            }
        }
        beginnings.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        Ok(Self { names, beginnings })
    }

    fn severity(&self, event_type: &str) -> Severity {
        let named = self.names.get(event_type).copied();
        let begins = || {
            let mut beginnings = self.beginnings.iter();
            beginnings.find(|(beginning, _)| event_type.starts_with(&**beginning))
        };
        named.or_else(|| begins().map(|(_, severity)| *severity)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_before_a_beginning_and_a_longer_one_before_a_shorter() {
        let mapping = Mapping::parse(
            "[severity]\ninfo = [\"a*\", \"abc*\"]\nwarning = [\"ab*\"]\nerror = [\"abcd\"]\n",
        )
        .unwrap();

        for (event_type, severity) in [
            ("a", Severity::Info),
            ("ab", Severity::Warning),
            ("abc", Severity::Info),
            ("abcd", Severity::Error),
            ("abcde", Severity::Info),
            ("b", Severity::Notice),
            ("", Severity::Notice),
        ] {
            assert_eq!(mapping.severity(event_type), severity, "{event_type}");
        }
    }

    #[test]
    fn each_type_that_is_named_is_one_of_keepers_and_named_once() {
        let known = include_str!("../../tests/fixtures/keeper-event-types.csv");
        let known: Vec<_> =
            known.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
        let shape: Shape = toml::from_str(KEEPER).unwrap();
        let mut named = std::collections::HashSet::new();
        for name in shape.severity.values().flatten() {
            let is_known = match name.strip_suffix('*') {
                Some(beginning) => known.iter().any(|known| known.starts_with(beginning)),
                None => known.contains(&&**name),
            };
            assert!(is_known, "{name}");
            assert!(named.insert(name), "{name} is named twice");
        }
        assert!(!shape.severity.contains_key(&Severity::Notice), "it is what is not named");
    }

    #[test]
    fn an_event_is_a_notice_unless_the_mapping_of_its_api_says_otherwise() {
        assert_eq!(severity("keeper", Some("login")), Severity::Notice);
        assert_eq!(severity("keeper", Some("login_failed_console")), Severity::Warning);
        let critical = "keeper_ai_critical_risk_level_detected";
        assert_eq!(severity("keeper", Some(critical)), Severity::Critical);
        assert_eq!(severity("keeper", None), Severity::Notice);
        assert_eq!(severity("other", Some(critical)), Severity::Notice);
    }
}
