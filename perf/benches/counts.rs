//! Instructions of the hot paths, counted under callgrind: the same on every run, whatever else the machine does. `ci/counts` runs it and compares.

#![expect(
    missing_docs,
    reason = "the macros of the benchmark libraries make undocumented items"
)]

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use ringlog_engine::batch::Compression;
use ringlog_perf::engine::{IndexLookup, JournalEntry, OneLog};
use ringlog_perf::hop::Hop;
use ringlog_perf::records::{Sequence, Validate};
use ringlog_perf::wire::{Decode, Encode};

#[library_benchmark]
#[bench::produce_1(Decode::produce(1))]
#[bench::produce_100(Decode::produce(100))]
#[bench::fetch_100(Decode::fetch(100))]
fn decode(path: Decode) {
    black_box(path.run());
    std::mem::forget(path);
}

#[library_benchmark]
#[bench::produce_1(Encode::produce(1))]
#[bench::produce_100(Encode::produce(100))]
#[bench::fetch_100(Encode::fetch(100))]
fn encode(path: Encode) {
    black_box(path.run());
    std::mem::forget(path);
}

#[library_benchmark]
#[bench::one_1k(Validate::new(1, 1024, Compression::None))]
#[bench::thousand_100(Validate::new(1000, 100, Compression::None))]
#[bench::thousand_100_lz4(Validate::new(1000, 100, Compression::Lz4))]
#[bench::thousand_100_zstd(Validate::new(1000, 100, Compression::Zstd))]
fn validate(path: Validate) {
    black_box(path.run());
    std::mem::forget(path);
}

#[library_benchmark]
#[bench::one_of_1000(Sequence::new())]
fn sequence(mut path: Sequence) {
    for _ in 0..100 {
        black_box(path.run());
    }
    std::mem::forget(path);
}

/// The work that `ci/counts --plant` puts into a path.
#[cfg(feature = "planted")]
fn planted() {
    let told = option_env!("RINGLOG_PLANTED_TURNS");
    let turns: u64 = told.map_or(0, |told| told.parse().expect("a number"));
    // A number that the compiler does not know: it would put the turns one behind the other, an instruction each.
    for turn in 0..black_box(turns) {
        black_box(turn);
    }
}

#[library_benchmark]
#[bench::ten_1k(OneLog::new(10, 1024))]
fn append(path: OneLog) {
    for _ in 0..10 {
        black_box(path.append());
        #[cfg(feature = "planted")]
        planted();
    }
    std::mem::forget(path);
}

#[library_benchmark]
#[bench::fifty_1k(OneLog::new(100, 1024))]
fn read_tail(path: OneLog) {
    black_box(path.read());
    std::mem::forget(path);
}

#[library_benchmark]
#[bench::one_1k(JournalEntry::new(1))]
#[bench::hundred_1k(JournalEntry::new(100))]
fn journal_entry(path: JournalEntry) {
    black_box(path.run());
    std::mem::forget(path);
}

#[library_benchmark]
#[bench::full(IndexLookup::new(262_144))]
fn index_lookup(mut path: IndexLookup) {
    for _ in 0..100 {
        black_box(path.run());
    }
    std::mem::forget(path);
}

#[library_benchmark]
#[bench::there_and_back(1, Hop::new())]
#[bench::hundred_at_once(100, Hop::new())]
fn mailbox_hop(calls: u64, mut path: Hop) {
    black_box(path.run(calls));
    std::mem::forget(path);
}

library_benchmark_group!(
    name = paths,
    benchmarks = [
        decode,
        encode,
        validate,
        sequence,
        append,
        read_tail,
        journal_entry,
        index_lookup,
        mailbox_hop
    ]
);

main!(library_benchmark_groups = paths);
