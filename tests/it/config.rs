//! The configuration: what is read from a file and the environment, which beats which, and every problem in its exact words.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use event_router::app;
use event_router::config::{Format, Loaded, Problems, Source, load};
use event_router::delivery::SigningKey;
use event_router::domain::route::{Conditions, Pattern, Table};
use event_router::sim::vk_server::{Settings, VkServer};
use tempfile::TempDir;

const COMPLETE: &str = "[vk]\ntoken = 'vk1.a.word'\ngroup_id = 1\n[destinations.d]\nurl = 'http://h/'\n";

/// A configuration in a directory of its own.
struct Setting {
    dir: TempDir,
    source: Source,
}

fn setting(toml: &str, env: &[(&str, &str)]) -> Setting {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("event-router.toml");
    fs::write(&file, toml).expect("written");
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Setting { dir, source: Source { file: Some(file), env } }
}

fn loaded(toml: &str, env: &[(&str, &str)]) -> Loaded {
    load(&setting(toml, env).source).expect("a sound configuration")
}

fn service(toml: &str, env: &[(&str, &str)]) -> app::Settings {
    loaded(toml, env).service().expect("a complete configuration")
}

/// The problems of a configuration, one a line.
fn problems(setting: &Setting) -> String {
    let refused = load(&setting.source).and_then(Loaded::service).expect_err("a broken configuration");
    lines(&refused).replace(&setting.dir.path().display().to_string(), "<dir>")
}

fn lines(problems: &Problems) -> String {
    problems.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What `lines` in a complete configuration lead to.
fn check(line: &str, expected: &str) {
    check_env(line, &[], expected);
}

fn check_env(line: &str, env: &[(&str, &str)], expected: &str) {
    // Sections of the sample that the line opens itself are left to it.
    let toml = if line.contains("[vk]") || line.contains("[destinations") {
        format!("{line}\n")
    } else {
        format!("{line}\n{COMPLETE}")
    };
    assert_eq!(problems(&setting(&toml, env)), expected, "{line} {env:?}");
}

fn in_vk(key: &str) -> String {
    format!("[vk]\ntoken = 'x'\ngroup_id = 1\n{key}\n[destinations.d]\nurl = 'http://h/'")
}

fn in_destination(key: &str) -> String {
    format!("[vk]\ntoken = 'x'\ngroup_id = 1\n[destinations.d]\nurl = 'http://h/'\n{key}")
}

#[test]
fn the_example_is_the_network_of_the_contract() {
    let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/event-router.example.toml"));
    let env = [("TOKEN", "vk1.a.word"), ("GROUPID", "218730916")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let settings = load(&Source { file: Some(file), env }).and_then(Loaded::service).expect("a sound example");
    let of = |event_type: &str| Table {
        all: Conditions { event_type: Some(vec![event_type.to_owned()]), ..Conditions::default() },
        not: None,
    };
    let found: Vec<_> = settings
        .destinations
        .iter()
        .map(|(to, rule)| (to.name.as_str(), to.url.as_str(), rule.0.as_slice(), to.timeout.as_secs()))
        .collect();
    assert_eq!(
        found,
        [
            ("buttons", "http://172.19.0.9:7560/", [of("button_pressed")].as_slice(), 10),
            ("commands", "http://172.19.0.7:7560/", [of("command_call")].as_slice(), 10),
            ("messages", "http://172.19.0.8:7560/", [of("message_new")].as_slice(), 10),
        ]
    );
    let workstream = settings.workstream_log.expect("a workstream log");
    assert_eq!((workstream.url.expose(), workstream.level), ("http://172.19.0.5:7560/", tracing::Level::INFO));
    assert_eq!((settings.vk.token.expose(), settings.vk.group_id.get()), ("vk1.a.word", 218_730_916));
}

#[test]
fn the_examples_of_who_takes_what_are_sound_in_every_document() {
    for document in ["README.md", "docs/README.ru.md", "docs/CONFIG.md"] {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(document);
        let text = fs::read_to_string(file).expect("read");
        let example: Vec<&str> = text
            .lines()
            .skip_while(|line| !line.contains("[destinations.moderation]"))
            .take_while(|line| line.starts_with("    "))
            .collect();
        let rules = loaded(&example.join("\n"), &[]).rules().expect("a destination");
        assert!(rules[0].1.0.len() >= 2, "{document}");
    }
}

#[test]
fn the_environment_alone_is_enough() {
    let settings = service(
        "",
        &[
            ("TOKEN", "vk1.a.word"),
            ("GROUPID", "218730916"),
            ("EVENT_ROUTER__DESTINATIONS__COMMANDS__URL", "http://172.19.0.7:7560/"),
            ("EVENT_ROUTER__DESTINATIONS__COMMANDS__WHEN", "[{ event_type = ['command_call'], chat_id = [1, 2] }]"),
            ("EVENT_ROUTER__DESTINATIONS__COMMANDS__HEADERS__AUTHORIZATION", "Bearer word"),
            ("EVENT_ROUTER__DESTINATIONS__COMMANDS__CONCURRENCY", "3"),
            ("EVENT_ROUTER__DELIVERY__MULTIPLIER", "1.5"),
            ("EVENT_ROUTER__DELIVERY__REJECT_ON", "400, 422"),
            ("EVENT_ROUTER__EVENTS__OBJECT", "true"),
            ("EVENT_ROUTER__VK__WAIT", "5s"),
            ("HOME", "/nowhere"),
        ],
    );
    let [(to, rule)] = settings.destinations.as_slice() else { panic!("one destination") };
    assert_eq!(to.name.as_str(), "commands");
    assert_eq!((to.concurrency, to.backoff.multiplier, to.reject_on.as_slice()), (3, 1.5, [400, 422].as_slice()));
    assert_eq!((to.headers[0].0.as_str(), to.headers[0].1.expose()), ("authorization", "Bearer word"));
    assert_eq!(rule.0[0].all.chat_id, Some(vec![1, 2]));
    assert!(settings.events.object);
    assert_eq!(settings.vk.wait, Duration::from_secs(5));
    assert_eq!(settings.service_name, "toaster.event-routing-service");
}

#[test]
fn the_environment_beats_the_file_and_a_prefixed_name_beats_a_bare_one() {
    let token = |env: &[(&str, &str)]| service(COMPLETE, env).vk.token.expose().to_owned();
    assert_eq!(token(&[]), "vk1.a.word");
    assert_eq!(token(&[("TOKEN", "bare")]), "bare");
    assert_eq!(token(&[("TOKEN", "")]), "vk1.a.word", "a variable that compose leaves empty");
    assert_eq!(token(&[("EVENT_ROUTER__VK__TOKEN", "prefixed"), ("TOKEN", "bare")]), "prefixed");
    assert_eq!(token(&[("EVENT_ROUTER__vk__Token", "prefixed"), ("TOKEN_FILE", "/nowhere")]), "prefixed");
    let wait = |toml: &str| service(toml, &[("EVENT_ROUTER__VK__WAIT", "7s")]).vk.wait;
    assert_eq!(wait(COMPLETE), Duration::from_secs(7));
}

#[test]
fn a_variable_finds_a_destination_whatever_its_capitals() {
    let toml = COMPLETE.replace("destinations.d", "destinations.Buttons-2");
    let settings = service(&toml, &[("EVENT_ROUTER__DESTINATIONS__BUTTONS-2__URL", "http://other/")]);
    let [(to, _)] = settings.destinations.as_slice() else { panic!("one destination") };
    assert_eq!((to.name.as_str(), to.url.as_str()), ("Buttons-2", "http://other/"));
}

#[test]
fn a_secret_is_read_from_its_file_without_the_line_end() {
    let setting = setting("[vk]\ngroup_id = 1\n[destinations.d]\nurl = 'http://h/'", &[]);
    let file = setting.dir.path().join("token");
    fs::write(&file, "vk1.a.word\r\n").expect("written");
    let path = file.to_str().expect("text");
    for name in ["TOKEN_FILE", "EVENT_ROUTER__VK__TOKEN_FILE"] {
        let source = Source { env: vec![(name.to_owned(), path.to_owned())], ..setting.source.clone() };
        let settings = load(&source).and_then(Loaded::service).expect("a complete configuration");
        assert_eq!(settings.vk.token.expose(), "vk1.a.word");
    }
    let header = format!("headers = {{ authorization_file = '{path}' }}");
    let settings = service(&in_destination(&header), &[]);
    assert_eq!(settings.destinations[0].0.headers[0].1.expose(), "vk1.a.word");
}

#[test]
fn the_file_of_a_secret_in_the_environment_replaces_the_secret_in_the_file() {
    let setting = setting(COMPLETE, &[]);
    let file = setting.dir.path().join("token");
    fs::write(&file, "other").expect("written");
    let env = vec![("TOKEN_FILE".to_owned(), file.display().to_string())];
    let settings = load(&Source { env, ..setting.source.clone() }).and_then(Loaded::service).expect("complete");
    assert_eq!(settings.vk.token.expose(), "other");
}

#[test]
fn a_destination_inherits_what_it_does_not_override() {
    let toml = "[delivery]\ntimeout = '2s'\nmultiplier = 3\nreject_on = []\n".to_owned()
        + &in_destination("multiplier = 4\n[destinations.e]\nurl = 'https://h/'\nconcurrency = 1");
    let settings = service(&toml, &[]);
    let [(d, _), (e, rule)] = settings.destinations.as_slice() else { panic!("two destinations") };
    assert_eq!((d.timeout.as_secs(), d.backoff.multiplier, d.concurrency), (2, 4.0, 16));
    assert_eq!((e.timeout.as_secs(), e.backoff.multiplier, e.concurrency), (2, 3.0, 1));
    assert!(e.reject_on.is_empty());
    assert!(rule.0.is_empty(), "without `when` everything is taken");
}

#[test]
fn looking_into_the_outbox_needs_no_token_no_destination_and_no_file_of_a_secret() {
    let toml =
        "[vk]\ntoken_file = '/nowhere/token'\n[outbox]\ndir = '/var/lib/x'\nretention = '0s'\n[log]\nformat = 'json'";
    let loaded = loaded(toml, &[("EVENT_ROUTER__LOG__LEVEL", "DEBUG")]);
    assert_eq!(loaded.outbox.dir, PathBuf::from("/var/lib/x"));
    assert_eq!(loaded.outbox.retention, Duration::ZERO);
    assert_eq!((loaded.log.format, loaded.log.level), (Format::Json, tracing::Level::DEBUG));
    assert_eq!(
        lines(&loaded.service().expect_err("incomplete")),
        "vk.group_id: found nothing, expected the community's number (GROUPID)\n\
         destinations: found nothing, expected at least one table, like [destinations.messages] with a url\n\
         vk.token_file: found no such file at /nowhere/token, expected a file with the community's access token, without blanks"
    );
}

#[test]
fn a_file_that_was_named_must_be_there_and_be_toml() {
    let mut missing = setting("", &[]);
    missing.source.file = Some(missing.dir.path().join("other.toml"));
    assert_eq!(problems(&missing), "<dir>/other.toml: found no such file, expected a readable TOML file");
    missing.source.file = Some(missing.dir.path().to_owned());
    assert_eq!(problems(&missing), "<dir>: found a directory, expected a readable TOML file");
    assert_eq!(
        problems(&setting("[vk]\ntoken = vk1.a.word\n", &[])),
        "<dir>/event-router.toml, line 2, column 9: found what is no TOML (string values must be quoted, expected \
         literal string), expected TOML"
    );
    let large = setting(&format!("#{}\n", "x".repeat(1 << 20)), &[]);
    assert!(problems(&large).contains("it has more than 1048576 bytes"));
}

#[test]
fn the_default_file_may_be_missing_and_is_named_when_something_is() {
    // The tests run in the directory of the package, which has no such file.
    let none = Source::default();
    let outbox = load(&none).expect("defaults alone");
    assert_eq!(outbox.outbox.dir, PathBuf::from("data"));
    assert_eq!(
        lines(&outbox.service().expect_err("incomplete")),
        "event-router.toml: found no such file, expected event-router.toml in the working directory, or --config FILE, \
         or all of it in the environment\n\
         vk.token: found nothing, expected the community's access token (TOKEN, or TOKEN_FILE for a file that holds it)\n\
         vk.group_id: found nothing, expected the community's number (GROUPID)\n\
         destinations: found nothing, expected at least one table, like [destinations.messages] with a url"
    );
}

#[test]
fn a_wrong_value_is_told_with_its_path_what_was_found_and_what_was_expected() {
    check(
        "service_name = ''",
        "service_name: found \"\", expected a text of 1 to 128 characters without blanks around it",
    );
    check(&in_vk("wait = '91s'"), "vk.wait: found \"91s\", expected a span like \"25s\", from 1s to 1m 30s");
    check(&in_vk("wait = '1500ms'"), "vk.wait: found 1s 500ms, expected whole seconds");
    check(&in_vk("wait = 25"), "vk.wait: found 25, expected a span like \"25s\", from 1s to 1m 30s");
    check(
        &in_vk("api_url = 'http://api.vk.ru'"),
        "vk.api_url: found \"http://api.vk.ru\", expected https, so that the token does not travel in the clear (http is \
         for loopback and private addresses)",
    );
    check(&in_vk("api_version = 5.199"), "vk.api_version: found 5.199, expected a version like \"5.199\"");
    check(
        "vk = { token = 'x', group_id = 0 }\ndestinations = { d = { url = 'http://h/' } }\n[events]\nutc_offset = '+3'\n#[vk]",
        "events.utc_offset: found \"+3\", expected an offset like \"+03:00\", at most 14 hours\n\
         vk.group_id: found 0, expected a whole number from 1 on",
    );
    check(
        "[events]\ncommand_prefixes = ['/', '']",
        "events.command_prefixes: found [\"/\", \"\"], expected a list of texts that are not empty",
    );
    check("[events]\nobject = 'true'", "events.object: found \"true\", expected true or false");
    check(
        "[enrichment]\ncache_entries = 0",
        "enrichment.cache_entries: found 0, expected a whole number from 1 to 10000000",
    );
    check(
        "[outbox]\ndir = ''",
        "outbox.dir: found \"\", expected a directory on the persistent volume, its path at most 96 bytes for the socket in it",
    );
    check("[delivery]\nconcurrency = 1025", "delivery.concurrency: found 1025, expected a whole number from 1 to 1024");
    check("[delivery]\nmultiplier = 0.5", "delivery.multiplier: found 0.5, expected a number from 1 to 100");
    check(
        "[delivery]\nrandomization_factor = nan",
        "delivery.randomization_factor: found NaN, expected a number from 0 to 1",
    );
    check(
        "[delivery]\nmax_interval = '1ms'",
        "delivery.max_interval: found 1ms, expected at least initial_interval, which is 500ms",
    );
    check(
        "[delivery]\nreject_on = [400, 429]",
        "delivery.reject_on: found [400, 429], expected a list of statuses from 400 to 499 without 408, 425 and 429, which \
         ask for another try",
    );
    check("[log]\nformat = 'plain'", "log.format: found \"plain\", expected \"pretty\" or \"json\"");
    check(
        "[log]\nlevel = '3'",
        "log.level: found \"3\", expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
    );
    check(
        "[workstream_log]\nurl = 'ftp://h/word'",
        "workstream_log.url: found a text (not shown), expected an address that begins with http:// or https://",
    );
    check("log = 'word'", "log: found a value of type string, expected a table");
}

#[test]
fn a_wrong_destination_is_told_with_its_path() {
    check(
        "[vk]\ntoken = 'x'\ngroup_id = 1\n[destinations.'two words']\nurl = 'http://h/'\n[destinations.d]",
        "destinations.d.url: found nothing, expected where events are posted, like http://172.19.0.7:7560/\n\
         destinations.two words: found this name, expected another: a destination's name is 1 to 64 of a-z, A-Z, 0-9, _ and -",
    );
    check(
        "[vk]\ntoken = 'x'\ngroup_id = 1\n[destinations.messages]\nurl = '172.19.0.8:7560'",
        "destinations.messages.url: found \"172.19.0.8:7560\", expected an address like http://host:port/path",
    );
    check(
        "[vk]\ntoken = 'x'\ngroup_id = 1\n[destinations.d]\nurl = 'http://user:word@h/'",
        "destinations.d.url: found \"http://…@h/\", expected an address without user and password (use \
         headers.authorization or headers.authorization_file)",
    );
    check(
        &in_destination("initial_interval = '2m'"),
        "destinations.d.max_interval: found 1m, expected at least initial_interval, which is 2m",
    );
    check(
        &in_destination("when = []"),
        "destinations.d.when: found an empty list, expected at least one table, or no `when` to take every event",
    );
    check(
        &in_destination("when = [{ event_type = [] }, { chat_id = ['2'] }, { event_type = 'message_new' }]"),
        "destinations.d.when[0].event_type: found an empty list, which matches nothing, expected at least one value\n\
         destinations.d.when[1].chat_id: found [\"2\"], expected a list of whole numbers\n\
         destinations.d.when[2].event_type: found \"message_new\", expected a list of texts that are not empty",
    );
    check(
        &in_destination(
            "headers = { Content-Type = 'x', 'a b' = 'x', X-Event-Seq = 'x', a = 'x', A = 'y', b = \"x\\r\\ny: z\" }",
        ),
        "destinations.d.headers.Content-Type: found this header, expected a header that the service does not set itself\n\
         destinations.d.headers.X-Event-Seq: found this header, expected a header that the service does not set itself\n\
         destinations.d.headers.a: found the same header twice, expected it once (capitals do not matter)\n\
         destinations.d.headers.a b: found this header, expected the name of a header, like authorization\n\
         destinations.d.headers.b: found another text (not shown), expected one line of printable ASCII",
    );
}

#[test]
fn a_table_of_when_has_every_condition_of_the_contract() {
    let toml = in_destination(
        "[[destinations.d.when]]\nevent_type = ['message_new']\nchat_id = [2]\npeer_id = [2000000002]\nuser_id = [5, -7]\n\
         chat = true\ntext_prefix = ['+']\ntext_regex = '(?i)бан'\nattachment = ['photo', 'geo']\n\
         payload = { command = 'start', n = 1, part = 0.5, on = true, list = [1], deep = { a = 'b' } }\n\
         not = { user_id = [5], chat = false }",
    );
    let settings = service(&toml, &[]);
    let payload = serde_json::json!({
        "command": "start", "n": 1, "part": 0.5, "on": true, "list": [1], "deep": { "a": "b" }
    });
    let text = |text: &str| text.to_owned();
    let expected = Table {
        all: Conditions {
            event_type: Some(vec![text("message_new")]),
            chat_id: Some(vec![2]),
            peer_id: Some(vec![2_000_000_002]),
            user_id: Some(vec![5, -7]),
            chat: Some(true),
            text_prefix: Some(vec![text("+")]),
            text_regex: Some(Pattern::parse("(?i)бан").expect("a pattern")),
            attachment: Some(vec![text("photo"), text("geo")]),
            payload: payload.as_object().cloned(),
        },
        not: Some(Conditions { user_id: Some(vec![5]), chat: Some(false), ..Conditions::default() }),
    };
    assert_eq!(settings.destinations[0].1.0, [expected]);
}

#[test]
fn a_condition_that_cannot_be_meant_is_a_problem() {
    let when = |table: &str, expected: &str| {
        check(&in_destination(&format!("when = [{{ {table} }}]")), &format!("destinations.d.when[0].{expected}"));
    };
    for key in ["event_type", "chat_id", "peer_id", "user_id", "text_prefix", "attachment"] {
        let words = "found an empty list, which matches nothing, expected at least one value";
        when(&format!("{key} = []"), &format!("{key}: {words}"));
        when(&format!("not = {{ {key} = [] }}"), &format!("not.{key}: {words}"));
    }
    when("user_id = ['5']", "user_id: found [\"5\"], expected a list of whole numbers");
    when("chat = 'true'", "chat: found \"true\", expected true or false");
    when("text_prefix = ['']", "text_prefix: found [\"\"], expected a list of texts that are not empty");
    when("text_prefix = '/'", "text_prefix: found \"/\", expected a list of texts that are not empty");
    when("attachment = ['Photo']", "attachment: found \"Photo\", expected lower case, \"photo\"");
    when(
        "text_regex = 'да['",
        "text_regex: found \"да[\", expected a regular expression: unclosed character class at character 3",
    );
    when(
        "text_regex = '(?=x)'",
        "text_regex: found \"(?=x)\", expected a regular expression: look-around, including look-ahead and look-behind, is \
         not supported at character 1",
    );
    when(
        "text_regex = '(\\w{1000}){1000}'",
        "text_regex: found \"(\\\\w{1000}){1000}\", expected a regular expression: more than 1048576 bytes once it is compiled",
    );
    when("text_regex = ''", "text_regex: found an empty text, which every message has, expected a regular expression");
    when("text_regex = ['x']", "text_regex: found [\"x\"], expected a regular expression as a text");
    when("payload = 'x'", "payload: found a value of type string, expected a table");
    when("payload = {}", "payload: found an empty table, which says nothing, expected at least one key with its value");
    let json = "expected what JSON has: a text, a number, true or false, a list, a table";
    when("payload = { a = { b = 2024-02-28 } }", &format!("payload.a.b: found a date, {json}"));
    when("payload = { a = [1, inf] }", &format!("payload.a[1]: found inf, {json}"));
    when("not = {}", "not: found no condition, which would exclude everything, expected at least one");
    when("not = [{ chat = true }]", "not: found a value of type array, expected a table");
    when("not = { not = { chat = true } }", "not.not: found `not` inside `not`, expected the conditions themselves");
}

#[test]
fn the_rules_need_a_destination_and_neither_token_nor_community() {
    let rules =
        loaded("[destinations.d]\nurl = 'http://h/'\nheaders = { a_file = '/nowhere' }\nwhen = [{ chat = true }]", &[])
            .rules()
            .expect("a destination");
    assert_eq!((rules[0].0.as_str(), rules[0].1.0[0].all.chat), ("d", Some(true)));
    let destinations =
        "destinations: found nothing, expected at least one table, like [destinations.messages] with a url";
    assert_eq!(lines(&loaded("", &[]).rules().expect_err("no destination")), destinations);
    let none = load(&Source::default()).expect("defaults alone").rules().expect_err("no destination");
    assert_eq!(lines(&none).lines().count(), 2);
    assert!(lines(&none).starts_with("event-router.toml: found no such file") && lines(&none).ends_with(destinations));
}

#[test]
fn a_key_that_is_not_known_is_a_problem_with_a_hint() {
    let unknown = "found a key that this version does not know";
    check(&in_vk("wiat = '5s'"), &format!("vk.wiat: {unknown}; did you mean wait?"));
    check("[delivry]", &format!("delivry: {unknown}; did you mean delivery?"));
    check(&in_destination("when = [{ group_id = [1] }]"), &format!("destinations.d.when[0].group_id: {unknown}"));
    check(
        &in_destination("when = [{ not = { user_ids = [1] } }]"),
        &format!("destinations.d.when[0].not.user_ids: {unknown}; did you mean user_id?"),
    );
    check(&in_destination("secrte = 'whsec_word'"), &format!("destinations.d.secrte: {unknown}; did you mean secret?"));
    check("'log.level' = 'info'", &format!("log.level: {unknown}"));
    check_env(
        "",
        &[("EVENT_ROUTER__VK__WIAT", "5s")],
        &format!("vk.wiat (EVENT_ROUTER__VK__WIAT): {unknown}; did you mean wait?"),
    );
}

#[test]
fn what_nobody_reads_is_not_accepted() {
    let toml = format!("[dashboard]\nlisten = 'off'\n{COMPLETE}");
    assert_eq!(problems(&setting(&toml, &[])), "dashboard: found a key that this version does not know");
}

#[test]
fn a_problem_names_the_variable_that_it_came_from() {
    check_env("", &[("GROUPID", "many")], "vk.group_id (GROUPID): found \"many\", expected a whole number from 1 on");
    check_env(
        "",
        &[("EVENT_ROUTER__DESTINATIONS__D__WHEN", "[{ event_type = [] }]")],
        "destinations.d.when[0].event_type (EVENT_ROUTER__DESTINATIONS__D__WHEN): found an empty list, which matches \
         nothing, expected at least one value",
    );
    check_env(
        "",
        &[("EVENT_ROUTER__VK__GROUP_ID__X", "1")],
        "vk.group_id (EVENT_ROUTER__VK__GROUP_ID__X): found a value that is no table, expected a table to put this key into",
    );
    check_env(
        "",
        &[("EVENT_ROUTER__VK__WAIT", "5s"), ("EVENT_ROUTER__vk__wait", "6s")],
        "vk.wait (EVENT_ROUTER__vk__wait): found also EVENT_ROUTER__VK__WAIT, which names the same key, expected one of the two",
    );
}

#[test]
fn a_secret_and_its_file_in_one_place_are_a_problem() {
    let both = "found it and token_file, expected one of the two";
    check(&in_vk("token_file = 'x'"), &format!("vk.token: {both}"));
    check_env("", &[("TOKEN", "word"), ("TOKEN_FILE", "/nowhere")], &format!("vk.token (TOKEN): {both}"));
    let header = "headers = { a = 'x', a_file = 'y' }";
    check(&in_destination(header), "destinations.d.headers.a: found it and a_file, expected one of the two");
}

#[test]
fn a_file_of_a_secret_that_cannot_be_used_is_told_with_its_path() {
    let check = |content: Option<&[u8]>, found: &str| {
        let mut setting = setting("[vk]\ngroup_id = 1\n[destinations.d]\nurl = 'http://h/'", &[]);
        let file = setting.dir.path().join("token");
        if let Some(content) = content {
            fs::write(&file, content).expect("written");
        }
        setting.source.env = vec![("TOKEN_FILE".to_owned(), file.display().to_string())];
        let expected = "expected a file with the community's access token, without blanks";
        assert_eq!(problems(&setting), format!("vk.token_file (TOKEN_FILE): found {found} at <dir>/token, {expected}"));
    };
    check(None, "no such file");
    check(Some(b"\n"), "an empty file");
    check(Some(b"vk1.a.word\nvk1.a.word\n"), "another text (not shown)");
    check(Some(b"\xff\xfe"), "a file that is not UTF-8 text");
    check(Some(&[b'x'; 20_000]), "a file that cannot be read (it has more than 16384 bytes)");
}

/// The keys of 24 and 25 bytes that these tests know.
const KEYS: [&str; 2] = ["whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGA=="];

fn keys(settings: &app::Settings) -> Vec<SigningKey> {
    settings.destinations[0].0.keys.clone()
}

#[test]
fn the_secret_of_a_destination_is_a_text_a_list_or_a_file_with_one_a_line() {
    let known = KEYS.map(|key| SigningKey::parse(key).expect("a key"));
    let [first, second] = KEYS;
    let name = "EVENT_ROUTER__DESTINATIONS__D__SECRET";
    let check = |line: &str, env: &[(&str, &str)], expected: &[SigningKey]| {
        assert_eq!(keys(&service(&in_destination(line), env)), expected, "{line} {env:?}");
    };
    check("", &[], &[]);
    check(&format!("secret = '{first}'"), &[], &known[..1]);
    check(&format!("secret = ['{first}', '{second}']"), &[], &known);
    check("", &[(name, second)], &known[1..]);
    check("", &[(name, &format!("{first}, {second}"))], &known);
    check("", &[(name, &format!("['{first}', '{second}']"))], &known);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("secrets");
    let path = file.to_str().expect("text");
    for (text, expected) in [(format!("{first}\r\n\n{second}\n"), &known[..]), (second.to_owned(), &known[1..])] {
        fs::write(&file, text).expect("written");
        check(&format!("secret_file = '{path}'"), &[], expected);
        check(&format!("secret = '{first}'"), &[("EVENT_ROUTER__DESTINATIONS__D__SECRET_FILE", path)], expected);
    }
}

#[test]
fn a_secret_that_cannot_sign_is_told_without_showing_it() {
    let expected = "expected whsec_ and the base64 of 24 random bytes or more";
    let check = |line: &str, words: &str| check(&in_destination(line), &format!("destinations.d.{words}, {expected}"));
    let [fine, _] = KEYS;
    check("secret = ''", "secret: found a text that does not begin with whsec_ (not shown)");
    check("secret = 'word'", "secret: found a text that does not begin with whsec_ (not shown)");
    check("secret = 'whsec_wo-rd'", "secret: found what is no base64 behind whsec_ (not shown)");
    check("secret = 'whsec_d29yZA=='", "secret: found a secret of 4 bytes (not shown)");
    check("secret = 7", "secret: found a value of type integer (not shown)");
    check(
        &format!("secret = ['{fine}', 'word']"),
        "secret[1]: found a text that does not begin with whsec_ (not shown)",
    );
    let path = "destinations.d.secret";
    self::check(&in_destination("secret = []"), &format!("{path}: found 0 of them, expected 1 to 8"));
    let many = format!("secret = {:?}", [fine; 9]);
    self::check(&in_destination(&many), &format!("{path}: found 9 of them, expected 1 to 8"));
    let both = format!("secret = '{fine}'\nsecret_file = '/nowhere'");
    let words = format!("{path}: found it and secret_file, expected one of the two");
    self::check(&in_destination(&both), &words);
    let variable = "EVENT_ROUTER__DESTINATIONS__D__SECRET";
    let words = format!("{path}[1] ({variable}): found a secret of 4 bytes (not shown), {expected}");
    check_env("", &[(variable, &format!("{fine},whsec_d29yZA=="))], &words);
}

#[test]
fn a_file_of_secrets_that_cannot_be_used_is_told_with_its_path_and_line() {
    let check = |content: Option<&str>, found: &str| {
        let mut setting = setting(COMPLETE, &[]);
        let file = setting.dir.path().join("secrets");
        if let Some(content) = content {
            fs::write(&file, content).expect("written");
        }
        let variable = "EVENT_ROUTER__DESTINATIONS__D__SECRET_FILE";
        setting.source.env = vec![(variable.to_owned(), file.display().to_string())];
        let expected = "expected a file with whsec_ and the base64 of 24 random bytes or more";
        assert_eq!(
            problems(&setting),
            format!("destinations.d.secret_file ({variable}): found {found} at <dir>/secrets, {expected}")
        );
        // Who only looks into the outbox needs no secret.
        assert!(load(&setting.source).is_ok(), "{found}");
    };
    let [fine, other] = KEYS;
    check(None, "no such file");
    check(Some("\n\n"), "an empty file");
    check(Some(&format!("{fine}\n\nword\n")), "a text that does not begin with whsec_ (not shown) in line 3");
    check(Some(&format!("{fine} {other}")), "what is no base64 behind whsec_ (not shown) in line 1");
    check(Some(&format!("{fine}\n").repeat(9)), "more than 8 of them");
}

#[tokio::test]
async fn a_ca_of_a_handler_is_read_and_asks_for_https() {
    let vk = VkServer::start(Settings { tls: true, ..Settings::default() }).await.expect("a simulated VK");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("ca.pem");
    fs::write(&file, vk.ca_pem().expect("a CA")).expect("written");
    let toml = in_destination(&format!("ca_file = {file:?}"));
    let settings = service(&toml.replace("http://", "HTTPS://"), &[]);
    assert_eq!((settings.destinations[0].0.ca.len(), settings.vk.ca.len()), (1, 0));
    check(&toml, "destinations.d.ca_file: found it beside a url without https, expected https there, or no ca_file");
    let missing = in_destination("ca_file = '/nowhere'").replace("http://", "https://");
    assert_eq!(
        problems(&setting(&missing, &[])),
        "destinations.d.ca_file: found no such file at /nowhere, expected a PEM file with the certificate of the CA, as \
         whoever ends TLS has it"
    );
}

#[tokio::test]
async fn a_file_of_a_ca_that_cannot_be_used_is_told_with_its_path() {
    let vk = VkServer::start(Settings { tls: true, ..Settings::default() }).await.expect("a simulated VK");
    let pem = vk.ca_pem().expect("a CA");
    let expected = "expected a PEM file with the certificate of the CA, as whoever ends TLS has it";
    let check = |content: Option<&[u8]>, found: &str| {
        let mut setting = setting(COMPLETE, &[]);
        let file = setting.dir.path().join("ca.pem");
        if let Some(content) = content {
            fs::write(&file, content).expect("written");
        }
        setting.source.env = vec![("EVENT_ROUTER__VK__CA_FILE".to_owned(), file.display().to_string())];
        if found.is_empty() {
            let settings = load(&setting.source).and_then(Loaded::service).expect("a sound configuration");
            return assert_eq!(settings.vk.ca.len(), 2);
        }
        assert_eq!(problems(&setting), format!("vk.ca_file (EVENT_ROUTER__VK__CA_FILE): found {found}, {expected}"));
        // Who only looks into the outbox needs no certificate.
        assert!(load(&setting.source).is_ok(), "{found}");
    };
    check(Some(format!("# of two proxies\n{pem}\n{pem}").as_bytes()), "");
    check(None, "no such file at <dir>/ca.pem");
    check(Some(b""), "no certificate in <dir>/ca.pem");
    check(Some(b"\xff\xfe"), "a file that is not UTF-8 text at <dir>/ca.pem");
    check(Some(pem.replace("\nMII", "\nAAA").as_bytes()), "what cannot be read as a certificate in <dir>/ca.pem");
    check(Some(pem.replace("-----END", "-----EN").as_bytes()), "what cannot be read as a certificate in <dir>/ca.pem");
}

#[test]
fn all_problems_are_told_at_once() {
    let toml = "[vk]\ntokn = 'x'\nwait = '2m'\ngroup_id = 'many'\n[delivery]\nconcurrency = 0\n[destinations.d]\nurl = 'h'\n[dashboard]";
    assert_eq!(
        problems(&setting(toml, &[("EVENT_ROUTER__LOG__LEVEL", "loud")])),
        "dashboard: found a key that this version does not know\n\
         delivery.concurrency: found 0, expected a whole number from 1 to 1024\n\
         destinations.d.url: found \"h\", expected an address like http://host:port/path\n\
         log.level (EVENT_ROUTER__LOG__LEVEL): found \"loud\", expected \"error\", \"warn\", \"info\", \"debug\" or \"trace\"\n\
         vk.group_id: found \"many\", expected a whole number from 1 on\n\
         vk.tokn: found a key that this version does not know; did you mean token?\n\
         vk.wait: found \"2m\", expected a span like \"25s\", from 1s to 1m 30s"
    );
    let refused = load(&setting(toml, &[]).source).expect_err("broken").to_string();
    assert!(refused.starts_with("the configuration has 6 problems\n  dashboard: "), "{refused}");
}

#[test]
fn no_problem_shows_a_secret() {
    let word = "s3cr3tw0rd";
    let bearer = format!("Bearer {word}");
    for toml in [
        format!("[vk]\ntoken = 'vk1.a.{word} '"),
        format!("[vk]\ntoken = ['vk1.a.{word}']"),
        format!("[vk]\ntoken = 'x'\ntoken_file = 'vk1.a.{word}'"),
        format!("[vk]\ntoken_file = 'vk1.a.{word}'\ngroup_id = 1\n[destinations.d]\nurl = 'http://h/'"),
        format!("[vk]\ntoken = vk1.a.{word}"),
        format!("[vk]\ntoken = \"vk1.a.{word}\ngroup_id = 1"),
        format!("[vk]\ngroup_id = 'vk1.a.{word}'"),
        format!("[vk]\nwait = 'vk1.a.{word}'"),
        format!("[vk]\ntokne = 'vk1.a.{word}'"),
        format!("vk = '{word}'"),
        in_destination(&format!("headers = '{bearer}'")),
        in_destination(&format!("headers = {{ authorization = ['{bearer}'] }}")),
        in_destination(&format!("headers = {{ authorization = '{bearer}\u{e9}' }}")),
        in_destination(&format!("headers = {{ authorization_file = '{bearer}' }}")),
        in_destination(&format!("headers = {{ host = '{bearer}' }}")),
        in_destination(&format!("when = '{bearer}'")),
        in_destination(&format!("secret = '{word}'")),
        in_destination(&format!("secret = 'whsec_{word}'")),
        in_destination(&format!("secret = ['whsec_{word}']")),
        in_destination(&format!("secret = [['whsec_{word}']]")),
        in_destination(&format!("secret = {{ a = 'whsec_{word}' }}")),
        in_destination(&format!("secret_file = 'whsec_{word}'")),
        in_destination(&format!("secret_file = ['whsec_{word}']")),
        in_destination(&format!("ca_file = 'whsec_{word}'")),
        in_destination(&format!("secrets = 'whsec_{word}'")),
        format!("[destinations.d]\nurl = 'http://user:{word}@h/'"),
        format!("[destinations.d]\nurl = 'ftp://h/?key={word}'"),
        format!("[vk]\napi_url = 'http://{word}@api.vk.ru'"),
        format!("[workstream_log]\nurl = 'h/{word}'"),
        format!("[workstream_log]\nurl = ['h/{word}']"),
    ] {
        let refused = load(&setting(&toml, &[]).source).and_then(Loaded::service).expect_err("broken");
        assert!(!format!("{refused} {refused:?}").contains(word), "{toml}\n{refused}");
    }
    let env = [("TOKEN", bearer.as_str()), ("EVENT_ROUTER__DESTINATIONS__D__HEADERS", bearer.as_str())];
    let refused = problems(&setting(COMPLETE, &env));
    assert_eq!(refused.lines().count(), 2);
    assert!(!refused.contains(word), "{refused}");
    let signed = in_destination(&format!("secret = '{}'", KEYS[0]));
    let shown = format!("{:?}", loaded(&signed, &[("TOKEN", word)]));
    assert!(!shown.contains(word) && !shown.contains("AAECAw") && shown.contains("keys: [[secret]]"), "{shown}");
}
