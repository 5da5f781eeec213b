//! What the destination tells of itself when it is asked, without being sent anything. Pure.

use serde::Deserialize;
use wildmatch::WildMatch;

use super::target::Target;
use crate::log::escape;
use crate::sink::DeliveryError;

/// What [`product`] reads, and how it is asked for with nothing else.
pub const ABOUT: &str = "name,version.number,version.distribution,tagline";

/// What [`Template::of`] reads.
pub const TEMPLATES: &str = "index_templates.name,index_templates.index_template.index_patterns,\
                             index_templates.index_template.priority,\
                             index_templates.index_template.data_stream";

#[derive(Deserialize)]
struct About {
    name: String,
    version: Version,
}

#[derive(Deserialize)]
struct Version {
    number: String,
    #[serde(default)]
    distribution: Option<String>,
}

/// Product, version and the node's name, from the answer to `GET /`.
///
/// # Errors
/// It is another service.
pub fn product(body: &[u8]) -> Result<String, DeliveryError> {
    let about: About = serde_json::from_slice(body).map_err(|_| {
        DeliveryError::blocked(
            "the answer is none of Elasticsearch or OpenSearch",
            "check that `url` names the cluster itself, and that nothing in between answers in its place"
                .to_owned(),
        )
    })?;
    let product = match about.version.distribution.as_deref() {
        Some("opensearch") => "OpenSearch",
        _ => "Elasticsearch",
    };
    Ok(format!("{product} {} on `{}`", escape(&about.version.number), escape(&about.name)))
}

/// Whether there is what events go to.
pub enum Presence {
    /// There is.
    Found,
    /// There is not, or not yet.
    Missing,
    /// The credential may not look.
    Unknown,
}

impl Presence {
    /// What a status says of it; none for one that says something else.
    pub const fn of(status: u16) -> Option<Self> {
        match status {
            200 => Some(Self::Found),
            404 => Some(Self::Missing),
            401 | 403 => Some(Self::Unknown),
            _ => None,
        }
    }

    /// What the sink will do, where that needs no template.
    pub fn told(&self, product: &str, name: &str) -> String {
        match self {
            Self::Found => format!("{product} has `{name}`"),
            Self::Missing => format!(
                "{product} has no `{name}` yet: the first event makes it, if `action.auto_create_index` allows"
            ),
            Self::Unknown => format!(
                "{product} does not let this credential look for `{name}`, which it need not; whether it may write there is not known"
            ),
        }
    }
}

/// The index template that a name falls under.
#[derive(Debug, PartialEq, Eq)]
pub struct Template {
    name: String,
    makes_streams: bool,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    index_templates: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
    index_template: Rule,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    index_patterns: Vec<String>,
    #[serde(default)]
    priority: u64,
    #[serde(default)]
    data_stream: Option<serde::de::IgnoredAny>,
}

impl Template {
    /// The one with the highest priority whose patterns match; none when there is none, or when the
    /// list cannot be read.
    pub fn of(name: &str, body: &[u8]) -> Option<Self> {
        let listed: Listed = serde_json::from_slice(body).ok()?;
        let is_match = |it: &&Named| {
            it.index_template.index_patterns.iter().any(|it| WildMatch::new(it).matches(name))
        };
        let highest = listed.index_templates.iter().filter(is_match);
        let highest = highest.max_by_key(|it| it.index_template.priority)?;
        Some(Self {
            name: highest.name.clone(),
            makes_streams: highest.index_template.data_stream.is_some(),
        })
    }
}

/// What the first event does where a data stream is missing.
///
/// # Errors
/// It would make no data stream.
pub fn missing_stream(
    product: &str,
    stream: &str,
    template: Option<&Template>,
) -> Result<String, DeliveryError> {
    let hint = "install an index template with `data_stream` for it, made from config/elastic-template.json as the README tells";
    let refused = |what: String| {
        let text = format!("{product} has no data stream `{stream}`, and {what}");
        Err(DeliveryError::blocked(text, hint.to_owned()))
    };
    match template {
        Some(Template { name, makes_streams: true }) => Ok(format!(
            "{product} has no data stream `{stream}` yet: the first event makes it, by the index template `{}`",
            escape(name)
        )),
        Some(Template { name, .. }) => {
            refused(format!("the index template `{}` makes a plain index of it", escape(name)))
        }
        None => refused("no index template is for it".to_owned()),
    }
}

/// The path that is asked whether there is such a thing.
pub fn path<'a>(target: &Target, name: &'a str) -> Vec<&'a str> {
    match target {
        Target::Stream(_) => vec!["_data_stream", name],
        Target::Index(_) | Target::Daily(_) => vec![name],
    }
}
