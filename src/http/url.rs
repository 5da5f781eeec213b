//! What can be said about a URL of the configuration. No text shows one: it may hold a password.

use reqwest::Url;

use crate::problem::Problem;

/// What is wrong with the value of `proxy`.
pub fn check_proxy(proxy: Option<&str>) -> Option<Problem> {
    let wrong = |text| Some(Problem::at("proxy", text).hint(r#"such as "http://proxy:3128""#));
    match Url::parse(proxy?) {
        Ok(url) if has_user(&url) => wrong("holds a user name or a password"),
        Ok(url) if is_web(&url) => None,
        _ => wrong("is not the URL of an HTTP proxy"),
    }
}

/// Whether it names a host to be asked over HTTP.
pub fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "https" | "http") && url.has_host()
}

/// Whether it holds a user name or a password.
pub fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// Whether it names this machine, by an address or name that cannot mean another.
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
