//! The file `CURRENT`: the format, and which generation counts. It is replaced by a rename: the old one is there, or the new
//! one. Deliberately absent: the generations themselves.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use super::error::OutboxError;

/// The on-disk format that this program writes, and the newest it reads.
pub(super) const FORMAT: u32 = 1;
/// The most bytes that are read of a small file.
const SMALL_FILE_BYTES: u64 = 4096;
/// What the name of its successor begins with, until that is whole.
const HALF_WRITTEN: &str = ".CURRENT";

/// The generation that `CURRENT` names, as far as it can be read.
///
/// # Errors
/// When a newer version wrote it.
pub(super) fn if_readable(dir: &Path) -> Result<Option<u32>, OutboxError> {
    match read(dir) {
        Err(error @ OutboxError::Newer { .. }) => Err(error),
        other => Ok(other.ok().flatten()),
    }
}

/// The text of a file that is a few lines long.
///
/// # Errors
/// When it cannot be read, or is no text.
pub(super) fn small_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(SMALL_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// The generation that `CURRENT` names; nothing when there is no `CURRENT`.
pub(super) fn read(dir: &Path) -> Result<Option<u32>, OutboxError> {
    let text = match small_text(&dir.join("CURRENT")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(unreadable(dir, "it is no text")),
        Err(error) => return Err(OutboxError::of_store(dir, &error.into())),
    };
    if !is_sound(&text) {
        return Err(unreadable(dir, "its last line, \"sum N\", does not fit what stands before it"));
    }
    let number = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .and_then(|value| value.trim().parse::<u32>().ok())
            .ok_or_else(|| unreadable(dir, &format!("no line \"{name} N\"")))
    };
    let format = number("format")?;
    if format > FORMAT {
        return Err(OutboxError::Newer { dir: dir.to_owned(), found: format, known: FORMAT });
    }
    number("generation").map(Some)
}

fn unreadable(dir: &Path, what: &str) -> OutboxError {
    OutboxError::Damaged { dir: dir.to_owned(), finding: format!("CURRENT cannot be read: {what}") }
}

pub(super) fn missing(dir: &Path) -> OutboxError {
    let finding = "there are generations and no CURRENT that names one".to_owned();
    OutboxError::Damaged { dir: dir.to_owned(), finding }
}

/// Replaces `CURRENT`: the new one is there whole, or the old one is.
///
/// # Errors
/// When it is not certain which.
pub(super) fn write(dir: &Path, generation: u32) -> io::Result<()> {
    persist(written(dir, generation)?, dir)
}

/// Removes what a process left that died while it replaced `CURRENT`.
///
/// # Errors
/// When it is still there.
pub(super) fn remove_half_written(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(HALF_WRITTEN) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What `CURRENT` says. Its last line tells damage from a newer format, so every version must write it.
pub(super) fn text_of(format: u32, generation: u32) -> String {
    let said = format!("format {format}\ngeneration {generation}\n");
    format!("{said}sum {}\n", crc32fast::hash(said.as_bytes()))
}

/// Whether the last line fits what stands before it.
fn is_sound(text: &str) -> bool {
    let sum = text.rfind("sum ").map(|at| text.split_at(at));
    sum.is_some_and(|(said, sum)| sum == format!("sum {}\n", crc32fast::hash(said.as_bytes())))
}

pub(super) fn written(dir: &Path, generation: u32) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(HALF_WRITTEN).tempfile_in(dir)?;
    file.write_all(text_of(FORMAT, generation).as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

pub(super) fn persist(file: NamedTempFile, dir: &Path) -> io::Result<()> {
    file.persist(dir.join("CURRENT")).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}
