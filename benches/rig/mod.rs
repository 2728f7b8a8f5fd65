//! What the benches of the outbox share: the real outbox with one destination and retention 0, events for it, and a reader
//! that settles the oldest. Deliberately absent: workers, handlers, chats that block; only the store is looked at.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use event_router::clock::Clock;
use event_router::domain::event::{Event, Source};
use event_router::domain::ids::{DestinationName, EventId, GroupId, Seq, Ts};
use event_router::outbox::keys::DestinationId;
use event_router::outbox::space::Limits;
use event_router::outbox::{Append, Change, Cursor, Outbox, Place, Settings, Settlement};

/// How many bytes the body of an event has.
pub(crate) const BODY_BYTES: usize = 500;
/// How long the directory's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// An outbox and the one who reads it.
pub(crate) struct Rig {
    pub(crate) outbox: Outbox,
    destination: DestinationId,
    cursor: Cursor,
    read: VecDeque<Seq>,
    number: u64,
}

impl Rig {
    /// Opens the outbox in a directory, or makes one.
    pub(crate) async fn open(dir: &Path) -> Self {
        let name = DestinationName::parse("all").expect("a name");
        let limits = Limits { max_bytes: 1 << 40, min_free_bytes: 0 };
        let settings = Settings { dir: dir.to_owned(), retention: Duration::ZERO, limits };
        let outbox =
            Outbox::open(settings, vec![name.clone()], "bench", PATIENCE, Clock::system()).await.expect("opened");
        let destination = outbox.destination(&name).expect("registered");
        let record = outbox.resume(destination).await.expect("resumed").record;
        let cursor = Cursor::from_record(&record.cursor).expect("a cursor");
        let number = outbox.watch_head().borrow().0;
        Self { outbox, destination, cursor, read: VecDeque::new(), number }
    }

    /// New events in an answer for a community. Their bodies stand behind one another, in one block an answer.
    pub(crate) fn answer(&mut self, community: i64, events: usize) -> Append {
        let group = GroupId::new(community).expect("an id");
        let mut block = BytesMut::with_capacity(events * BODY_BYTES);
        let event = |_| (self.event(group, &mut block), Source::Live, vec![self.destination]);
        let events = (0..events).map(event).collect();
        let ts = Ts::parse(&self.number.to_string()).expect("a ts");
        Append { group, ts, events, unrouted: 0, quarantined: Vec::new(), gap: None, heard: None, last_answer: None }
    }

    fn event(&mut self, group: GroupId, block: &mut BytesMut) -> Event {
        self.number += 1;
        let id = format!("{:040x}", self.number);
        block.put_slice(format!("{{\"event_id\":\"{id}\",\"text\":\"").as_bytes());
        block.put_bytes(b'x', BODY_BYTES - 2 - block.len());
        block.put_slice(b"\"}");
        Event {
            group,
            event_type: "message_new".into(),
            user_id: Some(5),
            peer_id: Some(2_000_000_000 + (self.number % 50).cast_signed()),
            received_at: Clock::system().now(),
            body: block.split().freeze(),
            event_id: EventId::parse(&id).expect("an id"),
        }
    }

    /// How many events wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.outbox.watch_head().borrow().0 - self.cursor.floor().0
    }

    /// Reads the oldest events that wait, at most `most`; what is answered settles them.
    pub(crate) async fn oldest(&mut self, most: usize) -> Settlement {
        let head = *self.outbox.watch_head().borrow();
        while self.read.len() < most && self.cursor.horizon() < head {
            let limit = head.min(self.cursor.limit());
            let page = self.outbox.read(self.destination, self.cursor.horizon(), limit).await.expect("read");
            for queued in page.events {
                self.cursor.met(queued.seq);
                self.read.push_back(queued.seq);
            }
            self.cursor.looked(page.end);
        }
        let changes = self.read.drain(..most.min(self.read.len())).map(|seq| {
            self.cursor.settle(seq);
            Change::Delivered { seq, from: Place::Log, tried: false }
        });
        let changes = changes.collect();
        let last_ok = Some(Clock::system().now());
        Settlement { destination: self.destination, cursor: self.cursor.clone(), changes, last_ok, outage: None }
    }

    /// Settles the oldest until so many wait, some of them a commit.
    pub(crate) async fn drain_to(&mut self, waiting: u64, at_once: usize) {
        while self.waiting() > waiting {
            let settlement = self.oldest(at_once).await;
            self.outbox.settle_durably(settlement).await.expect("settled");
        }
    }
}

/// Bytes of the files in a directory and below it.
pub(crate) fn file_bytes(dir: &Path) -> u64 {
    // Files come and go while we look.
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { file_bytes(&entry.path()) } else { metadata.len() })
    });
    sizes.sum()
}
