//! A page of sled's as its bytes: a node of the tree, or a change of one. Source: sled 0.34.7, `node.rs` and
//! `serialization.rs`. Deliberately absent: where pages are (the log) and which of them count (`pages`).

use super::{bytes, number, take};

/// A node of the tree.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    /// The node to its right.
    pub(super) next: Option<u64>,
    /// The first key that it may have, and the first one that it may not; empty where there is no end.
    pub(super) low: &'a [u8],
    pub(super) high: &'a [u8],
    /// What its keys begin with; they are kept without it.
    pub(super) prefix: &'a [u8],
    /// Which of its children is being put into the one to its left.
    pub(super) merging: Option<u64>,
    /// What it holds.
    pub(super) data: Data<'a>,
}

/// What a node holds, in the order of the keys.
#[derive(Clone, Debug)]
pub(super) enum Data<'a> {
    /// Keys and their values.
    Leaf(Vec<(&'a [u8], &'a [u8])>),
    /// Keys and the nodes that begin with them.
    Index(Vec<(&'a [u8], u64)>),
}

/// A change of a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Link<'a> {
    /// A key, without the node's prefix, has a value now.
    Set(&'a [u8], &'a [u8]),
    /// A key is gone.
    Del(&'a [u8]),
    /// A child is to be put into the one to its left.
    Merging(u64),
}

impl<'a> Node<'a> {
    /// Reads a node; nothing when the bytes are none.
    pub(super) fn read(mut rest: &'a [u8]) -> Option<Self> {
        let rest = &mut rest;
        let some_page = |page: u64| Some(page).filter(|page| *page > 0);
        let next = some_page(number(rest)?);
        let merging = some_page(number(rest)?);
        let _is_merging = take(rest, 1)?;
        let prefix = usize::from(take(rest, 1)?[0]);
        let (low, high) = (bytes(rest)?, bytes(rest)?);
        let kind = take(rest, 1)?[0];
        let count = number(rest)?;
        let mut keys = Vec::new();
        for _ in 0..count {
            keys.push(bytes(rest)?);
        }
        let data = match kind {
            0 => Data::Leaf(keys.into_iter().map(|key| Some((key, bytes(rest)?))).collect::<Option<_>>()?),
            1 => Data::Index(keys.into_iter().map(|key| Some((key, number(rest)?))).collect::<Option<_>>()?),
            _ => return None,
        };
        Some(Self { next, low, high, prefix: low.get(..prefix)?, merging, data })
    }
}

impl<'a> Link<'a> {
    /// Reads a change; nothing when the bytes are none, or one that only ends a merge.
    pub(super) fn read(mut rest: &'a [u8]) -> Option<Self> {
        let rest = &mut rest;
        Some(match take(rest, 1)?[0] {
            0 => Self::Set(bytes(rest)?, bytes(rest)?),
            1 => Self::Del(bytes(rest)?),
            2 => Self::Merging(number(rest)?),
            _ => return None,
        })
    }
}

/// The root of our tree, as the page of names tells it.
pub(super) fn root(mut rest: &[u8]) -> Option<u64> {
    let rest = &mut rest;
    while !rest.is_empty() {
        let (name, page) = (bytes(rest)?, number(rest)?);
        if name == b"__sled__default" {
            return Some(page);
        }
    }
    None
}
