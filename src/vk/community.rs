//! What a community's Long Poll settings mean for the destinations: what will never come, and where to change that. Pure.
//! Deliberately absent: asking VK (`client`).

use super::wire::LongPollSettings;
use crate::domain::route::{Conditions, Rule};

/// Where people change it.
const PLACE: &str = "community settings → API usage → Long Poll API";
/// Events of versions before this one come without their wrapper; they are converted all the same.
const WRAPPED_SINCE: (u32, u32) = (5, 103);

/// What is wrong, in words; nothing when all is as the destinations need it.
#[must_use]
pub fn advice(told: &LongPollSettings, destinations: &[(&str, &Rule)]) -> Vec<String> {
    let mut words = Vec::new();
    if !told.is_enabled {
        words.push(format!("Long Poll is off, so no event comes: turn it on in the {PLACE}"));
    }
    match told.api_version.as_deref() {
        Some(version) if older(version) => words.push(format!(
            "events come in the old shape of API {version}: they are converted, but lack what newer versions tell; choose 5.199 in the {PLACE}"
        )),
        _ => {}
    }
    let is_off = |name: &str| !told.events.get(name).is_some_and(|flag| flag.0);
    let is_listed = |name: &str| told.events.is_empty() || told.events.contains_key(name);
    if told.is_enabled && told.events.values().all(|flag| !flag.0) {
        words.push(format!(
            "no type of event is on, so none comes: turn on what is needed in the {PLACE} → Event types"
        ));
        return words;
    }
    for (name, rule) in destinations {
        for wanted in wanted(rule).into_iter().filter(|wanted| is_off(setting(wanted))) {
            let setting = setting(&wanted);
            if setting == wanted && !is_listed(setting) {
                words.push(format!(
                    "destination {name} waits for {wanted}, of which VK's settings know nothing: is it spelled right? docs/EVENTS.md has all types"
                ));
                continue;
            }
            words.push(format!(
                "destination {name} waits for {wanted}, but {setting} is off, so none comes: turn it on in the {PLACE} → Event types"
            ));
        }
        for (what, types) in rule.0.iter().filter_map(|table| needs_one_of(&table.all)) {
            if types.iter().all(|name| is_off(name)) {
                words.push(format!(
                    "destination {name} chooses by {what}, but {} are off, so no message comes: turn on what is needed in the {PLACE} → Event types",
                    types.join(", ")
                ));
            }
        }
    }
    words
}

/// What conditions that name no type ask for that messages have, and the settings of which one must be on for it.
fn needs_one_of(all: &Conditions) -> Option<(&'static str, &'static [&'static str])> {
    const MESSAGES: &[&str] = &["message_new", "message_reply", "message_edit"];
    const PAYLOADS: &[&str] = &["message_new", "message_reply", "message_edit", "message_event"];
    match all {
        Conditions { event_type: Some(_), .. } => None,
        Conditions { payload: Some(_), .. } => Some(("payload", PAYLOADS)),
        Conditions { text_prefix: Some(_), .. } | Conditions { text_regex: Some(_), .. } => Some(("text", MESSAGES)),
        Conditions { attachment: Some(_), .. } => Some(("attachment", MESSAGES)),
        _ => None,
    }
}

/// The types that a rule names.
fn wanted(rule: &Rule) -> Vec<String> {
    let mut types: Vec<String> =
        rule.0.iter().flat_map(|table| table.all.event_type.clone().unwrap_or_default()).collect();
    types.sort();
    types.dedup();
    types
}

/// The name under which VK switches a type on and off.
fn setting(event_type: &str) -> &str {
    match event_type {
        "command_call" => "message_new",
        "button_pressed" => "message_event",
        "reaction_changed" => "message_reaction_event",
        other => other,
    }
}

fn older(version: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok();
    let parts = version.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)));
    parts.is_some_and(|parts| parts < WRAPPED_SINCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::route::Table;
    use crate::vk::wire::settings_reply;

    fn told(enabled: bool, version: &str, on: &[&str]) -> LongPollSettings {
        let events: Vec<String> = on.iter().map(|name| format!("\"{name}\":1")).collect();
        let body = format!(
            "{{\"response\":{{\"is_enabled\":{enabled},\"api_version\":\"{version}\",\"events\":{{\"like_add\":0,{}}}}}}}",
            events.join(",")
        );
        settings_reply(&body).expect("settings")
    }

    fn rule(types: &[&str]) -> Rule {
        let types = types.iter().map(|name| (*name).to_owned()).collect();
        Rule(vec![Table { all: Conditions { event_type: Some(types), ..Conditions::default() }, not: None }])
    }

    #[test]
    fn what_is_on_needs_no_words() {
        let rules = [rule(&["command_call", "message_new"]), rule(&["button_pressed"]), Rule::default()];
        let destinations = [("messages", &rules[0]), ("buttons", &rules[1]), ("all", &rules[2])];
        let fine = told(true, "5.199", &["message_new", "message_event"]);
        assert_eq!(advice(&fine, &destinations), Vec::<String>::new());
    }

    #[test]
    fn what_is_off_is_told_with_who_waits_for_it_and_where_to_change_it() {
        let rules = [rule(&["reaction_changed", "like_add"])];
        let words = advice(&told(false, "5.80", &["message_new"]), &[("likes", &rules[0])]);
        assert_eq!(words.len(), 4, "{words:?}");
        assert!(words[0].starts_with("Long Poll is off"), "{words:?}");
        assert!(words[1].contains("old shape of API 5.80"), "{words:?}");
        assert!(words[2].contains("likes waits for like_add, but like_add is off"), "{words:?}");
        assert!(words[3].contains("waits for reaction_changed, but message_reaction_event is off"), "{words:?}");
        assert!(words.iter().all(|words| words.contains("Long Poll API")), "{words:?}");
    }

    #[test]
    fn who_chooses_by_text_waits_for_messages() {
        let all = Conditions { text_prefix: Some(vec!["!".to_owned()]), ..Conditions::default() };
        let rules = [Rule(vec![Table { all, not: None }])];
        let words = advice(&told(true, "5.199", &["wall_post_new"]), &[("commands", &rules[0])]);
        assert!(words.len() == 1 && words[0].contains("commands chooses by text"), "{words:?}");
        assert_eq!(advice(&told(true, "5.199", &["message_edit"]), &[("commands", &rules[0])]), Vec::<String>::new());
        let all = Conditions { payload: Some(serde_json::Map::new()), ..Conditions::default() };
        let rules = [Rule(vec![Table { all, not: None }])];
        assert_eq!(advice(&told(true, "5.199", &["message_event"]), &[("buttons", &rules[0])]), Vec::<String>::new());
    }

    #[test]
    fn a_type_that_vk_does_not_list_is_no_switch_to_turn() {
        let rules = [rule(&["mesage_new"])];
        let words = advice(&told(true, "5.199", &["message_new"]), &[("messages", &rules[0])]);
        assert!(words.len() == 1 && words[0].contains("is it spelled right?"), "{words:?}");
    }

    #[test]
    fn that_nothing_is_on_is_told_whoever_waits() {
        let nothing =
            settings_reply(r#"{"response":{"is_enabled":true,"api_version":"5.199","events":{"like_add":0}}}"#);
        let words = advice(&nothing.expect("settings"), &[("all", &Rule::default())]);
        assert!(words.len() == 1 && words[0].starts_with("no type of event is on"), "{words:?}");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, expected) in
            [("5.80", true), ("5.102", true), ("5.103", false), ("5.199", false), ("6.0", false), ("?", false)]
        {
            assert_eq!(older(version), expected, "{version}");
        }
    }
}
