//! The choices the storage and the read path rest on, by criterion, so that anybody can measure them again: how to append durably, how to get bytes from a file to a
//! socket, which crate computes CRC-32C. `cargo bench -p ringlog-perf --bench choices`; RINGLOG_PERF_FOLDER names a folder on the disk to measure, by
//! default `target/`. For looking, not for deciding: this depends on the machine and on what else it does.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::sendfile::sendfile;
use ringlog_engine::memory::MemoryPool;

/// Bytes of the file that is written and read, round and round.
const FILE_BYTES: u64 = 64 << 20;
const READ_BYTES: usize = 1 << 20;

fn folder() -> PathBuf {
    let folder = std::env::var_os("RINGLOG_PERF_FOLDER")
        .or_else(|| std::env::var_os("CARGO_TARGET_DIR"))
        .map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"),
            PathBuf::from,
        );
    std::fs::create_dir_all(&folder).expect("a folder to measure in");
    folder
}

/// How an append gets to the medium.
#[derive(Clone, Copy)]
enum Append {
    /// Into the page cache and no further: what a broker does that acknowledges before the medium.
    Buffered,
    /// Into the page cache, then `fdatasync`.
    Synced,
    /// Past the page cache and durable, into space that was allocated and never written.
    DirectAllocated,
    /// The same into space that has been written before: what the journal does.
    DirectWritten,
    /// Past the page cache, not flushed.
    DirectNotFlushed,
}

const APPENDS: [(&str, Append); 5] = [
    ("buffered, never flushed", Append::Buffered),
    ("buffered, fdatasync", Append::Synced),
    ("O_DIRECT O_DSYNC, allocated", Append::DirectAllocated),
    ("O_DIRECT O_DSYNC, written before", Append::DirectWritten),
    (
        "O_DIRECT, written before, not flushed",
        Append::DirectNotFlushed,
    ),
];

impl Append {
    fn open(self) -> File {
        let path = folder().join(format!("ringlog-perf-append-{}", std::process::id()));
        let flags = match self {
            Append::Buffered | Append::Synced => OFlag::empty(),
            Append::DirectNotFlushed => OFlag::O_DIRECT,
            Append::DirectAllocated | Append::DirectWritten => OFlag::O_DIRECT | OFlag::O_DSYNC,
        };
        let open = |flags: OFlag, new: bool| {
            let mut options = OpenOptions::new();
            options
                .read(true)
                .write(true)
                .create(new)
                .truncate(new)
                .custom_flags(flags.bits());
            options.open(&path).expect("a file to append to")
        };
        let plain = open(OFlag::empty(), true);
        fallocate(plain.as_fd(), FallocateFlags::empty(), 0, FILE_BYTES as i64)
            .expect("space for it");
        if matches!(self, Append::DirectWritten | Append::DirectNotFlushed) {
            let zeros = vec![0; 1 << 20];
            for at in 0..FILE_BYTES / zeros.len() as u64 {
                plain
                    .write_all_at(&zeros, at * zeros.len() as u64)
                    .expect("written");
            }
        }
        plain.sync_all().expect("synced");
        let file = open(flags, false);
        // Open files live on without a name: nothing is left behind however this ends.
        std::fs::remove_file(&path).expect("removed");
        file
    }
}

fn appends(criterion: &mut Criterion) {
    let pool = MemoryPool::new(64 << 20);
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        let mut group = criterion.benchmark_group(format!("append {} KiB", bytes >> 10));
        group
            .throughput(Throughput::Bytes(bytes as u64))
            .sample_size(10);
        let mut buffer = pool.buffer(bytes);
        buffer.extend_zeros(bytes);
        for (name, append) in APPENDS {
            let file = append.open();
            let mut at = 0;
            group.bench_function(name, |b| {
                b.iter(|| {
                    // Space is allocated and not written but once: the next round over the file would be of another kind.
                    if at + bytes as u64 > FILE_BYTES {
                        at = 0;
                        if matches!(append, Append::DirectAllocated) {
                            let holes = FallocateFlags::FALLOC_FL_ZERO_RANGE;
                            fallocate(file.as_fd(), holes, 0, FILE_BYTES as i64)
                                .expect("unwritten again");
                        }
                    }
                    file.write_all_at(buffer.as_slice(), at).expect("appended");
                    if matches!(append, Append::Synced) {
                        file.sync_data().expect("synced");
                    }
                    at += bytes as u64;
                });
            });
        }
        group.finish();
    }
}

/// A socket whose other end swallows everything.
fn drained() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let Ok((mut socket, _)) = listener.accept() else {
            return;
        };
        let mut buffer = vec![0; 1 << 20];
        while socket.read(&mut buffer).is_ok_and(|count| count > 0) {}
    });
    TcpStream::connect(address).expect("connected")
}

fn fetches(criterion: &mut Criterion) {
    let pool = MemoryPool::new(64 << 20);
    let mut buffer = pool.buffer(READ_BYTES);
    buffer.extend_zeros(READ_BYTES);
    let file = Append::DirectWritten.open();
    let path = folder().join(format!("ringlog-perf-fetch-{}", std::process::id()));
    std::fs::write(&path, vec![1; FILE_BYTES as usize]).expect("a file to read");
    let cached = File::open(&path).expect("the file");
    std::fs::remove_file(&path).expect("removed");
    let mut group = criterion.benchmark_group("send 1 MiB to a socket");
    group
        .throughput(Throughput::Bytes(READ_BYTES as u64))
        .sample_size(20);
    let mut socket = drained();
    group.bench_function("from memory (the tail)", |b| {
        b.iter(|| socket.write_all(buffer.as_slice()).expect("sent"));
    });
    let mut at = 0;
    let mut next = move || {
        at = (at + READ_BYTES as u64) % FILE_BYTES;
        at
    };
    group.bench_function("O_DIRECT read, then send (cold)", |b| {
        b.iter(|| {
            file.read_exact_at(buffer.as_mut_slice(), next())
                .expect("read");
            socket.write_all(buffer.as_slice()).expect("sent");
        });
    });
    group.bench_function("sendfile (page cache)", |b| {
        b.iter(|| {
            let mut offset = next() as i64;
            let mut left = READ_BYTES;
            while left > 0 {
                left -= sendfile(socket.as_fd(), cached.as_fd(), Some(&mut offset), left)
                    .expect("sent");
            }
        });
    });
    group.finish();
}

fn checksums(criterion: &mut Criterion) {
    for bytes in [100, 1024, 64 << 10] {
        let data: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
        assert_eq!(
            crc_fast::crc32_iscsi(&data),
            crc32c::crc32c(&data),
            "the same sum"
        );
        let mut group = criterion.benchmark_group("CRC-32C");
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_with_input(BenchmarkId::new("crc-fast", bytes), &data, |b, data| {
            b.iter(|| crc_fast::crc32_iscsi(black_box(data)));
        });
        group.bench_with_input(BenchmarkId::new("crc32c", bytes), &data, |b, data| {
            b.iter(|| crc32c::crc32c(black_box(data)));
        });
        group.finish();
    }
}

criterion_group!(choices, appends, fetches, checksums);
criterion_main!(choices);
