//! What VK lost, for people and programs: `outbox gaps`. Deliberately absent: recording gaps (`state`), filling them (`filling`).

use serde::{Deserialize, Serialize};

use super::frame;
use super::keys;
use super::kv::{Kv, KvError};
use super::records::GapRecord;
use super::rows;
use super::views::At;
use crate::domain::ids::TsJump;
use crate::domain::time::Moment;

/// A row of `outbox gaps`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GapView {
    /// Its number.
    pub number: u64,
    /// The community.
    pub group_id: i64,
    /// The ts that VK was asked with.
    pub from_ts: String,
    /// The ts it went on from.
    pub to_ts: String,
    /// How far apart they are, if both are numbers; negative when VK went back.
    pub distance: Option<i64>,
    /// When VK said so.
    pub at: At,
    /// When VK had last answered before.
    pub last_heard: Option<At>,
    /// For how long the service had not heard VK, in seconds.
    pub away_seconds: Option<u64>,
    /// What VK said.
    pub cause: String,
    /// What was fetched back; nothing where `vk.backfill` was off.
    pub backfill: Option<BackfillView>,
}

/// How it went with the messages that a gap has swallowed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackfillView {
    /// Messages that were fetched back.
    pub recovered: u64,
    /// Messages that were known to be missing and that VK does not have any more.
    pub absent: u64,
    /// Chats of which VK told nothing.
    pub refused_chats: u64,
    /// VK's last words about that.
    pub refusal: Option<String>,
    /// Chats that were left because there was too much to fetch.
    pub left_chats: u64,
    /// Messages of types that the community has switched off.
    pub switched_off: u64,
    /// When it was over; nothing while it is under way.
    pub finished: Option<At>,
}

impl BackfillView {
    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = vec![format!("{} messages", self.recovered)];
        if self.absent > 0 {
            words.push(format!("{} are gone at VK", self.absent));
        }
        if self.refused_chats > 0 {
            words.push(format!("{} chats refused: {}", self.refused_chats, self.refusal.as_deref().unwrap_or("?")));
        }
        if self.refused_chats == 0
            && let Some(refusal) = &self.refusal
        {
            words.push(refusal.clone());
        }
        if self.left_chats > 0 {
            words.push(format!("{} chats left: too much", self.left_chats));
        }
        if self.switched_off > 0 {
            words.push(format!("{} of types that are off", self.switched_off));
        }
        if self.finished.is_none() {
            words.push("under way".to_owned());
        }
        words.join("; ")
    }
}

/// When the gap of this number was found; nothing before the first one.
///
/// # Errors
/// When the store cannot be read.
pub(super) fn last(kv: &dyn Kv, number: u64) -> Result<Option<Moment>, KvError> {
    let record: Option<GapRecord> = frame::load(kv, &keys::gap(number))?;
    Ok(record.map(|record| record.at))
}

/// `outbox gaps`, oldest first.
///
/// # Errors
/// When the store cannot be read.
pub fn all(kv: &dyn Kv) -> Result<Vec<GapView>, KvError> {
    let mut found = Vec::new();
    rows::pages(kv, b"g/", |key, value| {
        let record: GapRecord = frame::parse(key, &frame::whole(kv, key, value)?)?;
        let distance = match record.jump {
            TsJump::Ahead(by) => i64::try_from(by).ok(),
            TsJump::Back(by) => i64::try_from(by).ok().map(|by| -by),
            TsJump::Unknown => None,
        };
        found.push(GapView {
            number: keys::last_number(key, keys::NUMBERED_LEN).unwrap_or_default(),
            group_id: record.group,
            from_ts: record.from.as_str().to_owned(),
            to_ts: record.to.as_str().to_owned(),
            distance,
            at: At(record.at),
            last_heard: record.heard.map(At),
            away_seconds: record.heard.map(|heard| heard.age(record.at).as_secs()),
            cause: record.cause,
            backfill: record.backfill.map(|told| BackfillView {
                recovered: told.recovered,
                absent: told.absent,
                refused_chats: told.refused,
                refusal: told.refusal,
                left_chats: told.left,
                switched_off: told.switched_off,
                finished: told.finished.map(At),
            }),
        });
        Ok(true)
    })?;
    Ok(found)
}
