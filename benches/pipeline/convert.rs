//! Conversion beside a bare typed pass of serde_json over the same bytes, in turns. Deliberately absent: names, routing.

use std::hint::black_box;
use std::time::Instant;

use super::lots::{Converting, Lot, floor, lots};
use super::table::{Aim, Figure};
use super::{Size, median};

/// How often each side goes over a lot of a hundred in a turn.
const PASSES: usize = 50;

pub(crate) fn measure(size: &Size) -> Vec<Figure> {
    println!();
    println!(
        "conversion of a hundred updates, {} rounds; floor: derived readers and writers of serde_json, the same bytes in and out",
        size.turns
    );
    println!("{:<16} {:>12} {:>12} {:>6}", "updates", "ours /s", "floor /s", "ratio");
    lots().into_iter().map(|lot| one(&lot, size.turns)).collect()
}

fn one(lot: &Lot, rounds: usize) -> Figure {
    let converting = Converting::default();
    let turn = |work: &dyn Fn() -> usize| {
        let start = Instant::now();
        for _ in 0..PASSES {
            black_box(work());
        }
        (PASSES * lot.updates.len()) as f64 / start.elapsed().as_secs_f64()
    };
    let (bare, ours) = (|| floor(black_box(lot)), || converting.convert(black_box(lot)));
    let mut told = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        let (floor, our) = match round % 2 {
            0 => (turn(&bare), turn(&ours)),
            _ => {
                let our = turn(&ours);
                (turn(&bare), our)
            }
        };
        if round > 0 {
            told.iter_mut().zip([our, floor, our / floor]).for_each(|(column, figure)| column.push(figure));
        }
    }
    let [ours, floor, ratio] = told.map(|column| median(&column));
    println!("{:<16} {ours:>12.0} {floor:>12.0} {ratio:>6.2}", lot.name);
    Figure {
        what: format!("conversion, {}", lot.name),
        ours: format!("{ours:.0}/s"),
        floor: format!("{floor:.0}/s"),
        value: ratio,
        aim: Aim::AtLeast(0.9),
    }
}
