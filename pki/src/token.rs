//! Tokens that let a node join: the authority's hash, and a bootstrap token.

use std::fmt;
use std::str::FromStr;

use rand::Rng;

use crate::PkiError;

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const PREFIX: &str = "gantry-";

/// A bootstrap token as upstream knows it: `abcdef.0123456789abcdef`.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    /// The public half: names the secret `kube-system/bootstrap-token-<id>`.
    pub id: String,
    /// The secret half.
    pub secret: String,
}

impl BootstrapToken {
    /// A new random one.
    pub fn generate() -> Self {
        Self { id: random_text(6), secret: random_text(16) }
    }
}

impl fmt::Display for BootstrapToken {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}.{}", self.id, self.secret)
    }
}

impl FromStr for BootstrapToken {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let (id, secret) = text.split_once('.').ok_or(PkiError::Token("it has no dot"))?;
        let valid = |part: &str, length| part.len() == length && part.bytes().all(|b| ALPHABET.contains(&b));
        if !valid(id, 6) || !valid(secret, 16) {
            return Err(PkiError::Token("its last part is not of the form abcdef.0123456789abcdef"));
        }
        Ok(Self { id: id.to_string(), secret: secret.to_string() })
    }
}

/// What a node needs to join: whom to trust, and what to say.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the authority's certificate, hex.
    pub authority_hash: String,
    /// What the node authenticates with until it has its own certificate.
    pub bootstrap: BootstrapToken,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{PREFIX}{}.{}", self.authority_hash, self.bootstrap)
    }
}

impl FromStr for JoinToken {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let rest =
            text.trim().strip_prefix(PREFIX).ok_or(PkiError::Token("it does not begin with gantry-"))?;
        let (hash, bootstrap) = rest.split_once('.').ok_or(PkiError::Token("it has no dot"))?;
        if hash.len() != 64 || hex::decode(hash).is_err() {
            return Err(PkiError::Token("its first part is not a SHA-256 hash"));
        }
        Ok(Self { authority_hash: hash.to_string(), bootstrap: bootstrap.parse()? })
    }
}

fn random_text(length: usize) -> String {
    let mut random = rand::rng();
    (0..length)
        .filter_map(|_| ALPHABET.get(random.random_range(0..ALPHABET.len())))
        .map(|b| char::from(*b))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let token = JoinToken { authority_hash: "ab".repeat(32), bootstrap: BootstrapToken::generate() };
        assert!(token.to_string().parse::<JoinToken>().unwrap() == token);
    }

    #[test]
    fn a_cut_or_foreign_token_is_refused_with_the_reason() {
        let whole =
            JoinToken { authority_hash: "ab".repeat(32), bootstrap: BootstrapToken::generate() }.to_string();
        let cut = &whole[..whole.len() - 3];
        assert!(cut.parse::<JoinToken>().err().unwrap().to_string().contains("abcdef.0123456789abcdef"));
        assert!("K10aa::server:bb".parse::<JoinToken>().err().unwrap().to_string().contains("gantry-"));
    }
}
