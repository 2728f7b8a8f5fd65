//! A reserve on the volume: a file that is given up when there is no room left, so that the outbox can still be opened and
//! drained, which gives room back. Without it a volume that holds nothing but a full outbox would stay full for good.
//! Deliberately absent: any promise against others who fill the volume faster.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The file.
const NAME: &str = "RESERVE";
/// How much is kept in reserve: what opening, draining and the beginning of a copy were seen to need, twice.
const BYTES: u64 = 8 << 20;
/// It is laid by only while the volume has so many times as much.
const PLENTY: u64 = 4;
/// How much is written at a time.
const PIECE_BYTES: usize = 64 << 10;

/// What the volume has left for this process.
///
/// # Errors
/// When it cannot be asked.
pub(super) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let volume = rustix::fs::statvfs(dir)?;
    Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
}

/// Gives the reserve up, if there is no room and one is there. Before anything is opened: that already needs room.
///
/// # Errors
/// When the volume cannot be asked, or the file not removed.
pub(super) fn release_if_short(dir: &Path) -> io::Result<()> {
    if free_bytes(dir)? >= BYTES {
        return Ok(());
    }
    match fs::remove_file(dir.join(NAME)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => {
            tracing::warn!("the volume is full: the reserve of the outbox is given up, so that it can be drained");
            Ok(())
        }
        error => error,
    }
}

/// Lays a reserve by, if there is plenty of room and none is there.
///
/// # Errors
/// When it cannot be written; what was written of it is gone.
pub(super) fn lay_by(dir: &Path, free: u64) -> io::Result<()> {
    let path = dir.join(NAME);
    // A shorter one was left by a process that died.
    let whole = fs::metadata(&path).is_ok_and(|file| file.len() == BYTES);
    if whole || free < BYTES * PLENTY {
        return Ok(());
    }
    fill(&path).inspect_err(|_| {
        // The error is what is told.
        let _gone = fs::remove_file(&path);
    })
}

/// Bytes that no file system can make small.
fn fill(path: &Path) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    for _ in 0..BYTES / PIECE_BYTES as u64 {
        piece.clear();
        while piece.len() < PIECE_BYTES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            piece.extend_from_slice(&state.to_be_bytes());
        }
        file.write_all(&piece)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_laid_by_once_and_only_where_there_is_plenty() {
        let dir = tempfile::tempdir().expect("a directory");
        let size = || fs::metadata(dir.path().join(NAME)).map_or(0, |file| file.len());
        lay_by(dir.path(), BYTES * PLENTY - 1).expect("nothing to do");
        assert_eq!(size(), 0);
        lay_by(dir.path(), BYTES * PLENTY).expect("written");
        lay_by(dir.path(), BYTES * PLENTY).expect("nothing to do");
        assert_eq!(size(), BYTES);
        fs::write(dir.path().join(NAME), b"half of one").expect("written");
        lay_by(dir.path(), BYTES * PLENTY).expect("written anew");
        assert_eq!(size(), BYTES);
        release_if_short(dir.path()).expect("asked");
        assert_eq!(size(), BYTES, "this volume is not full");
    }
}
