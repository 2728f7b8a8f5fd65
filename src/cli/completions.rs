//! `completions`: what a shell needs to complete the words of the command line, made from their tree. Deliberately absent:
//! putting it where the shell looks; completing names of destinations.

use clap::CommandFactory;
use clap_complete::Shell;

use super::args::Cli;
use super::exit::{Exit, Failure, say};

/// Where each shell looks.
pub(super) const HELP: &str = "Examples:
  event-router completions bash > ~/.local/share/bash-completion/completions/event-router
  event-router completions zsh > ~/.zfunc/_event-router      with fpath+=~/.zfunc before compinit in ~/.zshrc
  event-router completions fish > ~/.config/fish/completions/event-router.fish
  source <(event-router completions bash)                    for this shell only";

pub(super) fn run(shell: Shell) -> Result<Exit, Failure> {
    let mut words = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "event-router", &mut words);
    say(&String::from_utf8_lossy(&words))?;
    Ok(Exit::Done)
}
