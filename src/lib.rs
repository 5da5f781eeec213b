//! siemferry

pub mod config;
pub mod encode;
pub mod event;
pub mod log;
pub mod position;
pub mod problem;
pub mod secret;
pub mod sim;
pub mod sink;
pub mod source;
pub mod store;
pub mod sys;
pub mod units;
