//! `[log]`: structured logs on stderr.

use serde::Deserialize;

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {}
