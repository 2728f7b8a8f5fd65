//! `check`: what the configuration says, and with `--online` what VK says to it.

use super::exit::{Exit, Failure, say};
use super::render::{table, text};
use crate::app::explain::explain;
use crate::app::settings::Settings;
use crate::config::Loaded;
use crate::domain::route::{Conditions, Rule, Table};
use crate::vk::community::advice;
use crate::vk::wire::ErrorClass;
use crate::vk::{CallError, Client};

pub(super) async fn run(loaded: Loaded, online: bool) -> Result<Exit, Failure> {
    let settings = loaded.service()?;
    let mut rows = table(&["DESTINATION", "URL", "TAKES"]);
    for (to, rule) in &settings.destinations {
        rows.add_row([to.name.as_str(), &without_secrets(&to.url), &takes(rule)]);
    }
    say(&format!(
        "The configuration is fine.\n\nservice    {}\ncommunity  {} at {}, API {}\noutbox     {}\n\n{}",
        settings.service_name,
        settings.vk.group_id,
        settings.vk.api_url,
        settings.vk.api_version,
        settings.outbox.dir.display(),
        text(&rows)
    ))?;
    if online { ask_vk(&settings).await } else { Ok(Exit::Done) }
}

/// A URL without what may be a password in it.
fn without_secrets(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else { return "?".to_owned() };
    if url.password().is_some() || !url.username().is_empty() {
        // Such a URL has a host, so both can be set.
        let _set = (url.set_username(""), url.set_password(None));
    }
    if url.query().is_some() {
        url.set_query(Some("…"));
    }
    url.to_string()
}

fn takes(rule: &Rule) -> String {
    if rule.0.is_empty() {
        return "every event".to_owned();
    }
    rule.0.iter().map(table_words).collect::<Vec<_>>().join("; or ")
}

fn table_words(table: &Table) -> String {
    let mut all = conditions(&table.all);
    all.extend(table.not.as_ref().map(|not| format!("not ({})", conditions(not).join(" and "))));
    if all.is_empty() { "every event".to_owned() } else { all.join(" and ") }
}

fn conditions(all: &Conditions) -> Vec<String> {
    let numbers = |name: &str, list: &Option<Vec<i64>>| {
        list.as_ref()
            .map(|list| format!("{name} {}", list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
    };
    let quoted = |list: &Vec<String>| list.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(", ");
    let payload = all.payload.as_ref().map(|wanted| serde_json::Value::Object(wanted.clone()));
    let words = [
        all.event_type.as_ref().map(|types| types.join(", ")),
        numbers("chat", &all.chat_id),
        numbers("peer", &all.peer_id),
        numbers("user", &all.user_id),
        all.chat.map(|wanted| if wanted { "from a chat" } else { "not from a chat" }.to_owned()),
        all.text_prefix.as_ref().map(|prefixes| format!("text that begins with {}", quoted(prefixes))),
        all.text_regex.as_ref().map(|pattern| format!("text that matches {:?}", pattern.as_str())),
        all.attachment.as_ref().map(|kinds| format!("attachment {}", kinds.join(", "))),
        payload.map(|wanted| format!("payload with {wanted}")),
    ];
    words.into_iter().flatten().collect()
}

async fn ask_vk(settings: &Settings) -> Result<Exit, Failure> {
    let client =
        Client::new(&settings.vk).map_err(|error| Failure { words: error.to_string(), exit: Exit::Configuration })?;
    // First the settings: where Long Poll is off VK refuses the session as if the token had no right to it.
    let told = client.long_poll_settings().await.map_err(|error| refused(&error))?;
    let rules: Vec<_> = settings.destinations.iter().map(|(to, rule)| (to.name.as_str(), rule)).collect();
    let words = advice(&told, &rules);
    if !told.is_enabled {
        return Err(Failure::new(words.join("\nevent-router: ")));
    }
    client.session().await.map_err(|error| refused(&error))?;
    say("\nVK gives a Long Poll session: token and rights are fine.\n")?;
    let version = told.api_version.as_deref().unwrap_or("?");
    say(&format!("Long Poll is on; events come in the shape of API {version}.\n"))?;
    for words in words {
        say(&format!("note: {words}\n"))?;
    }
    Ok(Exit::Done)
}

fn refused(error: &CallError) -> Failure {
    let exit = match error {
        CallError::Api(api) if api.class() == ErrorClass::Alarm => Exit::Refused,
        CallError::Api(_) | CallError::Unreadable(_) | CallError::TooLarge(_) => Exit::Failed,
        CallError::Network(_) | CallError::Timeout | CallError::Http(_) => Exit::Unavailable,
    };
    Failure { words: explain(error), exit }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::route::Pattern;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        assert_eq!(without_secrets("http://me:word@host:1/x?key=k"), "http://host:1/x?%E2%80%A6");
        assert_eq!(without_secrets("http://host:1/x"), "http://host:1/x");
    }

    #[test]
    fn what_a_destination_takes_is_told_in_words() {
        let types = Conditions {
            event_type: Some(vec!["message_new".into()]),
            chat_id: Some(vec![2, 3]),
            ..Conditions::default()
        };
        let peer = Conditions { peer_id: Some(vec![7]), ..Conditions::default() };
        let payload = serde_json::json!({ "command": "start" });
        let rest = Conditions {
            user_id: Some(vec![5]),
            chat: Some(false),
            text_prefix: Some(vec!["+".into(), "-".into()]),
            text_regex: Some(Pattern::parse("ban|kick").expect("a pattern")),
            attachment: Some(vec!["photo".into()]),
            payload: payload.as_object().cloned(),
            ..Conditions::default()
        };
        let only = |all| Table { all, not: None };
        assert_eq!(takes(&Rule(vec![only(types.clone()), only(peer)])), "message_new and chat 2, 3; or peer 7");
        assert_eq!(
            takes(&Rule(vec![only(rest)])),
            r#"user 5 and not from a chat and text that begins with "+", "-" and text that matches "ban|kick" and attachment photo and payload with {"command":"start"}"#
        );
        let excluded = Table { all: Conditions::default(), not: Some(types) };
        assert_eq!(takes(&Rule(vec![excluded])), "not (message_new and chat 2, 3)");
        assert_eq!(takes(&Rule::default()), "every event");
    }
}
