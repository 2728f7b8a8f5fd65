//! Bytes to text that a JSON parser takes: invalid UTF-8 and escaped lone surrogates become U+FFFD. Knows of JSON only how
//! a backslash works. Deliberately absent: parsing.

use std::borrow::Cow;

/// Text of an answer; borrowed when nothing was wrong with it.
#[must_use]
pub fn mend(bytes: &[u8]) -> Cow<'_, str> {
    // A lossy reading goes byte by byte even over sound text, a strict one does not.
    match std::str::from_utf8(bytes) {
        Ok(text) => mend_surrogates(text),
        Err(_) => Cow::Owned(mend_surrogates(&String::from_utf8_lossy(bytes)).into_owned()),
    }
}

/// Replaces escapes of lone surrogates (`\ud83d` without its mate) by the escape of U+FFFD.
#[must_use]
pub(super) fn mend_surrogates(text: &str) -> Cow<'_, str> {
    // Most texts have no such escape at all: that takes one fast look.
    if !text.contains("\\u") || !(text.contains("\\ud") || text.contains("\\uD")) {
        return Cow::Borrowed(text);
    }
    let mut mended = String::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        match (unit(text, at), unit(text, at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 12,
            (Some(0xd800..=0xdfff), _) => {
                mended.push_str(text.get(kept..at).unwrap_or_default());
                mended.push_str("\\ufffd");
                at += 6;
                kept = at;
            }
            (Some(_), _) => at += 6,
            // The escaped character may be a backslash itself: step over both. It may also be several bytes long.
            (None, _) => at += 1 + text.get(at + 1..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8),
        }
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    mended.push_str(text.get(kept..).unwrap_or_default());
    Cow::Owned(mended)
}

/// The UTF-16 unit that is escaped at `at`, if one is.
fn unit(text: &str, at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
    if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) { u16::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_lone_is_replaced_and_nothing_else() {
        let check =
            |bytes: &[u8], expected: &str| assert_eq!(mend(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        check(b"plain", "plain");
        check(br#""\ud83d\ude00""#, r#""\ud83d\ude00""#);
        check(br#""\uD83D\uDE00""#, r#""\uD83D\uDE00""#);
        check(br#""\ud83d""#, r#""\ufffd""#);
        check(br#""\ude00\ud83d""#, r#""\ufffd\ufffd""#);
        check(br#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#);
        check(br#""\ud83d\u0041""#, r#""\ufffd\u0041""#);
        check(br#""\\ud83d""#, r#""\\ud83d""#);
        check(br#""\\\ud83d""#, r#""\\\ufffd""#);
        check(br#""\ud83"#, r#""\ud83"#);
        check(b"\"\xd0\"", "\"\u{fffd}\"");
        check(b"\"\xd0\\ud83d\"", "\"\u{fffd}\\ufffd\"");
    }

    proptest! {
        #[test]
        fn what_was_mended_needs_no_mending(text in r#"(\\u[dD][89a-fA-F][0-9a-f]{2}|\\\\|\\|u|d|x|й|"){0,20}"#) {
            let once = mend(text.as_bytes()).into_owned();
            prop_assert_eq!(mend(once.as_bytes()), once.as_str());
        }

        #[test]
        fn a_text_with_any_surrogates_parses_once_mended(units in prop::collection::vec(0xd700u16..0xe100, 0..12)) {
            let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let json = format!("\"{escaped}\"");
            prop_assert!(serde_json::from_str::<String>(&mend(json.as_bytes())).is_ok());
        }

        #[test]
        fn any_bytes_become_text(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(mend(&bytes));
        }
    }
}
