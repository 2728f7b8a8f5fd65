//! sled's snapshot: where the log has each page, as of the last time that it opened the store. Source: sled 0.34.7,
//! `pagecache/snapshot.rs` and `serialization.rs`. Deliberately absent: what came to the log since (`recovery`).

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::Path;

use super::pages::{Page, Place};
use super::{number, take};
use crate::outbox::sled_kv::SNAPSHOT;

/// A snapshot.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// The position of the log up to which it speaks.
    pub(super) stable: u64,
    /// The pages that are not free.
    pub(super) pages: HashMap<u64, Page>,
    /// Those that are.
    pub(super) free: HashSet<u64>,
}

impl Snapshot {
    /// The newest one of the store in a directory. When that cannot be used there is none: all of them are put aside then.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn newest(dir: &Path) -> io::Result<Self> {
        let mut newest = None;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix(SNAPSHOT).is_some_and(|hex| u64::from_str_radix(hex, 16).is_ok()) {
                newest = newest.max(Some((name, entry.path())));
            }
        }
        let Some((_, path)) = newest else { return Ok(Self::default()) };
        let bytes = fs::read(path)?;
        let sound = bytes.split_last_chunk::<4>().and_then(|(rest, sum)| {
            let (said, _length) = rest.split_last_chunk::<8>()?;
            (crc32fast::hash(said) == u32::from_le_bytes(*sum)).then_some(said)
        });
        Ok(sound.and_then(Self::read).unwrap_or_default())
    }

    fn read(mut rest: &[u8]) -> Option<Self> {
        let rest = &mut rest;
        // An optional position is told as one more.
        let stable = signed(rest)?.checked_sub(1).and_then(|stable| u64::try_from(stable).ok()).unwrap_or_default();
        let _active_segment = number(rest)?;
        let (mut pages, mut free) = (HashMap::new(), HashSet::new());
        let mut page = 0;
        while !rest.is_empty() {
            match take(rest, 1)?[0] {
                0 => {
                    signed(rest)?;
                    pointer(rest)?;
                    free.insert(page);
                }
                parts => {
                    let base = Some(place(rest)?);
                    let links = (1..parts).map(|_| place(rest)).collect::<Option<_>>()?;
                    pages.insert(page, Page { base, links });
                }
            }
            page += 1;
        }
        Some(Self { stable, pages, free })
    }
}

fn signed(rest: &mut &[u8]) -> Option<i64> {
    take(rest, 8)?.first_chunk().map(|bytes| i64::from_le_bytes(*bytes))
}

/// Where something is in the log file; what is kept outside of it is nowhere, for nothing of ours is.
fn pointer(rest: &mut &[u8]) -> Option<u64> {
    match take(rest, 1)?[0] {
        0 => number(rest),
        1 => {
            number(rest)?;
            signed(rest)?;
            Some(u64::MAX)
        }
        _ => None,
    }
}

fn place(rest: &mut &[u8]) -> Option<Place> {
    let position = u64::try_from(signed(rest)?).ok()?;
    let offset = pointer(rest)?;
    let length = usize::try_from(number(rest)?).ok()?;
    Some(Place { position, offset, length })
}
