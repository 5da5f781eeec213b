use std::path::Path;

use super::*;
use crate::secret;
use crate::sink::sentinel::cloud::Cloud;

mod arc;
mod entra;
mod managed;
mod refusals;
mod server;

use server::{Server, answer, token};

fn auth(text: &str) -> Auth {
    toml::from_str(text).unwrap()
}

fn settings() -> Settings {
    let timeout = Duration::from_secs(10);
    Settings { ca_file: None, client_certificate: None, proxy: None, timeout }
}

/// Tokens of a machine with these variables; Entra is at `authority`, if that is named.
fn tokens(auth: &str, authority: Option<&str>, machine: Machine) -> Tokens {
    let authority = authority.map(|url| Url::parse(url).unwrap());
    let place = Place::of(Cloud::Public, authority.as_ref(), None);
    Tokens::on(machine, self::auth(auth), place, settings())
}

fn bare() -> Machine {
    Machine::with(&[], Path::new("/nowhere").to_owned())
}

fn header(token: &Token) -> String {
    token.header().to_str().unwrap().to_owned()
}

/// Text and hint of a block.
fn blocked(result: Result<impl std::fmt::Debug, DeliveryError>) -> (String, String) {
    match result.unwrap_err() {
        DeliveryError::Blocked { source, hint: Some(hint), may_be_content: false } => {
            (source.to_string(), hint)
        }
        other => panic!("not blocked with a hint: {other:?}"),
    }
}
