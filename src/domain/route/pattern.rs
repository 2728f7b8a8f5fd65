//! Regular expressions of `text_regex`. Their matching is linear in the text and their size has a limit, so that neither a
//! message nor a pattern can hold the service up. Deliberately absent: look-around and references back, which cannot be
//! had in linear time.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// How large a pattern may be once it is compiled, in bytes; one of some hundred letters has a tenth of it.
const COMPILED_BYTES: usize = 1 << 20;

/// A regular expression that is looked for anywhere in a text.
#[derive(Clone)]
pub struct Pattern(Regex);

/// What is wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// It is none.
    #[error("{what} at {place}")]
    Syntax {
        /// What is wrong.
        what: String,
        /// Where, counted in characters from 1.
        place: String,
    },
    /// It becomes too large.
    #[error("more than {COMPILED_BYTES} bytes once it is compiled")]
    TooLarge,
}

impl Pattern {
    /// Reads a pattern as the crate `regex` writes it.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        match RegexBuilder::new(text).size_limit(COMPILED_BYTES).build() {
            Ok(regex) => Ok(Self(regex)),
            Err(regex::Error::CompiledTooBig(_)) => Err(BadPattern::TooLarge),
            Err(other) => Err(broken(text, &other)),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether something in the text matches.
    #[must_use]
    pub fn is_found_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// The error of `regex` is a drawing of several lines; the parser below it tells the same as facts.
fn broken(text: &str, error: &regex::Error) -> BadPattern {
    let (what, span) = match regex_syntax::parse(text) {
        Err(regex_syntax::Error::Parse(error)) => (error.kind().to_string(), Some(*error.span())),
        Err(regex_syntax::Error::Translate(error)) => (error.kind().to_string(), Some(*error.span())),
        _ => (error.to_string(), None),
    };
    let place = match span.map(|span| span.start) {
        Some(start) if text.contains('\n') => format!("line {}, character {}", start.line, start.column),
        Some(start) => format!("character {}", start.column),
        None => "an unknown place".to_owned(),
    };
    BadPattern::Syntax { what, place }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_anywhere_with_its_capitals_unless_it_says_otherwise() {
        fn check(pattern: &str, text: &str, found: bool) {
            assert_eq!(Pattern::parse(pattern).expect("a pattern").is_found_in(text), found, "{pattern} in {text}");
        }
        check("бан", "забанить", true);
        check("^бан", "забанить", false);
        check("бан", "БАН", false);
        check("(?i)бан", "БАН", true);
        check(r"\bбан\b", "бан!", true);
        check(r"\p{Cyrillic}", "ban", false);
        check("^$", "", true);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        fn check(pattern: &str, expected: &str) {
            assert_eq!(Pattern::parse(pattern).expect_err("refused").to_string(), expected, "{pattern}");
        }
        check("a(b", "unclosed group at character 2");
        check("да[", "unclosed character class at character 3");
        check("a\n(", "unclosed group at line 2, character 1");
        check(r"\p{Klingon}", "Unicode property not found at character 1");
        check("(?=a)", "look-around, including look-ahead and look-behind, is not supported at character 1");
        check(r"(a)\1", "backreferences are not supported at character 4");
        check(r"(\w{1000}){1000}", "more than 1048576 bytes once it is compiled");
    }
}
