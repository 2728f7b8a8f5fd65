//! The help of every command and verb as it is read, and the completions made from the same tree.

use std::process::{Command, Output, Stdio};

use insta::{assert_snapshot, with_settings};

use crate::rig::BINARY;

fn run(words: &[&str]) -> Output {
    let output = Command::new(BINARY).args(words).env_clear().stdin(Stdio::null()).output().expect("run");
    assert!(output.status.success(), "{words:?}: {output:?}");
    output
}

fn help(words: &[&str]) -> String {
    String::from_utf8(run(&[words, &["--help"]].concat()).stdout).expect("text")
}

/// The names under `Commands:`.
fn commands(help: &str) -> Vec<&str> {
    let list = help.split_once("Commands:\n").expect("commands").1.split("\n\n").next().unwrap_or_default();
    list.lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

#[test]
fn the_help_of_every_command_says_what_it_is_for_and_how_it_looks() {
    let (main, outbox) = (help(&[]), help(&["outbox"]));
    let mut all = format!("$ event-router --help\n{main}");
    let mut add = |words: &[&str]| {
        all += &format!("\n$ event-router {} --help\n{}", words.join(" "), help(words));
    };
    for command in commands(&main) {
        add(&[command]);
    }
    for verb in commands(&outbox) {
        add(&["outbox", verb]);
    }
    with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
        assert_snapshot!("help", all);
    });
}

#[test]
fn completions_know_every_command_and_every_verb() {
    let (main, outbox) = (help(&[]), help(&["outbox"]));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(run(&["completions", shell]).stdout).expect("text");
        for word in commands(&main).into_iter().chain(commands(&outbox)).chain(["--destination", "--dry-run"]) {
            let known = script.contains(word) || script.contains(word.trim_start_matches('-'));
            assert!(known, "{shell} does not know {word}");
        }
        assert!(script.contains("event-router"), "{shell}");
    }
}
