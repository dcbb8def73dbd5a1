//! What the machine itself can do, measured in the same run as the brokers: durable writes of its disk, a bare send loop, and servers that only answer
//! ([`floor`]).
//!
//! A broker's latency can only be judged beside the device it writes to, and its cost per byte beside the cheapest way to move
//! bytes. Files are written before they are measured, since a disk's first write to an extent costs about twice as much.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::latency::{Latencies, Summary};
pub use floor::{FloorFigures, floor};

mod floor;

/// Alignment that O_DIRECT asks for.
const ALIGN: usize = 4096;
const SMALL_FILE_BYTES: usize = 16 << 20;
const LARGE_FILE_BYTES: usize = 256 << 20;
const LARGE_WRITE_BYTES: usize = 1 << 20;
/// Writes in flight for the sequential figure.
const DEPTH: usize = 4;
const SEND_BYTES: usize = 2 << 30;
const SEND_PIECE_BYTES: usize = 1 << 20;

/// What the disk does.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceFigures {
    /// 4 KiB writes, O_DIRECT | O_DSYNC, one after another, over blocks already written.
    pub durable_4k: Summary,
    /// The same without O_DSYNC.
    pub direct_4k: Summary,
    /// 1 MiB writes, O_DIRECT | O_DSYNC, four at a time, over blocks already written: 10⁶ bytes per second.
    pub durable_1m_mb_per_s: f64,
    /// The same without O_DSYNC.
    pub direct_1m_mb_per_s: f64,
}

/// What a bare send loop costs.
#[derive(Clone, Debug, Serialize)]
pub struct SendFigures {
    /// 10⁶ bytes per second over loopback.
    pub mb_per_s: f64,
    /// CPU seconds of the sending thread per 10⁹ bytes.
    pub sender_s_per_gb: f64,
}

/// A buffer whose useful part begins at a multiple of [`ALIGN`].
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let bytes = vec![0x5a; len + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Aligned { bytes, start, len }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    fn get_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

fn open(path: &Path, durable: bool) -> io::Result<File> {
    let mut flags = rustix::fs::OFlags::DIRECT;
    if durable {
        flags |= rustix::fs::OFlags::DSYNC;
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Measures the disk under `folder`, spending about `patience` on each figure. Leaves no file behind.
pub fn device(folder: &Path, patience: Duration) -> io::Result<DeviceFigures> {
    with_file(folder, |path| measure(path, patience))
}

/// Measures with a file of its own under `folder`, and removes it.
fn with_file<T>(folder: &Path, measure: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = folder.join(format!("ringlog-bench-probe-{}", std::process::id()));
    let figures = measure(&path);
    let removed = std::fs::remove_file(&path);
    let figures = figures?;
    removed?;
    Ok(figures)
}

fn measure(path: &Path, patience: Duration) -> io::Result<DeviceFigures> {
    let prepare = open(path, false)?;
    let chunk = Aligned::new(LARGE_WRITE_BYTES);
    for at in (0..LARGE_FILE_BYTES).step_by(LARGE_WRITE_BYTES) {
        prepare.write_all_at(chunk.get(), at as u64)?;
    }
    prepare.sync_all()?;
    Ok(DeviceFigures {
        durable_4k: small_writes(&open(path, true)?, patience)?,
        direct_4k: small_writes(&open(path, false)?, patience)?,
        durable_1m_mb_per_s: large_writes(path, true, patience)?,
        direct_1m_mb_per_s: large_writes(path, false, patience)?,
    })
}

fn small_writes(file: &File, patience: Duration) -> io::Result<Summary> {
    let block = Aligned::new(ALIGN);
    let mut latencies = Latencies::new(0);
    let begun = Instant::now();
    for at in (0..SMALL_FILE_BYTES).step_by(ALIGN).cycle() {
        let before = begun.elapsed();
        if before > patience {
            break;
        }
        file.write_all_at(block.get(), at as u64)?;
        let after = begun.elapsed();
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        latencies.record(nanos(after), nanos(after - before), 1);
    }
    latencies
        .summary()
        .ok_or_else(|| io::Error::other("the disk finished no write at all"))
}

fn large_writes(path: &Path, durable: bool, patience: Duration) -> io::Result<f64> {
    let begun = Instant::now();
    let part = LARGE_FILE_BYTES / DEPTH;
    let written: io::Result<Vec<usize>> = std::thread::scope(|scope| {
        let writer = |index: usize| {
            move || -> io::Result<usize> {
                let file = open(path, durable)?;
                let chunk = Aligned::new(LARGE_WRITE_BYTES);
                let mut written = 0;
                for at in (0..part).step_by(LARGE_WRITE_BYTES).cycle() {
                    if begun.elapsed() > patience {
                        break;
                    }
                    file.write_all_at(chunk.get(), (index * part + at) as u64)?;
                    written += LARGE_WRITE_BYTES;
                }
                Ok(written)
            }
        };
        let threads: Vec<_> = (0..DEPTH).map(|index| scope.spawn(writer(index))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, io::Result<usize>>| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a writing thread failed")))
        };
        threads.into_iter().map(join).collect()
    });
    Ok(written?.iter().sum::<usize>() as f64 / begun.elapsed().as_secs_f64() / 1e6)
}

/// CPU nanoseconds of the calling thread so far.
fn thread_cpu_ns() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text
        .split_whitespace()
        .next()
        .and_then(|field| field.parse().ok());
    first.ok_or_else(|| io::Error::other("/proc/thread-self/schedstat has no CPU time"))
}

/// Sends 2 GiB from memory over a loopback connection, 1 MiB per write.
pub fn send_loop() -> io::Result<SendFigures> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    let (mut receiver, _) = listener.accept()?;
    let reader = std::thread::spawn(move || -> io::Result<()> {
        let mut buffer = vec![0; SEND_PIECE_BYTES];
        while receiver.read(&mut buffer)? > 0 {}
        Ok(())
    });
    let piece = vec![0x5a; SEND_PIECE_BYTES];
    let (begun, cpu) = (Instant::now(), thread_cpu_ns()?);
    for _ in 0..SEND_BYTES / SEND_PIECE_BYTES {
        sender.write_all(&piece)?;
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), thread_cpu_ns()? - cpu);
    drop(sender);
    reader
        .join()
        .map_err(|_| io::Error::other("the reading thread failed"))??;
    Ok(SendFigures {
        mb_per_s: SEND_BYTES as f64 / seconds / 1e6,
        sender_s_per_gb: cpu as f64 / SEND_BYTES as f64,
    })
}

#[cfg(test)]
mod tests {
    //! Both probes give figures that can be true.
    use super::*;

    #[test]
    fn send_loop_costs_something() {
        let figures = send_loop().unwrap();
        assert!(
            figures.mb_per_s > 1.0 && figures.sender_s_per_gb > 0.0,
            "{figures:?}"
        );
    }

    #[test]
    fn aligned_buffers_are_aligned() {
        for len in [ALIGN, LARGE_WRITE_BYTES] {
            let buffer = Aligned::new(len);
            assert_eq!(
                (buffer.get().as_ptr() as usize % ALIGN, buffer.get().len()),
                (0, len)
            );
        }
    }
}
