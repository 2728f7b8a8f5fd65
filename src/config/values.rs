//! The values that people write as text: offsets, addresses, levels, names of headers; and how much of a wrong value may be
//! shown. Pure. Deliberately absent: paths, problems, defaults.

use std::net::IpAddr;

use chrono::FixedOffset;
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use toml::Value;
use tracing::Level;

/// How many characters of a wrong value are shown.
const SHOWN_CHARS: usize = 80;
/// The furthest offset from UTC that any place on earth keeps, in seconds.
const OFFSET_SECONDS: i32 = 14 * 3600;
/// How many characters the service's name has at most.
const NAME_CHARS: usize = 128;
/// Headers that the service sets, or HTTP itself. Those that begin with `webhook-` and `x-event-` are ours as well.
const TAKEN_HEADERS: [&str; 9] =
    ["connection", "content-length", "content-type", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"];

/// A wrong value, as the words after "found".
pub(super) fn shown(value: &Value) -> String {
    let cut = |text: &str| match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    };
    match value {
        Value::String(text) if looks_secret(text) => "a text that looks like a secret (not shown)".to_owned(),
        Value::String(text) => cut(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(", ")),
        other => format!("a value of type {}", other.type_str()),
    }
}

/// Whether a text in the wrong place is likely to be a secret: VK's tokens begin like this, headers' values like that.
pub(super) fn looks_secret(text: &str) -> bool {
    let lower = text.trim_start().to_ascii_lowercase();
    ["vk1.", "vk2.", "bearer ", "basic ", "whsec_"].iter().any(|start| lower.starts_with(start))
}

/// An address as it may be shown: without a user, a password, a query or a fragment.
pub(super) fn shown_address(text: &str) -> String {
    let end = text.find(['?', '#']).unwrap_or(text.len());
    let more = if end < text.len() { "?…" } else { "" };
    let (scheme, rest) = text[..end].split_once("//").unwrap_or(("", &text[..end]));
    let slashes = if scheme.is_empty() { "" } else { "//" };
    let rest = rest.rsplit_once('@').map_or(rest.to_owned(), |(_, rest)| format!("…@{rest}"));
    shown(&Value::String(format!("{scheme}{slashes}{rest}{more}")))
}

/// An http or https address with a host.
pub(super) fn http_address(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "an address like http://host:port/path")?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err("an address that begins with http:// or https://"),
    }
}

/// Whether an address is one without TLS.
pub(super) fn is_plain_http(text: &str) -> bool {
    http_address(text).is_ok_and(|url| url.scheme() == "http")
}

/// Where a handler is. Its user and password would be seen wherever the address is shown.
pub(super) fn handler_address(text: &str) -> Result<String, &'static str> {
    let url = http_address(text)?;
    if url.username().is_empty() && url.password().is_none() {
        Ok(text.trim().to_owned())
    } else {
        Err("an address without user and password (use headers.authorization or headers.authorization_file)")
    }
}

/// The base of an API, without a slash at its end; plain http only where nobody listens on the way.
pub(super) fn api_address(text: &str) -> Result<String, &'static str> {
    let url = http_address(text)?;
    if url.scheme() == "http" && !url.host_str().is_some_and(is_near) {
        return Err(
            "https, so that the token does not travel in the clear (http is for loopback and private addresses)",
        );
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err("an address without user, query and fragment: /method/… is put behind it");
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Whether a host is this machine or in a private network.
fn is_near(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => host == "localhost",
    }
}

/// A version of VK's API such as `5.199`.
pub(super) fn api_version(text: &str) -> Option<String> {
    let digits = |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let (major, minor) = text.split_once('.')?;
    (digits(major) && digits(minor)).then(|| text.to_owned())
}

/// An offset from UTC such as `+03:00`.
pub(super) fn utc_offset(text: &str) -> Option<FixedOffset> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |text: &str| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse::<i32>().ok() } else { None }
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let seconds = hours * 3600 + minutes * 60;
    if minutes > 59 || seconds > OFFSET_SECONDS { None } else { FixedOffset::east_opt(sign * seconds) }
}

/// A number of bytes such as `256MiB`, `1.5 GiB`, `500MB` or `4096`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let fine = !whole.is_empty() && part.len() <= 6 && part.is_empty() != number.contains('.');
    let millionths = format!("{part:0<6}").parse::<u64>().ok().filter(|_| fine)?;
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    whole.checked_add(u64::try_from(u128::from(millionths) * u128::from(scale) / 1_000_000).ok()?)
}

/// A name that people and records can carry.
pub(super) fn service_name(text: &str) -> Option<String> {
    let fine = (1..=NAME_CHARS).contains(&text.chars().count()) && !text.chars().any(char::is_control);
    (fine && text.trim() == text).then(|| text.to_owned())
}

/// Whether a text can be a token: one that picked up blanks or line ends on its way here would be refused by VK.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The name of a level.
pub(super) fn level(text: &str) -> Option<Level> {
    match text.to_ascii_lowercase().as_str() {
        "error" => Some(Level::ERROR),
        "warn" => Some(Level::WARN),
        "info" => Some(Level::INFO),
        "debug" => Some(Level::DEBUG),
        "trace" => Some(Level::TRACE),
        _ => None,
    }
}

/// The name of a header in lower case, unless the service or HTTP itself sets that one; the error is what was expected.
pub(super) fn header_name(text: &str) -> Result<String, &'static str> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| "the name of a header, like authorization")?;
    let ours =
        |name: &str| TAKEN_HEADERS.contains(&name) || name.starts_with("webhook-") || name.starts_with("x-event-");
    if ours(name.as_str()) {
        Err("a header that the service does not set itself")
    } else {
        Ok(name.as_str().to_owned())
    }
}

/// Whether a header can carry a value.
pub(super) fn is_header_value(text: &str) -> bool {
    !text.is_empty() && text.is_ascii() && HeaderValue::from_str(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_a_sign_hours_and_minutes() {
        fn check(text: &str, expected: Option<i32>) {
            assert_eq!(utc_offset(text).map(|offset| offset.local_minus_utc()), expected, "{text}");
        }
        check("+03:00", Some(10_800));
        check("-09:30", Some(-34_200));
        check("+00:00", Some(0));
        check("+14:00", Some(50_400));
        check("+14:01", None);
        check("+05:60", None);
        check("3", None);
        check("03:00", None);
        check("+3:00", None);
        check("++3:00", None);
        check("+0+:00", None);
        check("+0300", None);
        check("Москва", None);
        check("", None);
    }

    #[test]
    fn bytes_are_a_number_and_a_unit() {
        let all = ["8GiB", "1.5 MiB", "500MB", "4096", "0", "1TiB"].map(bytes);
        assert_eq!(all, [8 << 30, 3 << 19, 500_000_000, 4096, 0, 1 << 40].map(Some));
        for wrong in ["", "GiB", "-1", "1,5GiB", "1.GiB", "1..2GiB", ".5GiB", "8 gib", "99999999TiB", "1e3"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_api_is_asked_in_the_clear_only_nearby() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(api_address(text).ok().as_deref(), expected, "{text}");
        }
        check("https://api.vk.ru", Some("https://api.vk.ru"));
        check("https://api.vk.ru/", Some("https://api.vk.ru"));
        check("http://127.0.0.1:8080", Some("http://127.0.0.1:8080"));
        check("http://localhost:8080/vk/", Some("http://localhost:8080/vk"));
        check("http://172.19.0.5", Some("http://172.19.0.5"));
        check("http://[::1]:80", Some("http://[::1]"));
        check("http://[fd00::1]", Some("http://[fd00::1]"));
        check("http://[::ffff:10.0.0.1]", Some("http://[::ffff:a00:1]"));
        check("http://api.vk.ru", None);
        check("http://8.8.8.8", None);
        check("http://172.32.0.1", None);
        check("http://localhost.example.org", None);
        check("http://[2001:db8::1]", None);
        check("https://api.vk.ru?x=1", None);
        check("https://user:word@api.vk.ru", None);
        check("ftp://127.0.0.1", None);
        check("api.vk.ru", None);
        check("https://", None);
    }

    #[test]
    fn an_address_is_shown_without_what_could_be_a_secret() {
        fn check(text: &str, expected: &str) {
            assert_eq!(shown_address(text), expected);
        }
        check("ftp://h/path", "\"ftp://h/path\"");
        check("http://user:word@h/p?key=word#word", "\"http://…@h/p?…\"");
        check("user:word@h", "\"…@h\"");
        check("nonsense", "\"nonsense\"");
        check("", "\"\"");
        check("vk1.a.b", "a text that looks like a secret (not shown)");
        check(&"x".repeat(300), &format!("\"{}\"…", "x".repeat(80)));
    }

    #[test]
    fn headers_that_are_ours_cannot_be_set() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(header_name(text).ok().as_deref(), expected, "{text}");
        }
        check("Authorization", Some("authorization"));
        check("x-api-key", Some("x-api-key"));
        check("Content-Type", None);
        check("Webhook-Id", None);
        check("X-Event-Seq", None);
        check("host", None);
        check("two words", None);
        check("", None);
    }

    #[test]
    fn a_header_carries_one_line_of_ascii() {
        assert!(is_header_value("Bearer x"));
        assert!(!is_header_value("a\r\nb"));
        assert!(!is_header_value("слово"));
        assert!(!is_header_value(""));
    }

    #[test]
    fn a_token_has_no_blanks_in_it() {
        assert!(is_token("vk1.a.x-_"));
        assert!(!is_token("vk1 a"));
        assert!(!is_token("vk1\n"));
        assert!(!is_token(""));
    }

    #[test]
    fn a_version_is_two_numbers() {
        assert_eq!(api_version("5.199").as_deref(), Some("5.199"));
        for bad in ["5", "5.", "v5.199", "5.199.1", ""] {
            assert_eq!(api_version(bad), None, "{bad}");
        }
    }
}
