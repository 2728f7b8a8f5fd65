//! Errors as the API of VK answers them: words by number, the call's own parameters sent back (the token among them, as older
//! VK did: who logs them shows it), and what some numbers carry besides. Deliberately absent: which call gets which.

use std::collections::HashMap;

use axum::Json;
use serde_json::{Value, json};

/// The words for a number.
fn words(code: i64) -> &'static str {
    match code {
        1 => "Unknown error occurred",
        3 => "Unknown method passed",
        5 => "User authorization failed: invalid access_token (4).",
        6 => "Too many requests per second",
        8 => "Invalid request",
        9 => "Flood control",
        10 => "Internal server error",
        14 => "Captcha needed",
        15 => "Access denied",
        18 => "User was deleted or banned",
        27 => "Group authorization failed",
        28 => "Application authorization failed",
        29 => "Rate limit reached",
        30 => "This profile is private",
        42 => "Access denied for this IP address",
        43 => "This section is temporary unavailable",
        100 => "One of the parameters specified was missing or invalid",
        113 => "Invalid user id",
        125 => "Invalid group id",
        203 => "Access to group denied",
        917 => "You don't have access to this chat",
        925 => "You are not admin of this chat",
        927 => "Chat does not exist",
        _ => "An error on command",
    }
}

/// An error with its own words after the usual ones.
pub(super) fn error(code: i64, detail: &str, method: &str, parameters: &HashMap<String, String>) -> Json<Value> {
    let mut sent: Vec<_> = parameters.iter().collect();
    sent.sort();
    let own = [("oauth", "1"), ("method", method)].map(|(key, value)| json!({ "key": key, "value": value }));
    let echo = sent.into_iter().map(|(key, value)| json!({ "key": key, "value": value }));
    let message = if detail.is_empty() { words(code).to_owned() } else { format!("{}: {detail}", words(code)) };
    let request_params: Vec<_> = own.into_iter().chain(echo).collect();
    let mut error = json!({ "error_code": code, "error_msg": message, "request_params": request_params });
    if code == 14 {
        error["captcha_sid"] = json!("239633676097");
        error["captcha_img"] = json!("https://api.vk.ru/captcha.php?sid=239633676097&s=1");
    }
    if code == 15 {
        error["error_subcode"] = json!(1133);
    }
    Json(json!({ "error": error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_sends_the_token_back_and_a_captcha_what_to_solve() {
        let sent = HashMap::from([("access_token".to_owned(), "t".to_owned())]);
        let Json(told) = error(14, "", "users.get", &sent);
        let told = &told["error"];
        assert_eq!((&told["error_msg"], &told["captcha_sid"]), (&json!("Captcha needed"), &json!("239633676097")));
        assert_eq!(told["request_params"][2], json!({ "key": "access_token", "value": "t" }));
        let Json(told) = error(100, "peer_id is undefined", "x", &HashMap::new());
        let words = "One of the parameters specified was missing or invalid: peer_id is undefined";
        assert_eq!(told["error"]["error_msg"], words);
    }
}
