//! Floor 1, the disk: the outbox, the only queue of the service. This is the format, before any code.
//!
//! # The directory
//!
//! ```text
//! <dir>/lock                 flock; "<pid> (<command>) on host <name>" of who holds it; taken before anything else is read
//! <dir>/CURRENT              "format 1", "generation N", "sum <CRC-32 of these two lines>"; replaced by rename, after the generation is synced
//! <dir>/generation-NNNNNN/   a sled 0.34 store: segments of 2 MiB, no compression, one tree
//! <dir>/COMMITS              number of the last durable commit u64 | its CRC-32; written over, never synced
//! <dir>/SYNC-FAILED          there when a commit failed: the next start copies the store before it trusts it
//! <dir>/RESERVE              8 MiB that are given up when the volume is full, so that the outbox can be opened and drained
//! <dir>/admin.sock           the operator's socket while the service runs
//! ```
//!
//! A newer format than this program's is refused before sled is opened; the sum tells it from a damaged number. `CURRENT` must name a generation that is there:
//! sled would make an empty one. Without `CURRENT`, a generation that holds a checkpoint is damage; one that holds none
//! is what a process left that died while it made the outbox, and is removed. Any other generation than the one that
//! `CURRENT` names was not finished, or was replaced, and is removed once that one is open and sound.
//!
//! Sound is: it has a head (sled opens a log it cannot read as an empty store), and at least as many commits as `COMMITS`
//! says (to other damage sled answers by going back to an older state, whole in itself). `COMMITS` is written after a commit
//! is durable, so it is never ahead; after a power cut it may be older, which is as true.
//!
//! # Keys
//!
//! Numbers in keys are big endian; signed ones have their sign bit flipped, so that byte order is the numbers' order.
//!
//! | key | record | what it is |
//! |---|---|---|
//! | `m/head` | `Head` | tail, next, counts of routed events per destination, of unrouted ones, of repeats; next numbers |
//! | `m/names` | `Names` | destinations' names and numbers (u16); a number is never used again |
//! | `m/space` | `Space` | number of commits, bytes under `e/`, `p/`, `x/` and `q/`; in every batch |
//! | `m/ring` | `Ring` | up to 256 pairs of a moment and the lowest floor then, for `retention` |
//! | `e/<seq u64>` | `ChunkRecord` | consecutive events: who takes each, and its body |
//! | `c/<community i64>` | `Checkpoint` | the ts VK is asked with next, when committed, when VK was last heard, the latest gap to be filled |
//! | `d/<destination u16>` | `DestinationRecord` | cursor, counters, last success, outage, pause |
//! | `p/<destination><community i64><tag u8><id i64><seq>` | `AsideRecord` | an event of a blocked chat, moved aside; tag 0 common, 1 peer, 2 user |
//! | `x/<destination><seq>` | `DeadRecord` | a dead letter with its history and event |
//! | `y/<destination><seq>` | `MarkRecord` | that an event was discarded, or had expired; as long as it is in the log |
//! | `r/<destination><seq>` | `History` | attempts of an event that is still pending |
//! | `g/<number u64>` | `GapRecord` | what VK lost, and what of it was fetched back |
//! | `k/<community i64><peer i64>` | `ChatRecord` | with `vk.backfill`: the last message of a chat, and which are missing since a gap |
//! | `q/<number u64>` | `QuarantineRecord` | an update that could not be read |
//! | `j/<number u64>` | `ReplayRecord` | a replay, and how it goes; of destination 65535: quarantine, to be converted again |
//! | `a/<number u64>` | `AuditRecord` | what an operator changed: the latest thousand |
//!
//! # Records
//!
//! A record is its struct in [`records`], in postcard's encoding, fields in order. Its value is framed:
//!
//! ```text
//! version u8 = 1 | further parts u16 | length u32 | CRC-32 (IEEE) of the whole record u32 | the first 16 KiB of the record
//! ```
//!
//! (big endian). What does not fit lies in parts of 16 KiB under the record's key followed by the part's number as u16,
//! from 1. Every prefix has keys of one length, so a part is told by its longer key. No value exceeds 16 KiB and the frame:
//! a larger one could reach sled's `blobs/`, which it never syncs.
//!
//! # Rules
//!
//! - **The log is exactly `[tail, next)`.** Chunks are contiguous; a chunk's key is its first event's position. Appends and
//!   deletions carry `m/head` in the same batch. A chunk is packed up to 16 KiB; a larger event stands alone, in parts.
//! - **An event and the ts that covers it are one batch**, with its quarantined neighbours and the gap record, if any.
//! - **A cursor** is a horizon and the unsettled positions below it, as runs from the floor on, in turns: unsettled, then
//!   settled or not ours. The floor is the first unsettled position. It never passes an event that is neither settled nor
//!   moved aside in the same batch. The horizon is at most 131,072 ahead of it. A destination with nothing pending has
//!   floor = next once it has looked; a new one begins at next.
//! - **A chat that blocks is moved aside** when the look-ahead or the memory for waiting events is used up: its events get
//!   rows of their own under `p/`, and each further one as it is met, until none is left there.
//! - **Counters ride in the records**: for each destination routed (`m/head`) = pending + delivered + dead + expired +
//!   discarded (`d/`); pending is what remains.
//! - **Retention**: the log is deleted from its front, whole chunks, up to the lowest floor of at least `retention` ago; up
//!   to the lowest floor there is, when room is short. A destination without a worker for which nothing in the log waits has
//!   no floor; its cursor follows.
//! - **Relief**: when that is not enough, and under half of the log is pending, what is pending in its front chunk goes aside.
//! - **Space**: used = min(files, 2 x bytes under `e/ p/ x/ q/`). Polling stops at `max_bytes` of that, or when the volume has
//!   `min_free_bytes` left, and goes on below nine tenths of the one and above eleven tenths of the other.
//! - **A new generation** is begun when the files are over 64 MiB and four times what is live, or when room is short and they
//!   hold slack. Keys are copied in order, in slices between commits; what is written meanwhile below the position goes to
//!   both; it is synced as it grows, and at its end; then `CURRENT` is renamed.
//! - **Repeats** are dropped by (community, event id) among the last 10,000 events, read from the log's end when opening.
//! - **A dead letter** has its event with it; its chunk may go. It carries the number of the last replay that was
//!   made before it died: a replay tries those with a number less than its own, so that what was pending when it was made is
//!   not meant, whatever the clock says. A success deletes the row, a refusal writes the replay's number into it. An expired
//!   event's mark has such a number, too. A replay of quarantine goes on from `order.filter.from`. The latest hundred replays
//!   that are over are kept.
//! - **One writer thread** makes one batch of what has queued up, `flush()`, `fdatasync`, then answers. A failed commit ends
//!   all writing. Readers see only what is durable.
//!
//! Deliberately absent: a copy of an event per destination, a row per delivery, any second queue.

pub mod audit;
pub mod chats;
pub mod cursor;
pub mod discard;
pub mod error;
pub mod filter;
pub mod frame;
pub mod gaps;
pub mod generations;
pub mod groups;
pub mod handle;
pub mod inspect;
pub mod keys;
pub mod kv;
pub mod log;
pub mod look;
pub mod lookup;
pub mod open;
pub mod operations;
pub mod operator;
pub mod pauses;
pub mod records;
pub mod replay;
pub mod requests;
pub mod rows;
pub mod salvage;
pub mod settings;
pub mod sled_kv;
pub mod space;
pub mod state;
pub mod verify;
pub mod views;

mod changes;
mod copying;
mod current;
mod filling;
mod found;
mod lock;
mod quarantine;
mod reads;
mod repeats;
mod reserve;
mod salvage_books;
mod salvaging;
mod scan;
mod sled_log;
mod soundness;
mod trim;
mod unfinished;
mod upkeep;
mod window;
mod writer;

pub use cursor::Cursor;
pub use error::OutboxError;
pub use handle::Outbox;
pub use lock::Lock;
pub use look::Look;
pub use open::Store;
pub use reads::{Page, Resume};
pub use requests::{
    Append, Appended, Change, Discard, Fetched, FetchedAs, Filled, Heard, Operation, Place, Reconverted, Settlement,
    Turned,
};
pub use settings::Settings;
