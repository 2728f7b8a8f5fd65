//! The demo is a promise of the README: it ends with balanced books.

use std::process::Stdio;

use tokio::process::Command;

use crate::rig::{BINARY, within};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_balances_its_books() {
    let output = Command::new(BINARY).args(["demo", "--seed", "11"]).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = within("the end of the demo", output).await.expect("run");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for words in ["SIGKILL in the middle", "DOWN", "wrong 0", "the books balance"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
