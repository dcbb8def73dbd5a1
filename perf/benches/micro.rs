//! The hot paths against the clock, by criterion: `cargo bench -p ringlog-perf --bench micro`. For looking, not for deciding: this depends on the machine
//! and on what else it does.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringlog_engine::batch::Compression;
use ringlog_perf::engine::{IndexLookup, JournalEntry, OneLog};
use ringlog_perf::hop::Hop;
use ringlog_perf::records::{Sequence, Validate};
use ringlog_perf::wire::{Decode, Encode};

fn wire(criterion: &mut Criterion) {
    for (name, path) in [
        ("produce of 1 partition", Decode::produce(1)),
        ("produce of 100 partitions", Decode::produce(100)),
        ("fetch of 100 partitions", Decode::fetch(100)),
    ] {
        criterion.bench_function(&format!("decode a {name}"), |b| b.iter(|| path.run()));
    }
    for (name, path) in [
        ("produce of 1 partition", Encode::produce(1)),
        ("produce of 100 partitions", Encode::produce(100)),
        ("fetch of 100 partitions", Encode::fetch(100)),
    ] {
        criterion.bench_function(&format!("answer a {name}"), |b| b.iter(|| path.run()));
    }
}

fn records(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("check a batch");
    for (name, count, bytes, compression) in [
        ("1 record of 1 KiB", 1, 1024, Compression::None),
        ("1000 records of 1 KiB", 1000, 1024, Compression::None),
        ("1000 records of 100 B", 1000, 100, Compression::None),
        ("1000 records of 100 B, lz4", 1000, 100, Compression::Lz4),
        ("1000 records of 100 B, zstd", 1000, 100, Compression::Zstd),
    ] {
        let path = Validate::new(count, bytes, compression);
        group.throughput(Throughput::Bytes(path.bytes() as u64));
        group.bench_function(name, |b| b.iter(|| path.run()));
    }
    group.finish();
    let mut path = Sequence::new();
    criterion.bench_function("check and note a sequence", |b| b.iter(|| path.run()));
}

fn engine(criterion: &mut Criterion) {
    let path = OneLog::new(1000, 1024);
    criterion.bench_function("read 1 MiB of the tail", |b| b.iter(|| path.read()));
    for count in [1, 100] {
        let path = JournalEntry::new(count);
        criterion.bench_function(&format!("a journal entry of {count} KiB"), |b| {
            b.iter(|| path.run())
        });
    }
    let mut path = IndexLookup::new(262_144);
    criterion.bench_function("find an offset in a full index", |b| b.iter(|| path.run()));
}

fn shards(criterion: &mut Criterion) {
    for calls in [1, 100] {
        let mut path = Hop::new();
        criterion.bench_function(&format!("{calls} calls to another shard and back"), |b| {
            b.iter(|| path.run(calls))
        });
    }
}

criterion_group!(paths, wire, records, engine, shards);
criterion_main!(paths);
