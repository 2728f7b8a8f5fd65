//! The writer's part in fetching back what a gap has swallowed: where messages stand in their chats, and what was fetched,
//! each in the commit that makes it so. Deliberately absent: the rules of one chat (`chats`), asking VK (`app::backfill`).

use super::chats::ChatRecord;
use super::frame;
use super::keys;
use super::kv::{Batch, Kv, KvError};
use super::log::Logged;
use super::records::{BackfillRecord, GapRecord};
use super::requests::{Append, FetchedAs, Filled, Heard, Turned};
use super::rows;
use super::state::State;
use crate::domain::event::Source;
use crate::domain::ids::{EventId, GroupId};
use crate::domain::time::Moment;

/// How many chats are forgotten in one commit.
const FORGOTTEN_AT_ONCE: usize = 4096;

impl State {
    /// Takes note of an answer's messages; takes out of it those that were fetched back before they came, and answers how
    /// many that were. Comes after the answer's gap was noted.
    pub(super) fn hear(&mut self, kv: &dyn Kv, append: &mut Append, heard: &[Heard]) -> Result<u64, KvError> {
        let (group, gap) = (append.group, self.gap_to_fill(append.group));
        let mut copies = Vec::new();
        for message in heard {
            if gap > 0 && self.knows_fetched(group, *message) {
                copies.extend(message.event);
            }
            self.chat(kv, group, message.peer, |chat| match chat {
                Some(chat) => chat.heard(message.cmid, gap),
                None => *chat = Some(ChatRecord::new(message.cmid, gap)),
            })?;
        }
        if !copies.is_empty() {
            let mut place = 0;
            append.events.retain(|_| {
                place += 1;
                !copies.contains(&(place - 1))
            });
        }
        Ok(copies.len() as u64)
    }

    fn knows_fetched(&self, group: GroupId, message: Heard) -> bool {
        let id = EventId::fetched(group, message.peer, message.cmid);
        self.repeats.knows(group.get(), id.as_str())
    }

    /// The latest gap of a community whose messages are to be fetched back.
    fn gap_to_fill(&self, group: GroupId) -> u64 {
        self.checkpoint(group).map_or(0, |checkpoint| checkpoint.gap)
    }

    /// Takes in what became of messages that a gap has swallowed. A message that has come live meanwhile is left out.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub(super) fn fill(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        filled: Filled,
        now: Moment,
    ) -> Result<Vec<Logged>, KvError> {
        match filled {
            Filled::Chat { group, peer, gap, up_to, turn } => self.turn(kv, batch, (group, peer), (gap, up_to), turn),
            Filled::Over { gaps, left } => {
                let last = gaps.last().copied();
                for gap in gaps {
                    self.backfill(kv, gap, |record| {
                        record.finished = Some(now);
                        record.left += if Some(gap) == last { left } else { 0 };
                    })?;
                }
                Ok(Vec::new())
            }
            Filled::Off(group) => {
                let chats = keys::chats(group.get());
                for (key, _) in kv.scan(&chats, &keys::after(&chats), FORGOTTEN_AT_ONCE)? {
                    batch.delete(key);
                }
                for gap in rows::gaps_to_fill(kv, group.get())? {
                    self.backfill(kv, gap, |record| {
                        record.finished = Some(now);
                        record.refusal = Some("vk.backfill was switched off".to_owned());
                    })?;
                }
                Ok(Vec::new())
            }
        }
    }

    fn turn(
        &mut self,
        kv: &dyn Kv,
        batch: &mut Batch,
        (group, peer): (GroupId, i64),
        (gap, up_to): (u64, u64),
        turn: Turned,
    ) -> Result<Vec<Logged>, KvError> {
        let (mut events, mut recovered, mut switched_off) = (Vec::new(), 0, 0);
        match turn {
            Turned::Asked { from, to, mut messages, nameless } => {
                let newest = messages.iter().map(|message| message.cmid).max();
                let mut absent = 0;
                self.chat(kv, group, peer, |chat| {
                    let Some(chat) = chat else { return messages.clear() };
                    messages.retain(|message| chat.lacks(message.cmid, up_to));
                    absent = chat.asked(from, to, newest, up_to).saturating_sub(messages.len() as u64);
                })?;
                nameless.iter().for_each(|record| self.quarantine(batch, record));
                for message in messages {
                    match message.became {
                        FetchedAs::SwitchedOff => {
                            switched_off += 1;
                            continue;
                        }
                        FetchedAs::Event(_, takers) if takers.is_empty() => self.head.unrouted += 1,
                        FetchedAs::Event(event, takers) => events.push((event, Source::Backfill, takers)),
                        FetchedAs::Unreadable(record) => self.quarantine(batch, &record),
                    }
                    recovered += 1;
                }
                self.backfill(kv, gap, |record| {
                    record.recovered += recovered;
                    record.switched_off += switched_off;
                    record.absent += absent;
                })?;
            }
            Turned::Refused(words) => {
                self.chat(kv, group, peer, |chat| _ = chat.as_mut().map(|chat| chat.give_up(up_to)))?;
                self.backfill(kv, gap, |record| {
                    record.refused += 1;
                    record.refusal = Some(words);
                })?;
            }
            Turned::Left => {
                self.chat(kv, group, peer, |chat| _ = chat.as_mut().map(|chat| chat.give_up(up_to)))?;
                self.backfill(kv, gap, |record| record.left += 1)?;
            }
        }
        self.dirty.head = true;
        Ok(self.take_in(batch, events).1)
    }

    /// Looks at the record of a chat, as this batch will leave it, and changes it.
    fn chat(
        &mut self,
        kv: &dyn Kv,
        group: GroupId,
        peer: i64,
        change: impl FnOnce(&mut Option<ChatRecord>),
    ) -> Result<(), KvError> {
        let key = keys::chat(group.get(), peer);
        let mut chat = match self.dirty.chats.remove(&key) {
            Some(chat) => Some(chat),
            None => frame::load(kv, &key)?,
        };
        change(&mut chat);
        if let Some(chat) = chat {
            self.dirty.chats.insert(key, chat);
        }
        Ok(())
    }

    /// Changes what a gap record says about what was fetched back.
    fn backfill(&mut self, kv: &dyn Kv, gap: u64, change: impl FnOnce(&mut BackfillRecord)) -> Result<(), KvError> {
        let key = keys::gap(gap);
        let record = match self.dirty.gaps.remove(&key) {
            Some(record) => Some(record),
            None => frame::load::<GapRecord>(kv, &key)?,
        };
        // It may be missing after a salvage; what was fetched back is not.
        if let Some(mut record) = record {
            change(record.backfill.get_or_insert_default());
            self.dirty.gaps.insert(key, record);
        }
        Ok(())
    }
}
