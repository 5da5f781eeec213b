//! `cloud = …`: which of Microsoft's clouds gives the tokens, and for what.

use reqwest::Url;
use serde::Deserialize;

use crate::http::url;
use crate::problem::Problem;

/// One of Microsoft's clouds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// Azure for everybody.
    #[default]
    Public,
    /// Azure Government, of the United States.
    Usgov,
    /// Azure operated by 21Vianet, in China.
    China,
}

/// Where tokens come from, and for what they are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Microsoft Entra.
    pub authority: Url,
    /// True when the configuration names the authority: then no variable of the environment does.
    pub is_named: bool,
    /// What a token is asked for, such as `https://monitor.azure.com/.default`.
    pub scope: String,
}

impl Place {
    /// The place that belongs to a cloud, but for what is named.
    pub fn of(cloud: Cloud, authority: Option<&Url>, scope: Option<&str>) -> Self {
        // https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud
        let (login, monitor) = match cloud {
            Cloud::Public => ("https://login.microsoftonline.com", "https://monitor.azure.com"),
            Cloud::Usgov => ("https://login.microsoftonline.us", "https://monitor.azure.us"),
            Cloud::China => ("https://login.chinacloudapi.cn", "https://monitor.azure.cn"),
        };
        let login = || Url::parse(login).expect("it is a URL");
        Self {
            authority: authority.cloned().unwrap_or_else(login),
            is_named: authority.is_some(),
            scope: scope.map_or_else(|| format!("{monitor}{DEFAULT}"), str::to_owned),
        }
    }

    /// The scope as the token services of a machine want it.
    pub fn resource(&self) -> &str {
        self.scope.strip_suffix(DEFAULT).unwrap_or(&self.scope)
    }

    /// What is wrong with an authority that is named.
    pub fn check(authority: &Url) -> Option<Problem> {
        let text = match () {
            () if !url::is_web(authority) => "is not a URL of the web",
            () if url::has_user(authority) => "holds a user name or a password",
            () if authority.query().is_some() || authority.fragment().is_some() => {
                "holds a query or a fragment"
            }
            () if authority.scheme() == "http" && !url::is_loopback(authority) => {
                "would send a credential unencrypted: plain `http://` is for loopback"
            }
            () => return None,
        };
        let hint = r#"scheme and host, such as "https://login.microsoftonline.com""#;
        Some(Problem::at("authority", text).hint(hint))
    }
}

/// All permissions that the application has been given.
const DEFAULT: &str = "/.default";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cloud_has_its_authority_and_its_scope() {
        for (cloud, authority, resource) in [
            (Cloud::Public, "https://login.microsoftonline.com/", "https://monitor.azure.com"),
            (Cloud::Usgov, "https://login.microsoftonline.us/", "https://monitor.azure.us"),
            (Cloud::China, "https://login.chinacloudapi.cn/", "https://monitor.azure.cn"),
        ] {
            let place = Place::of(cloud, None, None);

            assert_eq!(place.authority.as_str(), authority);
            assert_eq!(place.scope, format!("{resource}/.default"));
            assert_eq!(place.resource(), resource);
            assert!(!place.is_named);
        }
    }

    #[test]
    fn what_is_named_replaces_what_belongs_to_the_cloud() {
        let authority = Url::parse("https://login.example.com/adfs").unwrap();

        let place = Place::of(Cloud::Usgov, Some(&authority), Some("api://own//.default"));

        assert_eq!(place.authority, authority);
        assert!(place.is_named);
        assert_eq!(place.resource(), "api://own/");
    }

    #[test]
    fn an_authority_is_a_place_that_nobody_listens_in_on() {
        let wrong = |text: &str| Place::check(&Url::parse(text).unwrap()).map(|found| found.text);

        assert_eq!(wrong("https://login.microsoftonline.com"), None);
        assert_eq!(wrong("http://127.0.0.1:8080/base"), None);
        assert!(wrong("http://login.microsoftonline.com").unwrap().contains("unencrypted"));
        assert!(wrong("ftp://login.example.com").is_some());
        assert!(wrong("https://me:it@login.example.com").is_some());
        assert!(wrong("https://login.example.com?a=b").is_some());
    }
}
