//! One sealed value: AES-256-GCM under a key of its own.
//!
//! Every value gets a random salt, from which its key is derived (HKDF-SHA256): no nonce is ever used twice, however many
//! values one master key seals. The store's key is authenticated along, so that a value moved to another place does not
//! open there.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};

/// What a sealed value begins with. No JSON does.
const MAGIC: &[u8] = b"gantry:sealed:1:";
const ID_LENGTH: usize = 8;
const SALT_LENGTH: usize = 32;
const PURPOSE: &[u8] = b"gantry values at rest, AES-256-GCM";

/// A value that cannot be sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CipherError {
    /// The key that it was sealed with is not at hand.
    #[error("it was sealed with the key {0}, which is not there")]
    UnknownKey(String),
    /// It is cut short, was changed, or was moved from elsewhere.
    #[error("it does not open: it is damaged, or has been moved here from another place")]
    Damaged,
    /// The system gave no random bytes.
    #[error("the system has no random bytes")]
    Random,
}

/// A master key.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// The beginning of its hash: what sealed values say of their key.
    pub id: String,
    material: [u8; 32],
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    /// A key that nobody has seen.
    pub fn generate() -> Result<Self, CipherError> {
        let mut material = [0; 32];
        SystemRandom::new().fill(&mut material).map_err(|_| CipherError::Random)?;
        Ok(Self::of(material))
    }

    /// Reads 32 bytes in base64.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.trim()).ok()?;
        bytes.try_into().ok().map(Self::of)
    }

    /// As a key file has it.
    pub fn to_text(&self) -> String {
        STANDARD.encode(self.material)
    }

    fn of(material: [u8; 32]) -> Self {
        let hash = Sha256::new().chain_update(b"gantry key id").chain_update(material).finalize();
        let id = hash.iter().take(ID_LENGTH / 2).map(|byte| format!("{byte:02x}")).collect();
        Self { id, material }
    }

    fn derive(&self, salt: &[u8]) -> Result<LessSafeKey, CipherError> {
        let extracted = Salt::new(HKDF_SHA256, salt).extract(&self.material);
        let expanded = extracted.expand(&[PURPOSE], &AES_256_GCM).map_err(|_| CipherError::Damaged)?;
        Ok(LessSafeKey::new(UnboundKey::from(expanded)))
    }

    /// Seals a value for a place.
    pub fn seal(&self, place: &str, value: &[u8]) -> Result<Vec<u8>, CipherError> {
        let mut salt = [0; SALT_LENGTH];
        SystemRandom::new().fill(&mut salt).map_err(|_| CipherError::Random)?;
        let mut sealed = value.to_vec();
        self.derive(&salt)?
            .seal_in_place_append_tag(only_nonce(), Aad::from(place.as_bytes()), &mut sealed)
            .map_err(|_| CipherError::Damaged)?;
        Ok([MAGIC, self.id.as_bytes(), &salt, &sealed].concat())
    }
}

/// The key is used once, so that one nonce is enough.
fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// The id of the key that a value is sealed with; `None` when it is not sealed.
pub(super) fn key_of(value: &[u8]) -> Option<&str> {
    let id = value.strip_prefix(MAGIC)?.get(..ID_LENGTH)?;
    std::str::from_utf8(id).ok()
}

/// Opens a sealed value; one that is not sealed is `None`.
pub(super) fn open(keys: &[Key], place: &str, value: &[u8]) -> Result<Option<Vec<u8>>, CipherError> {
    let Some(rest) = value.strip_prefix(MAGIC) else { return Ok(None) };
    let id = key_of(value).ok_or(CipherError::Damaged)?;
    let key = keys.iter().find(|key| key.id == id).ok_or_else(|| CipherError::UnknownKey(id.to_string()))?;
    let (salt, sealed) = rest
        .get(ID_LENGTH..)
        .and_then(|rest| rest.split_at_checked(SALT_LENGTH))
        .ok_or(CipherError::Damaged)?;
    let mut buffer = sealed.to_vec();
    let length = key
        .derive(salt)?
        .open_in_place(only_nonce(), Aad::from(place.as_bytes()), &mut buffer)
        .map_err(|_| CipherError::Damaged)?
        .len();
    buffer.truncate(length);
    Ok(Some(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_whole_in_its_place_and_with_its_key() {
        let (key, other) = (Key::generate().unwrap(), Key::generate().unwrap());
        let sealed = key.seal("/registry/core/secrets/ns/a", b"{\"data\":1}").unwrap();
        let again = key.seal("/registry/core/secrets/ns/a", b"{\"data\":1}").unwrap();
        assert_ne!(sealed, again, "nobody sees that two values are the same");
        assert!(!sealed.windows(4).any(|window| window == b"data"));
        let keys = [other.clone(), key.clone()];
        let opened = open(&keys, "/registry/core/secrets/ns/a", &sealed).unwrap();
        assert_eq!(opened.as_deref(), Some(b"{\"data\":1}".as_slice()));
        assert_eq!(open(&keys, "/registry/core/secrets/ns/b", &sealed), Err(CipherError::Damaged));
        assert_eq!(
            open(&[other], "/registry/core/secrets/ns/a", &sealed),
            Err(CipherError::UnknownKey(key.id.clone()))
        );
        for position in [MAGIC.len() + ID_LENGTH, sealed.len() - 1, sealed.len() - 20] {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert_eq!(open(&keys, "/registry/core/secrets/ns/a", &changed), Err(CipherError::Damaged));
        }
        assert_eq!(open(&keys, "p", &sealed[..MAGIC.len() + 3]), Err(CipherError::Damaged));
        assert_eq!(
            open(&keys, "p", b"{\"kind\":\"Secret\"}"),
            Ok(None),
            "what is not sealed is read as it is"
        );
    }

    #[test]
    fn a_key_survives_its_text_and_shows_itself_to_nobody() {
        let key = Key::generate().unwrap();
        assert_eq!(Key::parse(&key.to_text()), Some(key.clone()));
        assert_eq!(Key::parse("c2hvcnQ="), None);
        assert_eq!(format!("{key:?}"), format!("Key({})", key.id));
    }
}
