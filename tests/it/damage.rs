//! Damage: every file of an outbox truncated, zeroed, bit-flipped, removed. The outcome is everything there, or a refusal with
//! instructions; never a panic, a hang, an empty start, a silent gap.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use event_router::outbox::verify::verify;
use event_router::outbox::{OutboxError, Store};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store_rig::{contents, contents_of, copy, fill, open};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn explore() {
    let dir = tempfile::tempdir().expect("a directory");
    let sound = dir.path().join("sound");
    fill(&sound, 160).await;
    let whole = contents_of(&sound);
    eprintln!("{} pairs, {} bytes", whole.len(), whole.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>());
    for f in files(&sound) {
        eprintln!("{} {}", f.display(), fs::metadata(&f).unwrap().len());
    }
    let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
    let n: u64 = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let from: u64 = std::env::var("FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    for seed in from..from + n {
        let mut random = StdRng::seed_from_u64(seed);
        let victim = dir.path().join("victim");
        copy(&sound, &victim);
        let all = files(&victim);
        let file = all[random.random_range(0..all.len())].clone();
        let name = file.strip_prefix(&victim).unwrap().display().to_string();
        let mut bytes = fs::read(&file).expect("read");
        let how = ["truncate", "zero", "flip", "remove", "page", "flip", "page"][random.random_range(0..7)];
        let len = bytes.len().max(1);
        let at = random.random_range(0..len);
        match how {
            "truncate" => bytes.truncate(at),
            "zero" => bytes.fill(0),
            "flip" => {
                if let Some(b) = bytes.get_mut(at) {
                    *b ^= 1 << random.random_range(0..8)
                }
            }
            "page" => {
                let s = at & !4095;
                let e = (s + 4096).min(bytes.len());
                bytes[s..e].fill(0)
            }
            _ => {}
        }
        fs::write(&file, &bytes).expect("written");
        if how == "remove" {
            fs::remove_file(&file).expect("removed");
        }
        let started = Instant::now();
        let outcome = match open(&victim).await {
            Err(OutboxError::Damaged { finding, .. }) => format!("refused"),
            Err(error) => format!("other: {error}"),
            Ok(outbox) => {
                outbox.close().await;
                drop(outbox);
                let store = Store::open_existing(&victim, "test", Duration::from_secs(5)).expect("opened");
                match verify(store.kv.as_ref(), &mut |_, _| {}) {
                    Err(error) => format!("verify error {error}"),
                    Ok(told) if !told.sound => format!("verify finds"),
                    Ok(_) => {
                        let now = contents(store.kv.as_ref());
                        if now == whole {
                            "everything".to_owned()
                        } else {
                            let missing = whole
                                .iter()
                                .filter(|p| !now.contains(p))
                                .map(|(k, _)| String::from_utf8_lossy(&k[..2]).into_owned())
                                .collect::<Vec<_>>();
                            let other = now.iter().filter(|p| !whole.contains(p)).count();
                            format!(
                                "SILENT: {} of {}; {} missing {:?}.. {other} other",
                                now.len(),
                                whole.len(),
                                missing.len(),
                                &missing[..missing.len().min(5)]
                            )
                        }
                    }
                }
            }
        };
        let slow = if started.elapsed() > Duration::from_secs(4) {
            format!(" SLOW {:?}", started.elapsed())
        } else {
            String::new()
        };
        if outcome.starts_with("SILENT") || outcome.starts_with("other") || !slow.is_empty() {
            eprintln!("seed {seed} {name} {how} at {at}/{len}: {outcome}{slow}");
        }
        let short = name.split('/').next_back().unwrap().split('.').next().unwrap().to_owned();
        *outcomes.entry(format!("{short} {how}: {}", outcome.split(':').next().unwrap())).or_default() += 1;
        fs::remove_dir_all(&victim).expect("removed");
    }
    for (k, v) in outcomes {
        eprintln!("{v:5} {k}");
    }
}
