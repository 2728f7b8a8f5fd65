//! The tree over a store's pages: from its root down to the leaves, which hold the records. Deliberately absent: what a leaf
//! holds (`pages`).

use std::cmp::Reverse;
use std::collections::HashSet;

use super::page::{Data, Link, Node};
use super::pages::{Leaf, NOWHERE, Pages, View};
use crate::outbox::keys;
use crate::outbox::kv::KvError;

/// From a key on, below another; an empty one is the end.
type Range = (Vec<u8>, Vec<u8>);

impl Pages {
    /// Finds the leaves and puts them in order.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(in crate::outbox) fn find_leaves(&mut self) -> Result<(), KvError> {
        if !self.leaves.is_empty() {
            return Ok(());
        }
        let mut seen = HashSet::new();
        let holes = self.walk(&mut seen)?;
        self.settle(holes, &seen)
    }

    /// Goes down the tree from its root to the leaves. Answers the ranges of which nothing is left.
    fn walk(&mut self, seen: &mut HashSet<u64>) -> Result<Vec<Range>, KvError> {
        let mut holes = Vec::new();
        let mut open = vec![(self.root, Vec::new(), Vec::new())];
        while let Some((page, low, high)) = open.pop() {
            let Some(id) = page.filter(|page| self.pages.contains_key(page) && seen.insert(*page)) else {
                holes.push((low, high));
                continue;
            };
            let Some(base) = self.pages.get(&id).and_then(|page| page.base) else {
                self.leaves.push(Leaf { low, high, page: id });
                continue;
            };
            let bytes = self.body(base)?;
            let Some(node) = bytes.as_deref().and_then(Node::read) else {
                holes.push((low, high));
                continue;
            };
            let (from, to) = (node.low.max(&low).to_vec(), lower(node.high, &high).to_vec());
            // It is older than those around it: sled would take its word for what is theirs.
            if self.view == View::AsOpened && node.high != to {
                self.finding(format!(
                    "page {id} of the store is older than those beside it, from {} on",
                    keys::readable(&to)
                ));
            }
            if low < from {
                holes.push((low, from.clone()));
            }
            if to != high {
                open.push((node.next, to.clone(), high));
            }
            match &node.data {
                Data::Leaf(_) => self.leaves.push(Leaf { low: from, high: to, page: id }),
                Data::Index(children) => {
                    let children = self.children(id, children, node.merging)?;
                    let starts: Vec<Vec<u8>> = children.iter().map(|(key, _)| [node.prefix, key].concat()).collect();
                    let ends = starts.iter().skip(1).cloned().chain([to.clone()]);
                    for ((start, end), (_, child)) in starts.iter().zip(ends).zip(&children) {
                        let (start, end) = (start.clone().max(from.clone()), lower(&end, &to).to_vec());
                        if end.is_empty() || start < end {
                            open.push((Some(*child), start, end));
                        }
                    }
                }
            }
        }
        Ok(holes)
    }

    /// The leaf that a key is in: from the root down.
    pub(super) fn leaf_down_to(&self, key: &[u8]) -> Result<Option<Leaf>, KvError> {
        let mut seen = HashSet::new();
        let mut at = self.root;
        while let Some(page) = at.filter(|page| seen.insert(*page)) {
            let unreadable = || KvError::Damaged(format!("page {page} of the store cannot be read"));
            let bytes = self.base(page)?;
            let node = bytes.as_deref().and_then(Node::read).ok_or_else(unreadable)?;
            at = match &node.data {
                _ if !node.high.is_empty() && key >= node.high => node.next,
                Data::Leaf(_) => return Ok(Some(Leaf { low: node.low.to_vec(), high: node.high.to_vec(), page })),
                Data::Index(children) => {
                    let children = self.children(page, children, node.merging)?;
                    let child =
                        children.iter().rev().find(|(start, _)| [node.prefix, start].concat().as_slice() <= key);
                    child.map(|(_, child)| *child)
                }
            };
        }
        Ok(None)
    }

    /// The children of an index, without those that are being put, or were put, into the ones to their left: these lead there.
    fn children(
        &self,
        page: u64,
        children: &[(&[u8], u64)],
        merging: Option<u64>,
    ) -> Result<Vec<(Vec<u8>, u64)>, KvError> {
        let there = children.iter().filter(|(_, child)| Some(*child) != merging);
        let mut children: Vec<_> = there.map(|(key, child)| (key.to_vec(), *child)).collect();
        for place in self.pages.get(&page).map_or(&[][..], |page| &page.links) {
            if let Some(Link::Merging(child)) = self.body(*place)?.as_deref().and_then(Link::read) {
                children.retain(|(_, other)| *other != child);
            }
        }
        Ok(children)
    }

    /// Puts the leaves in order. For a salvage, what the tree does not lead to any more fills its holes, the newest first.
    fn settle(&mut self, mut holes: Vec<Range>, seen: &HashSet<u64>) -> Result<(), KvError> {
        if self.view == View::Everything && !holes.is_empty() {
            let mut left: Vec<u64> = self.pages.keys().copied().filter(|page| !seen.contains(page)).collect();
            left.sort_by_key(|page| Reverse(self.pages.get(page).and_then(|page| page.base).map(|at| at.position)));
            for page in left {
                let Some((low, high)) = self.range(page)? else { continue };
                let mut still = Vec::new();
                for (from, to) in holes {
                    let (start, end) = (from.clone().max(low.clone()), lower(&to, &high).to_vec());
                    if !end.is_empty() && start >= end {
                        still.push((from, to));
                        continue;
                    }
                    if from < start {
                        still.push((from, start.clone()));
                    }
                    if end != to {
                        still.push((end.clone(), to));
                    }
                    self.leaves.push(Leaf { low: start, high: end, page });
                }
                holes = still;
            }
        }
        for (low, high) in holes {
            self.leaves.push(Leaf { low: low.clone(), high: high.clone(), page: NOWHERE });
            if low.is_empty() && high.is_empty() {
                continue;
            }
            let end = if high.is_empty() { "the end".to_owned() } else { keys::readable(&high) };
            self.finding(format!("the page of what was kept from {} to {end} cannot be found", keys::readable(&low)));
        }
        let baseless = |leaf: &&Leaf| self.pages.get(&leaf.page).is_some_and(|page| page.base.is_none());
        let words: Vec<String> = self.leaves.iter().filter(baseless).map(|leaf| keys::readable(&leaf.low)).collect();
        for low in words {
            self.finding(format!("of what was kept from {low} on only the latest changes can be read"));
        }
        self.leaves.sort_by(|one, other| one.low.cmp(&other.low));
        Ok(())
    }

    /// The keys that a leaf may have; nothing for what is no leaf, or empty.
    fn range(&self, page: u64) -> Result<Option<Range>, KvError> {
        let Some(base) = self.pages.get(&page).and_then(|page| page.base) else {
            let entries = self.page_entries(&Leaf { low: Vec::new(), high: Vec::new(), page })?;
            let (first, last) = (entries.first_key_value(), entries.last_key_value());
            return Ok(first
                .zip(last)
                .map(|((first, _), (last, _))| (first.clone(), [last.as_slice(), &[0]].concat())));
        };
        let Some(bytes) = self.body(base)? else { return Ok(None) };
        let node = Node::read(&bytes).filter(|node| matches!(node.data, Data::Leaf(_)));
        Ok(node.map(|node| (node.low.to_vec(), node.high.to_vec())))
    }
}

/// The lower of two ends, of which an empty one is none.
fn lower<'a>(one: &'a [u8], other: &'a [u8]) -> &'a [u8] {
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other,
        (_, true) => one,
        _ => one.min(other),
    }
}
