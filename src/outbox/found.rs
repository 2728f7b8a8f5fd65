//! Rows that a look-up gathers, bounded in number and bytes. Deliberately absent: where they come from (`lookup`).

use std::collections::BTreeMap;

use super::views::{DeliveryView, Row};
use crate::domain::ids::Seq;

/// About how many bytes the rows of one answer have.
const EXPORT_BYTES: usize = 4 << 20;

/// Rows in the order of their positions, and whether there may be more.
pub(super) struct FoundRows {
    pub(super) rows: Vec<Row>,
    pub(super) bytes: usize,
    pub(super) limit: usize,
    pub(super) more: bool,
}

impl FoundRows {
    pub(super) fn is_full(&self) -> bool {
        self.more || self.rows.len() >= self.limit || self.bytes >= EXPORT_BYTES
    }

    pub(super) fn push(&mut self, row: Row) {
        self.bytes += row.content.as_ref().map_or(0, Vec::len);
        self.rows.push(row);
        self.more = self.is_full();
    }
}

/// The first rows by their positions, of rows that come in no order.
pub(super) struct First {
    pub(super) rows: BTreeMap<Seq, Row>,
    pub(super) bytes: usize,
    pub(super) limit: usize,
    /// There were more.
    pub(super) cut: bool,
}

impl First {
    pub(super) fn add(&mut self, seq: Seq, delivery: DeliveryView, row: impl FnOnce(DeliveryView) -> Row) {
        let size = |row: &Row| row.content.as_ref().map_or(0, Vec::len);
        match self.rows.get_mut(&seq) {
            Some(row) => row.deliveries.push(delivery),
            None => {
                let row = row(delivery);
                self.bytes += size(&row);
                self.rows.insert(seq, row);
            }
        }
        while self.rows.len() > self.limit || (self.bytes > EXPORT_BYTES && self.rows.len() > 1) {
            let Some((_, row)) = self.rows.pop_last() else { break };
            self.bytes -= size(&row);
            self.cut = true;
        }
    }
}
