//! The Elasticsearch and OpenSearch sink, and the simulator it is tested against.

/// What the official client makes of the simulator.
mod proof;
