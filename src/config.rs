//! The configuration: composes each module's own, loads and checks it.
