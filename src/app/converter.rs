//! Makes events of updates that were read: looks up the names they want, writes them, finds who takes them. Deliberately
//! absent: where updates come from (`ingest`, `reconvert`).

use std::collections::HashSet;

use crate::domain::convert::{self, Facts, Name, NameBook, Update, Writing};
use crate::domain::event::Event;
use crate::domain::route::Rule;
use crate::domain::time::Moment;
use crate::metrics::Metrics;
use crate::outbox::keys::DestinationId;
use crate::vk::Names;

/// What events are made with.
pub struct Converter {
    /// Looks names up.
    pub names: Names,
    /// Who takes what.
    pub rules: Vec<(DestinationId, Rule)>,
    /// How events are written.
    pub events: convert::Settings,
    /// Where it counts.
    pub metrics: Metrics,
}

impl Converter {
    /// The names that updates want, in one look-up.
    pub async fn look_up<'a>(&self, updates: impl Iterator<Item = &'a Update<'a>>) -> NameBook {
        let (mut people, mut chats) = (HashSet::new(), HashSet::new());
        for update in updates {
            let wanted = update.wanted();
            people.extend(wanted.people());
            chats.extend(wanted.chat);
        }
        let mut book = NameBook::default();
        if people.is_empty() && chats.is_empty() {
            return book;
        }
        let found = self.names.look_up(&people, &chats).await;
        for (id, person) in found.people {
            book.insert_person(id, Name { name: person.name, nick: person.nick });
        }
        for (peer, title) in found.chats {
            book.insert_chat(peer, title);
        }
        book
    }

    /// What the events of about as many updates are written with.
    #[must_use]
    pub fn writing(&self, at: Moment, updates: usize) -> Writing<'_> {
        Writing::new(at, &self.events, updates)
    }

    /// The event of an update, and who takes it.
    #[must_use]
    pub fn event(&self, update: Update<'_>, book: &NameBook, writing: &mut Writing<'_>) -> (Event, Vec<DestinationId>) {
        let takers = self.takers(&update);
        (update.into_event(book, writing), takers)
    }

    /// Who takes the event of an update; it counts as converted.
    #[must_use]
    pub fn takers(&self, update: &Update<'_>) -> Vec<DestinationId> {
        let facts: Facts<'_> = update.facts(&self.events);
        self.metrics.converted(facts.event_type);
        self.rules.iter().filter(|(_, rule)| rule.takes(&facts)).map(|(id, _)| *id).collect()
    }
}
