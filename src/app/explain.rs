//! An error of VK's API in words that say what to do. Deliberately absent: what is done about it by itself (`ingest`).

use crate::vk::{CallError, ErrorClass};

/// An error of the session call in words that say what to do.
#[must_use]
pub fn explain(error: &CallError) -> String {
    let remedy = match error {
        CallError::Api(api) => match (api.code, api.class()) {
            _ if ["long poll", "longpoll"].iter().any(|words| api.message.to_lowercase().contains(words)) => {
                "turn Long Poll on in the community's settings (API usage, Long Poll API)"
            }
            (42, _) => {
                "the token may not be used from this address: change that in the community's settings, or use another"
            }
            (29, _) => {
                "VK limits this call; it is tried again slowly; if that goes on for hours, the token may lack the right 'community management'"
            }
            (14, _) => "VK asks for a captcha, which no service can solve: use the community's own token",
            (203, _) => "check that vk.group_id (GROUPID) and vk.token (TOKEN) are of the same community",
            (5 | 27 | 28, _) => {
                "make a new token in the community's settings (API usage) and put it into vk.token (TOKEN)"
            }
            (_, ErrorClass::Alarm) => {
                "the token needs the right 'community management', and Long Poll must be on in the community's settings (API usage, Long Poll API)"
            }
            (100 | 125, _) => "check vk.group_id (GROUPID)",
            _ => return error.to_string(),
        },
        _ => return error.to_string(),
    };
    format!("{error}; {remedy}")
}
