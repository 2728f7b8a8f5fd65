//! Conversion beside its floor, for a close look: compare the two lines of a group, not absolute numbers. `pipeline` has the
//! ratios, in turns.
#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

#[path = "rig/lots.rs"]
mod lots;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lots::{Converting, floor, lots};

fn conversion(criterion: &mut Criterion) {
    for lot in lots() {
        let mut group = criterion.benchmark_group(lot.name);
        let converting = Converting::default();
        group.throughput(Throughput::Elements(lot.updates.len() as u64));
        group.bench_function("floor", |bencher| bencher.iter(|| floor(black_box(&lot))));
        group.bench_function("convert", |bencher| bencher.iter(|| converting.convert(black_box(&lot))));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = conversion
}
criterion_main!(benches);
