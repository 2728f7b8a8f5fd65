//! Signatures by Standard Webhooks, so that a handler knows who sent a request and when: `v1,` and the base64 of the HMAC-SHA256
//! of `id.timestamp.body`, one for each key. The only file that names the primitive.
//!
//! Deliberately absent: headers (`request`), asymmetric signatures (`v1a`), keys made here: whoever runs a handler makes one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// The shortest key that is taken, in bytes: as Standard Webhooks has it.
pub const LEAST_KEY_BYTES: usize = 24;
/// What a key begins with.
const PREFIX: &str = "whsec_";

/// A key that signs; it does not show itself.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

/// Why a text is no key, as the words after "found"; never the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It begins otherwise.
    #[error("a text that does not begin with {PREFIX}")]
    Prefix,
    /// What follows is no base64.
    #[error("what is no base64 behind {PREFIX}")]
    Base64,
    /// There is too little of it.
    #[error("a secret of {0} bytes")]
    Short(usize),
}

impl SigningKey {
    /// Reads `whsec_<base64>`: the usual alphabet, padded.
    ///
    /// # Errors
    /// When it is none, or one that could be guessed.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let base64 = text.strip_prefix(PREFIX).ok_or(KeyError::Prefix)?;
        let bytes = STANDARD.decode(base64).map_err(|_| KeyError::Base64)?;
        if bytes.len() < LEAST_KEY_BYTES {
            return Err(KeyError::Short(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn tag(&self, parts: &[&[u8]]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        parts.iter().for_each(|part| context.update(part));
        context.sign()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Equal keys sign alike, and only they do.
impl PartialEq for SigningKey {
    fn eq(&self, other: &Self) -> bool {
        self.tag(&[]).as_ref() == other.tag(&[]).as_ref()
    }
}

/// The signatures of a request, one a key, with blanks between: the value of `webhook-signature`.
#[must_use]
pub fn signatures(keys: &[SigningKey], id: &[u8], timestamp: &[u8], body: &[u8]) -> String {
    let sign =
        |key: &SigningKey| format!("v1,{}", STANDARD.encode(key.tag(&[id, b".", timestamp, b".", body]).as_ref()));
    keys.iter().map(sign).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The vector that the libraries of Standard Webhooks test themselves by.
    #[test]
    fn a_signature_is_the_one_of_standard_webhooks() {
        let key = SigningKey::parse(KEY).expect("a key");
        let sign = |keys: &[SigningKey]| {
            signatures(keys, b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330", br#"{"test": 2432232314}"#)
        };
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(sign(std::slice::from_ref(&key)), expected);
        let other = SigningKey::parse("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX").expect("a key");
        assert!(key != other && key == key.clone());
        let both = sign(&[key, other]);
        let (first, second) = both.split_once(' ').expect("two");
        assert!(first == expected && second.starts_with("v1,") && second != first, "{both}");
    }

    #[test]
    fn what_is_no_key_is_told_without_showing_it() {
        let check =
            |text: &str, expected: &str| assert_eq!(SigningKey::parse(text).expect_err(text).to_string(), expected);
        check("", "a text that does not begin with whsec_");
        check("WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a text that does not begin with whsec_");
        check("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "what is no base64 behind whsec_");
        check("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_", "what is no base64 behind whsec_");
        check("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", "what is no base64 behind whsec_");
        check("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRY=", "a secret of 23 bytes");
        check("whsec_", "a secret of 0 bytes");
        assert_eq!(format!("{:?}", SigningKey::parse(KEY).expect("a key")), "[secret]");
    }
}
