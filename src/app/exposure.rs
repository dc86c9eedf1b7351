//! Start rules: a server that other machines reach says how its callers are known, and how what they say is kept
//! secret, or that neither is.

use super::Config;
use super::listeners::Bound;

/// Why a server does not start, in words for its administrator.
pub(super) fn refusal(bound: &[Bound], config: &Config) -> Option<String> {
    if config.require_auth && config.insecure_allow_anonymous {
        return Some(
            "--require-auth and --insecure-allow-anonymous contradict each other".to_owned(),
        );
    }
    let open: Vec<String> = outside(bound).map(Bound::to_string).collect();
    if open.is_empty() {
        return None;
    }
    let has_tls = config.tls.is_some();
    let no_tls = !has_tls && !config.insecure_plaintext && config.trusted_proxies.is_empty();
    let no_identity = !config.require_auth && !config.insecure_allow_anonymous;
    let mut lines = Vec::new();
    if no_tls {
        lines.push(
            "there is no TLS: give --tls-cert and --tls-key, or --tls-self-signed; behind a proxy \
             --trusted-proxy; or --insecure-plaintext, which sends tokens and images unencrypted",
        );
    }
    if no_identity {
        lines.push(
            "callers need not say who they are: give --require-auth; or --insecure-allow-anonymous, which lets \
             whoever reaches the address do everything",
        );
    }
    if config.insecure_allow_anonymous && config.allow_hosts.is_empty() {
        lines.push(
            "without identity --allow-host NAME must say by which names clients ask for this server: a web page \
             could reach it by another name that points here (DNS rebinding)",
        );
    }
    if lines.is_empty() {
        return None;
    }
    let open = open.join(" and ");
    Some(format!(
        "other machines reach {open}, and\n  {}",
        lines.join("\n  ")
    ))
}

/// Says loudly what is insecure.
pub(super) fn warn(bound: &[Bound], config: &Config) {
    if config.insecure_plaintext {
        tracing::warn!("--insecure-plaintext: tokens and images travel unencrypted");
    }
    if config.insecure_allow_anonymous {
        tracing::warn!("--insecure-allow-anonymous: nobody is asked who they are");
    }
    for address in outside(bound) {
        if !config.require_auth {
            tracing::warn!(
                %address,
                "this server asks for no tokens: whoever reaches the address may do everything"
            );
        }
        if is_for_proxies(config) {
            tracing::info!(%address, "without TLS only trusted proxies may connect here");
        }
    }
}

/// Whether listeners without TLS that other machines reach are for trusted proxies alone.
pub(super) fn is_for_proxies(config: &Config) -> bool {
    config.tls.is_none() && !config.insecure_plaintext
}

fn outside(bound: &[Bound]) -> impl Iterator<Item = &Bound> {
    bound.iter().filter(|bound| !bound.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Data;
    use crate::tls::{Certificate, TlsSettings};

    #[test]
    fn a_server_that_others_reach_has_tls_and_identity_or_says_that_it_has_not() {
        const TLS: &str = "--tls-cert";
        const IDENTITY: &str = "--require-auth;";
        const HOST: &str = "--allow-host NAME";
        let cases: &[(&[&str], &[&str])] = &[
            (&[], &[TLS, IDENTITY]),
            (&["tls"], &[IDENTITY]),
            (&["plaintext"], &[IDENTITY]),
            (&["proxy"], &[IDENTITY]),
            (&["auth"], &[TLS]),
            (&["anonymous"], &[TLS, HOST]),
            (&["anonymous", "host"], &[TLS]),
            (&["tls", "anonymous"], &[HOST]),
            (&["tls", "auth"], &[]),
            (&["plaintext", "auth"], &[]),
            (&["proxy", "auth"], &[]),
            (&["tls", "anonymous", "host"], &[]),
            (&["plaintext", "anonymous", "host"], &[]),
            (&["proxy", "anonymous", "host"], &[]),
            (&["auth", "anonymous", "tls", "host"], &["contradict"]),
        ];
        for (given, expected) in cases {
            let has = |name: &str| given.contains(&name);
            let mut config = Config::new(Data::Ephemeral);
            config.tls = has("tls").then(|| TlsSettings::new(Certificate::SelfSigned));
            config.insecure_plaintext = has("plaintext");
            config.require_auth = has("auth");
            config.insecure_allow_anonymous = has("anonymous");
            if has("proxy") {
                config.trusted_proxies = vec!["10.0.0.1".parse().unwrap()];
            }
            if has("host") {
                config.allow_hosts = vec!["images.example".parse().unwrap()];
            }
            for address in ["0.0.0.0:80", "[::]:80", "192.0.2.1:80", "[2001:db8::1]:80"] {
                let bound = [Bound::Tcp(address.parse().unwrap())];
                let refused = refusal(&bound, &config).unwrap_or_default();
                assert_eq!(
                    refused.is_empty(),
                    expected.is_empty(),
                    "{given:?}: {refused}"
                );
                for words in [TLS, IDENTITY, HOST, "contradict"] {
                    let said = refused.contains(words);
                    assert_eq!(
                        said,
                        expected.contains(&words),
                        "{given:?} {words}: {refused}"
                    );
                }
            }
            let loopback = [
                "127.0.0.1:80",
                "127.9.9.9:80",
                "[::1]:80",
                "[::ffff:127.0.0.1]:80",
            ];
            let mut loopback: Vec<_> = loopback.map(|it| Bound::Tcp(it.parse().unwrap())).into();
            loopback.push(Bound::Unix("/run/a.sock".into()));
            let contradicts = expected == &["contradict"];
            assert_eq!(
                refusal(&loopback, &config).is_some(),
                contradicts,
                "{given:?}"
            );
        }
    }
}
