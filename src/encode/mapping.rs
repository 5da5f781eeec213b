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
