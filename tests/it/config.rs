//! The configuration: everything that is wrong is told at once, with its path; secrets never; the environment beats the file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use event_router::config::{Loaded, Problems, Source, load};

const WHOLE: &str = "[vk]\ntoken = \"hidden-1\"\ngroup_id = 5\n[destinations.all]\nurl = \"http://127.0.0.1:1/\"\n";

fn read(text: &str, env: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("event-router.toml");
    fs::write(&file, text).expect("written");
    let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    load(&Source { file: Some(file), env })
}

/// The problems of a configuration, each as told.
fn check(text: &str, env: &[(&str, &str)], expected: &[&str]) {
    let problems = match read(text, env).and_then(Loaded::service) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.0,
    };
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, expected, "{text}");
    assert!(!told.join("\n").contains("hidden"), "a secret shows: {told:?}");
}

#[test]
fn every_problem_is_told_at_once_with_its_path() {
    let text = "service_name = 7\nwhat = 1\n[vk]\ntoken = \"hidden-1\"\ngroup_id = -5\nwait = \"100s\"\napi_url = \"http://api.vk.ru\"\n\
        [events]\nutc_offset = \"Moscow\"\n[outbox]\nretention = 5\n[delivery]\nconcurrency = 0\nreject_on = [400, 429]\n\
        [destinations.\"a b\"]\nurl = \"http://x/\"\n[destinations.m]\nurl = \"ftp://x/\"\ntimout = \"1s\"\nwhen = [{ event_typ = [\"x\"] }]\n\
        headers = { webhook-id = \"x\", authorization = \"hidden-2\" }\n[destinations.n]\n";
    check(
        text,
        &[],
        &[
            "delivery.concurrency: found 0, expected a whole number from 1 to 1024",
            "delivery.reject_on: expected statuses from 400 to 499, without 408, 425 and 429, which speak of the moment and not of the event",
            "destinations.a b: a destination's name is 1 to 64 of a-z, A-Z, 0-9, _ and -: found \"a b\"",
            "destinations.m.headers.webhook-id: this header is set by the service itself, expected another one",
            "destinations.m.timout: this key is not known to this version; did you mean timeout?",
            "destinations.m.url: found \"ftp://x/\": expected a URL that begins with http:// or https://",
            "destinations.m.when[0].event_typ: this key is not known to this version; did you mean event_type?",
            "destinations.n.url: it is not set, expected where events are posted, like http://172.19.0.7:7560/",
            "events.utc_offset: found \"Moscow\": expected an offset like +03:00",
            "outbox.retention: found 5, expected a span like \"25s\", from 0s to 365days",
            "service_name: found 7, expected text",
            "vk.api_url: found \"http://api.vk.ru\": expected https: the token would travel in the clear (http is for a loopback or private address)",
            "vk.group_id: found -5, expected a whole number from 1 to 9223372036854775807",
            "vk.wait: found \"100s\", expected a span like \"25s\", from 1s to 1m 30s",
            "what: this key is not known to this version",
        ]
        .map(|line| line.replace("from 1 to 9223372036854775807", "from 1 on"))
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>(),
    );
}

#[test]
fn what_is_not_built_yet_is_unknown_and_never_ignored() {
    for key in [
        "[vk]\nbackfill = true",
        "[vk]\nsession_max_age = \"1h\"",
        "[outbox]\nmax_bytes = \"8GiB\"",
        "[delivery]\nmax_attempts = 12",
        "[delivery]\nbatch_max = 5",
        "[admin]\nlisten = \"off\"",
    ] {
        let text = key.replacen("[vk]", "[vk]\ntoken = \"x\"\ngroup_id = 1", 1);
        let text = if text.contains("group_id") {
            text + "\n[destinations.a]\nurl = \"http://x/\""
        } else {
            format!("{WHOLE}{text}")
        };
        let problems = read(&text, &[]).expect_err("refused").to_string();
        assert!(problems.contains("this key is not known to this version"), "{key}: {problems}");
    }
    let problems =
        read(&format!("{WHOLE}secret = \"hidden\"\nca_file = \"x\"\nmax_age = \"1s\""), &[]).expect_err("refused");
    assert_eq!(problems.0.len(), 3, "{problems}");
}

#[test]
fn what_a_service_needs_and_a_look_into_the_outbox_does_not_is_told_only_to_the_service() {
    let loaded = read("", &[]).expect("fine for the outbox");
    assert_eq!(loaded.outbox.dir, Path::new("data"));
    check(
        "",
        &[],
        &[
            "vk.token: it is not set, expected the community's access token (TOKEN, or TOKEN_FILE with the path of a file that holds it)",
            "vk.group_id: it is not set, expected the community's number (GROUPID)",
            "destinations: there is none, expected at least one table [destinations.<name>] with a url",
        ],
    );
}

#[test]
fn the_environment_beats_the_file_and_the_prefixed_name_the_bare_one() {
    let env = [
        ("TOKEN", "hidden-2"),
        ("GROUPID", "77"),
        ("EVENT_ROUTER__VK__GROUP_ID", "78"),
        ("EVENT_ROUTER__OUTBOX__DIR", "/data"),
        ("EVENT_ROUTER__DESTINATIONS__ALL__TIMEOUT", "3s"),
        ("EVENT_ROUTER__DESTINATIONS__NEW__URL", "http://127.0.0.1:2/"),
        ("EVENT_ROUTER__DELIVERY__REJECT_ON", "400, 422"),
        ("EVENT_ROUTER__EVENTS__OBJECT", "true"),
    ];
    let settings = read(WHOLE, &env).expect("sound").service().expect("whole");
    assert_eq!((settings.vk.token.expose(), settings.vk.group_id.get()), ("hidden-2", 78));
    assert_eq!((settings.outbox.dir.as_path(), settings.events.object), (Path::new("/data"), true));
    let names: Vec<_> =
        settings.destinations.iter().map(|(to, _)| (to.name.as_str(), to.timeout, to.reject_on.clone())).collect();
    assert_eq!(
        names,
        [("all", Duration::from_secs(3), vec![400, 422]), ("new", Duration::from_secs(10), vec![400, 422])]
    );
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    check(
        WHOLE,
        &[("EVENT_ROUTER__VK__WAIT", "long"), ("EVENT_ROUTER__VK__TOKN", "hidden-9")],
        &[
            "vk.tokn (EVENT_ROUTER__VK__TOKN): this key is not known to this version; did you mean token?",
            "vk.wait (EVENT_ROUTER__VK__WAIT): found \"long\", expected a span like \"25s\", from 1s to 1m 30s",
        ],
    );
}

#[test]
fn a_secret_may_stand_in_a_file_of_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    fs::write(&file, "hidden-3\n").expect("written");
    let path = file.display().to_string();
    let token = |text: &str, env: &[(&str, &str)]| {
        read(text, env).expect("sound").service().expect("whole").vk.token.expose().to_owned()
    };
    assert_eq!(token(&WHOLE.replace("token = \"hidden-1\"", &format!("token_file = {path:?}")), &[]), "hidden-3");
    assert_eq!(token(WHOLE, &[("TOKEN_FILE", &path)]), "hidden-3");
    let both = WHOLE.replace("token = ", &format!("token_file = {path:?}\ntoken = "));
    check(&both, &[], &["vk.token: both this and token_file are set, expected one of them"]);
    let lost = read(WHOLE, &[("TOKEN_FILE", "/nowhere/token")]).expect_err("refused").to_string();
    assert!(
        lost.contains("vk.token_file (TOKEN_FILE): the file /nowhere/token cannot be read: No such file"),
        "{lost}"
    );
}

#[test]
fn a_file_that_is_none_or_is_not_there_is_told_with_its_name_and_line() {
    let problems = read("[vk]\ntoken = \"hidden\n", &[]).expect_err("refused").to_string();
    assert!(problems.contains("event-router.toml:2: not TOML") && !problems.contains("hidden"), "{problems}");
    let missing =
        load(&Source { file: Some("/nowhere/x.toml".into()), env: Vec::new() }).expect_err("refused").to_string();
    assert!(missing.contains("/nowhere/x.toml: the file cannot be read: No such file"), "{missing}");
}

#[test]
fn the_example_is_sound_and_has_the_three_destinations_of_the_network() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/event-router.example.toml");
    let env = vec![("TOKEN".to_owned(), "x".to_owned()), ("GROUPID".to_owned(), "218730916".to_owned())];
    let settings = load(&Source { file: Some(file), env }).expect("sound").service().expect("whole");
    let destinations: Vec<_> =
        settings.destinations.iter().map(|(to, _)| (to.name.as_str(), to.url.as_str())).collect();
    let expected = [
        ("buttons", "http://172.19.0.9:7560/"),
        ("commands", "http://172.19.0.7:7560/"),
        ("messages", "http://172.19.0.8:7560/"),
    ];
    assert_eq!(destinations, expected);
    assert_eq!(settings.service_name, "toaster.event-routing-service");
}

#[test]
fn every_key_of_the_document_is_known() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/CONFIG.md")).expect("read");
    let keys: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|key| key.contains('.'))
        .collect();
    assert!(keys.len() > 25, "{keys:?}");
    for key in keys.iter().filter(|key| !key.contains("when") && !key.contains("headers") && !key.ends_with("_file")) {
        let variable = format!("EVENT_ROUTER__{}", key.replace("<name>", "all").replace('.', "__").to_uppercase());
        let result = read(WHOLE, &[(variable.as_str(), "\u{1}")]);
        let told = result.err().map(|problems| problems.to_string()).unwrap_or_default();
        assert!(!told.contains("not known"), "{key}: {told}");
    }
}
