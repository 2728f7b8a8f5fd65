//! `check`: what the configuration says, and with `--online` what VK says to it.

use super::exit::{Exit, Failure, say};
use super::render::{table, text};
use crate::app::ingest::explain;
use crate::app::settings::Settings;
use crate::config::Loaded;
use crate::domain::route::{Condition, Rule};
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
    rule.0.iter().map(condition).collect::<Vec<_>>().join("; or ")
}

fn condition(table: &Condition) -> String {
    let numbers = |name: &str, list: &Option<Vec<i64>>| {
        list.as_ref()
            .map(|list| format!("{name} {}", list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")))
    };
    let types = table.event_type.as_ref().map(|types| types.join(", "));
    let all: Vec<String> =
        [types, numbers("chat", &table.chat_id), numbers("peer", &table.peer_id)].into_iter().flatten().collect();
    if all.is_empty() { "every event".to_owned() } else { all.join(" and ") }
}

async fn ask_vk(settings: &Settings) -> Result<Exit, Failure> {
    let client =
        Client::new(&settings.vk).map_err(|error| Failure { words: error.to_string(), exit: Exit::Configuration })?;
    client.session().await.map_err(|error| refused(&error))?;
    say("\nVK gives a Long Poll session: token and rights are fine.\n")?;
    let told = client.long_poll_settings().await.map_err(|error| refused(&error))?;
    let rules: Vec<_> = settings.destinations.iter().map(|(to, rule)| (to.name.as_str(), rule)).collect();
    let words = advice(&told, &rules);
    if !told.is_enabled {
        return Err(Failure::new(words.join("\nevent-router: ")));
    }
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
        CallError::Api(_) | CallError::Unreadable(_) | CallError::TooLarge => Exit::Failed,
        CallError::Network(_) | CallError::Timeout | CallError::Http(_) => Exit::Unavailable,
    };
    Failure { words: explain(error), exit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        assert_eq!(without_secrets("http://me:word@host:1/x?key=k"), "http://host:1/x?%E2%80%A6");
        assert_eq!(without_secrets("http://host:1/x"), "http://host:1/x");
    }

    #[test]
    fn what_a_destination_takes_is_told_in_words() {
        let types = Condition {
            event_type: Some(vec!["message_new".into()]),
            chat_id: Some(vec![2, 3]),
            ..Condition::default()
        };
        let peer = Condition { peer_id: Some(vec![7]), ..Condition::default() };
        assert_eq!(takes(&Rule(vec![types, peer])), "message_new and chat 2, 3; or peer 7");
        assert_eq!(takes(&Rule::default()), "every event");
    }
}
