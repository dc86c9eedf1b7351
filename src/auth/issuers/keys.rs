//! The keys of an issuer: a JWK set (RFC 7517), less what no JWT may be verified by.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::is_allowed;

/// Keys that JWTs may be verified by.
#[derive(Default)]
pub(super) struct Keys {
    all: Vec<Key>,
    /// The set as it was fetched.
    text: Vec<u8>,
}

struct Key {
    kid: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Keys {
    /// The keys of a JWK set. Those of unknown kinds, for encryption, and secrets are left out.
    pub(super) fn parse(text: Vec<u8>) -> Result<Self, serde_json::Error> {
        let set: JwkSet = serde_json::from_slice(&text)?;
        let all = set.keys.iter().filter_map(key).collect();
        Ok(Self { all, text })
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The key by which a JWT is verified. Without a `kid` it is known only where one key alone can be meant.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let fits = |key: &&Key| {
            key.algorithms.contains(&algorithm) && (kid.is_none() || key.kid.as_deref() == kid)
        };
        let mut fitting = self.all.iter().filter(fits);
        let first = fitting.next()?;
        match (kid, fitting.next()) {
            (None, Some(_)) => None,
            _ => Some(&first.key),
        }
    }
}

fn key(jwk: &Jwk) -> Option<Key> {
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return None;
    }
    let of_kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[Algorithm::ES256],
            EllipticCurve::P384 => &[Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
        _ => return None,
    };
    // A key that names its algorithm is good for that one alone.
    let named = jwk
        .common
        .key_algorithm
        .as_ref()
        .map(|named| format!("{named:?}"));
    let is_named = |algorithm: &&Algorithm| {
        named
            .as_ref()
            .is_none_or(|named| *named == format!("{algorithm:?}"))
    };
    let algorithms = of_kind
        .iter()
        .filter(|it| is_allowed(**it))
        .filter(is_named);
    Some(Key {
        kid: jwk.common.key_id.clone(),
        algorithms: algorithms.copied().collect(),
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}
