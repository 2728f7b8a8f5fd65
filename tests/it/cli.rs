//! The command line: exit codes, errors first, and what people see.

use std::fs;
use std::process::{Command, Output, Stdio};

use insta::assert_snapshot;
use serde_json::Value;

use crate::rig::{BINARY, Rig, within};

fn run(dir: &std::path::Path, words: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(words).current_dir(dir).env_clear().envs(env.iter().copied()).stdin(Stdio::null());
    command.output().expect("run")
}

/// Exit code, stdout and stderr as one text.
fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("exit {}\n{}{}", output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_broken_configuration_is_78_tells_everything_and_touches_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run(dir.path(), &["run"], &[]);
    assert_snapshot!(told(&output), @r"
    exit 78
    event-router: the configuration has 4 problems
      event-router.toml: found no such file, expected event-router.toml in the working directory, or --config FILE, or all of it in the environment
      vk.token: found nothing, expected the community's access token (TOKEN, or TOKEN_FILE for a file that holds it)
      vk.group_id: found nothing, expected the community's number (GROUPID)
      destinations: found nothing, expected at least one table, like [destinations.messages] with a url
    ");
    fs::write(dir.path().join("event-router.toml"), "[destinations.a]\nurl = 5\n[vk]\nwiat = \"5s\"\n")
        .expect("written");
    let output = run(dir.path(), &["check"], &[("TOKEN", "hidden"), ("GROUPID", "x")]);
    assert_snapshot!(told(&output), @r#"
    exit 78
    event-router: the configuration has 3 problems
      destinations.a.url: found a value of type integer, expected an address like http://host:port/path
      vk.group_id (GROUPID): found "x", expected a whole number from 1 on
      vk.wiat: found a key that this version does not know; did you mean wait?
    "#);
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[test]
fn words_that_make_no_sense_are_2() {
    let dir = tempfile::tempdir().expect("a directory");
    for words in [
        &["outbox", "list", "--state", "lost"][..],
        &["outbox", "list", "--seq", "9..3"],
        &["nonsense"],
        &["outbox", "list", "--limit", "0"],
        &["simulate", "--faults", "x"],
    ] {
        let output = run(dir.path(), words, &[]);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {}", told(&output));
    }
    assert_eq!(run(dir.path(), &[], &[]).status.code(), Some(2), "no words at all: the help");
    assert!(run(dir.path(), &["--help"], &[]).status.success());
}

#[test]
fn a_reader_that_has_left_is_no_failure() {
    // `check | head -1` panicked.
    let dir = tempfile::tempdir().expect("a directory");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let env = [("TOKEN", "x"), ("GROUPID", "1"), ("EVENT_ROUTER__DESTINATIONS__A__URL", "http://127.0.0.1:1/")];
    let mut command = Command::new(BINARY);
    command.arg("check").current_dir(dir.path()).env_clear().envs(env).stdin(Stdio::null()).stdout(writer);
    let output = command.output().expect("run");
    assert_eq!(told(&output), "exit 0\n");
}

#[test]
fn where_there_is_no_outbox_that_is_said_and_none_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run(dir.path(), &["outbox", "stats"], &[]);
    assert_snapshot!(told(&output), @r"
    exit 1
    event-router: no outbox in data; check outbox.dir (EVENT_ROUTER__OUTBOX__DIR) or start the service once
    ");
    let output = run(dir.path(), &["health"], &[]);
    assert_snapshot!(told(&output), @r"
    exit 1
    event-router: no service answers at data/admin.sock
    ");
    assert!(!dir.path().join("data").exists());
}

#[test]
fn conversion_is_offline_and_names_what_it_cannot_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = "{\"type\":\"group_join\",\"event_id\":\"a1\",\"object\":{\"user_id\":5}}\n[1]\n";
    fs::write(dir.path().join("updates"), lines).expect("written");
    let output = run(dir.path(), &["convert", "updates", "--at", "1709107923"], &[]);
    assert_snapshot!(told(&output), @r#"
    exit 1
    {"ts":1709107923,"datetime":"2024-02-28 11:12:03","event_type":"group_join","event_id":"a1","user_id":5,"user_name":null,"user_nick":null,"peer_id":null,"peer_name":null,"chat_id":null,"object":{"user_id":5}}
    quarantined: update 2: the update is no JSON object
    "#);
    let output = run(dir.path(), &["convert", "nowhere"], &[]);
    assert!(told(&output).contains("event-router: nowhere cannot be read: No such file"), "{}", told(&output));
}

#[test]
fn route_says_who_takes_an_event_and_what_failed_offline_and_without_a_token() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = "[destinations.all]\nurl = 'http://127.0.0.1:1/'\n\
        [destinations.bans]\nurl = 'http://127.0.0.1:1/'\n\
        when = [{ event_type = ['command_call'] }, { chat = true, text_prefix = ['Ban'] }, { chat_id = [2] }]\n\
        [destinations.start]\nurl = 'http://127.0.0.1:1/'\n\
        when = [{ payload = { command = 'start' } }, { text_prefix = ['/start'], not = { chat = true } }]\n";
    let message = "{\"type\":\"message_new\",\"event_id\":\"a1\",\"object\":{\"message\":{\"from_id\":5,\"peer_id\":2000000002,\"text\":\"Ban him\"}}}";
    let join = "{\"type\":\"group_join\",\"event_id\":\"a2\",\"object\":{\"user_id\":5}}";
    fs::write(dir.path().join("event-router.toml"), config).expect("written");
    fs::write(dir.path().join("updates"), format!("{{\"ts\":\"1\",\"updates\":[{message},7,{join}]}}"))
        .expect("written");
    let output = run(dir.path(), &["route", "updates"], &[]);
    assert_snapshot!(told(&output), @r#"
    exit 1
    update 1: message_new a1, peer 2000000002, chat 2, user 5
    DESTINATION  TAKEN  BY                FAILED
    all          yes    no `when`         -
    bans         yes    when[1], when[2]  when[0] event_type: message_new is not command_call
    start        no     -                 when[0] payload: it has no payload
                                          when[1] text_prefix: "Ban him" begins with no "/start"

    update 3: group_join a2, user 5
    DESTINATION  TAKEN  BY         FAILED
    all          yes    no `when`  -
    bans         no     -          when[0] event_type: group_join is not command_call
                                   when[1] chat: it is not from a chat
                                   when[2] chat_id: it is not from a chat
    start        no     -          when[0] payload: it has no payload
                                   when[1] text_prefix: it is no message, so it has no text
    quarantined: update 2: the update is no JSON object
    "#);
    let output = run(dir.path(), &["route", "updates", "--json"], &[]);
    assert_snapshot!(told(&output), @r#"
    exit 1
    {"update":1,"event_id":"a1","event_type":"message_new","user_id":5,"peer_id":2000000002,"chat_id":2,"taken_by":["all","bans"],"destinations":[{"name":"all","taken":true,"table":null,"tables":[]},{"name":"bans","taken":true,"table":1,"tables":[{"table":0,"matches":false,"failed":"event_type","why":"message_new is not command_call"},{"table":1,"matches":true,"failed":null,"why":null},{"table":2,"matches":true,"failed":null,"why":null}]},{"name":"start","taken":false,"table":null,"tables":[{"table":0,"matches":false,"failed":"payload","why":"it has no payload"},{"table":1,"matches":false,"failed":"text_prefix","why":"\"Ban him\" begins with no \"/start\""}]}]}
    {"update":3,"event_id":"a2","event_type":"group_join","user_id":5,"peer_id":null,"chat_id":null,"taken_by":["all"],"destinations":[{"name":"all","taken":true,"table":null,"tables":[]},{"name":"bans","taken":false,"table":null,"tables":[{"table":0,"matches":false,"failed":"event_type","why":"group_join is not command_call"},{"table":1,"matches":false,"failed":"chat","why":"it is not from a chat"},{"table":2,"matches":false,"failed":"chat_id","why":"it is not from a chat"}]},{"name":"start","taken":false,"table":null,"tables":[{"table":0,"matches":false,"failed":"payload","why":"it has no payload"},{"table":1,"matches":false,"failed":"text_prefix","why":"it is no message, so it has no text"}]}]}
    quarantined: update 2: the update is no JSON object
    "#);

    // A destination that takes only what it names leaves the rest to nobody.
    let start = "[destinations.start]\nurl = 'http://127.0.0.1:1/'\nwhen = [{ payload = { command = 'start' } }]\n";
    fs::write(dir.path().join("event-router.toml"), start).expect("written");
    fs::write(dir.path().join("updates"), join).expect("written");
    let output = run(dir.path(), &["route", "updates"], &[]);
    assert_snapshot!(told(&output), @r#"
    exit 0
    update 1: group_join a2, user 5
    DESTINATION  TAKEN  BY  FAILED
    start        no     -   when[0] payload: it has no payload
    nobody takes it: it is counted, not stored
    "#);
    assert!(
        told(&run(dir.path(), &["route", "nowhere"], &[]))
            .contains("event-router: nowhere cannot be read: No such file")
    );
    assert!(!dir.path().join("data").exists(), "nothing was made");
}

#[test]
fn route_reads_standard_input_and_needs_a_destination() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = run(dir.path(), &["route"], &[]);
    assert_snapshot!(told(&output), @r#"
    exit 78
    event-router: the configuration has 2 problems
      event-router.toml: found no such file, expected event-router.toml in the working directory, or --config FILE, or all of it in the environment
      destinations: found nothing, expected at least one table, like [destinations.messages] with a url
    "#);
    let url = ("EVENT_ROUTER__DESTINATIONS__ALL__URL", "http://127.0.0.1:1/");
    let lines = dir.path().join("lines");
    fs::write(
        &lines,
        "{\"type\":\"group_join\",\"event_id\":\"a1\"}\n{\"type\":\"group_leave\",\"event_id\":\"a2\"}\n",
    )
    .expect("written");
    for words in [&["route"][..], &["route", "-"]] {
        let mut command = Command::new(BINARY);
        command
            .args(words)
            .current_dir(dir.path())
            .env_clear()
            .envs([url])
            .stdin(fs::File::open(&lines).expect("opened"));
        let told = told(&command.output().expect("run"));
        assert!(told.starts_with("exit 0\n") && told.contains("update 2: group_leave a2\n"), "{told}");
    }
    // A reader that has left has seen enough, as everywhere.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(BINARY);
    command.args(["route", "lines"]).current_dir(dir.path()).env_clear().envs([url]).stdout(writer);
    assert_eq!(told(&command.output().expect("run")), "exit 0\n");
}

#[test]
fn damage_is_65_with_directory_and_finding_and_nothing_is_deleted() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    fs::create_dir_all(&data).expect("made");
    let current = |said: &str| {
        let sum = crc32fast::hash(said.as_bytes());
        fs::write(data.join("CURRENT"), format!("{said}sum {sum}\n")).expect("written");
    };
    current("format 1\ngeneration 1\n");
    let output = run(dir.path(), &["outbox", "stats"], &[]);
    assert_eq!(output.status.code(), Some(65), "{}", told(&output));
    assert!(told(&output).contains(
        "outbox in data is damaged: CURRENT names data/generation-000001, which holds no store; nothing was changed"
    ));
    current("format 9\ngeneration 1\n");
    let output = run(dir.path(), &["outbox", "stats"], &[]);
    assert!(told(&output).contains("has format 9, this program reads up to 1"), "{}", told(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_without_an_answer_is_75_and_names_its_holder() {
    let rig = Rig::new(&[("all", "")], "").await;
    let service = rig.start().await;
    service.stop().await;
    let held = event_router::outbox::Store::open_existing(&rig.data(), "a test", std::time::Duration::from_secs(5))
        .expect("opened");
    let output = rig.run(&["outbox", "stats"]).await;
    let told = told(&output).replace(&rig.data().display().to_string(), "DATA");
    let (before, after) = told.split_once(" on host ").expect("whose it is");
    let after = after.trim_start_matches(|c: char| c != ',' && c != ';');
    let told = format!("{before} on host HOST{after}");
    assert_snapshot!(told.replace(&format!("process {} ", std::process::id()), "process N "), @r"
    exit 75
    event-router: outbox in DATA is in use by process N (a test) on host HOST, and nothing answers at DATA/admin.sock: it starts, stops, or hangs; try again in a moment, and if that does not help, end that process: what it has acknowledged is on disk
    ");
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn verbs_say_the_same_live_and_offline() {
    let mut rig = Rig::new(&[("all", "when = [{ event_type = [\"message_new\"] }]")], "").await;
    let service = rig.start().await;
    rig.handler("all").answer(|received| {
        let refused = received.body.windows(3).any(|text| text == b"bad");
        event_router::sim::handler::Answer::Status(if refused { 422 } else { 200 }, "")
    });
    for text in ["one", "bad", "three"] {
        rig.message(2_000_000_001, text, &["all"]);
    }
    rig.vk.push("{\"type\":\"message_new\",\"object\":1}".to_owned());
    rig.until_settled().await;
    let words: [&[&str]; 6] = [
        &["outbox", "list"],
        &["outbox", "list", "--state", "dead"],
        &["debug", "list", "--state", "quarantined"],
        &["outbox", "show", "2"],
        &["outbox", "show", "q1"],
        &["outbox", "gaps"],
    ];
    let mut live = Vec::new();
    for words in words {
        live.push(rig.json::<Value>(words).await);
    }
    assert_eq!(live[0].as_array().map(Vec::len), Some(3));
    assert_eq!(live[1][0]["deliveries"][0]["reason"], "the handler refused it with HTTP 422");
    service.stop().await;
    for (words, live) in words.iter().zip(live) {
        assert_eq!(rig.json::<Value>(words).await, live, "{words:?}");
    }
    let output = rig.run(&["outbox", "list", "--peer", "5"]).await;
    assert_snapshot!(told(&output).replace(&rig.data().display().to_string(), "DATA"), @r"
    exit 0
    nothing matches
    offline: the service does not run; DATA is read as it was left
    ");
    let output = rig.run(&["outbox", "show", "99"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("there is no such event"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_handler_alone_takes_everything_and_tells_it() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let rig = Rig::new(&[("all", "")], "").await;
    let mut child = rig.command(&["simulate", "--handler"]).stdout(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = async || within("a line", lines.next_line()).await.expect("read").expect("a line");
    let url = line().await.strip_prefix("READY ").expect("READY").to_owned();
    let request = reqwest::Client::new().post(url).header("x-event-seq", "7").body("{\"text\":\n\"a\"}");
    assert_eq!(request.send().await.expect("an answer").status(), 200);
    assert_eq!(line().await, "event 7 {\"text\": \"a\"}");
    child.kill().await.expect("killed");
    // It is one or the other.
    assert_eq!(rig.run(&["simulate", "--handler", "--rate", "3"]).await.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_simulated_vk_alone_says_where_it_is() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let rig = Rig::new(&[("all", "")], "").await;
    let mut child =
        rig.command(&["simulate", "--rate", "50", "--seed", "3"]).stdout(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = within("the word READY", lines.next_line()).await.expect("read").expect("a line");
    let url = line.strip_prefix("READY ").expect("READY").to_owned();
    let get = async |path: String| -> Value {
        let answer = reqwest::get(&path).await.expect("an answer");
        serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("JSON")
    };
    // What VK refuses it refuses, too.
    for (words, code) in [("group_id=218730916", 5), ("access_token=t", 100), ("access_token=t&group_id=1", 125)] {
        let refused = get(format!("{url}/method/groups.getLongPollServer?v=5.199&{words}")).await;
        assert_eq!(refused["error"]["error_code"], code, "{words}: {refused}");
    }
    let session = get(format!("{url}/method/groups.getLongPollServer?group_id=218730916&access_token=t&v=5.199")).await;
    let session = &session["response"];
    let word = |key: &str| session[key].as_str().expect("text").to_owned();
    let answer = get(format!("{}?act=a_check&key={}&ts={}&wait=5", word("server"), word("key"), word("ts"))).await;
    assert!(answer["updates"][0]["event_id"].is_string(), "{answer}");
    child.kill().await.expect("killed");
}
