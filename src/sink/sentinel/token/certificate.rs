//! An application's certificate.

use reqwest::Url;

use crate::sink::DeliveryError;
use crate::sink::sentinel::auth;

pub struct Credential {}

pub fn read(_: &auth::Certificate, _: i64) -> Result<Credential, DeliveryError> {
    Err(DeliveryError::blocked("certificates are not supported yet", None))
}

impl Credential {
    pub fn assertion(&self, _: &str, _: &Url, _: i64) -> Result<String, DeliveryError> {
        Ok(String::new())
    }

    pub fn until(&self) -> String {
        String::new()
    }
}
