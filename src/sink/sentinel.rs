//! The Microsoft Sentinel sink.
//!
//! So far the tokens alone, by which the Logs Ingestion API knows who sends.

pub mod auth;
pub mod cloud;
pub mod token;
