//! Measures compaction on the real disk: a log of records of so many keys is filled, then cleaned in one pass, once with every record to be looked at and nothing else to do, once again with nothing
//! left to drop. What it says is bytes of log a second, by the clock and by the CPU time that the process spent, all its threads and the kernel's part for it included: the latter is
//! what one core gives.
//!
//! `cargo run --release -p ringlog-engine --example clean -- DIRECTORY [MEGABYTES] [KEYS] [VALUE_BYTES] [none|gzip|snappy|lz4|zstd]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nix::sys::resource::{UsageWho, getrusage};
use ringlog_engine::batch::{BatchBuilder, Compression, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::direct::DirectDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::{DirectEnvironment, Environment};
use ringlog_engine::log::{Log, TopicId, TopicPartition};

type DirectLog = std::rc::Rc<Log<DirectEnvironment<DirectDisk>>>;

/// Bytes of records in a batch, before compression.
const BATCH_BYTES: usize = 64 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let mut number = |default| {
        let text = arguments.next();
        text.map_or(Ok(default), |text| text.parse::<u64>())
    };
    let (megabytes, keys, value_bytes) = (number(512)?, number(100_000)?, number(200)?);
    let codec = match arguments.next().as_deref() {
        None | Some("none") => Compression::None,
        Some("gzip") => Compression::Gzip,
        Some("snappy") => Compression::Snappy,
        Some("lz4") => Compression::Lz4,
        Some("zstd") => Compression::Zstd,
        Some(other) => return Err(format!("{other} is no codec").into()),
    };
    let measured = measure(
        directory,
        megabytes << 20,
        keys,
        value_bytes as usize,
        codec,
    );
    compio::runtime::Runtime::new()?.block_on(measured)
}

async fn measure(
    directory: PathBuf,
    bytes: u64,
    keys: u64,
    value_bytes: usize,
    codec: Compression,
) -> Result<(), Box<dyn std::error::Error>> {
    let env = DirectEnvironment::new(DirectDisk::new());
    let mut config = EngineConfig::new(vec![directory]);
    config.cleaner_enabled = false;
    config.checkpoint_interval = Duration::from_millis(100);
    prepare_directories(&env, &config).await?;
    let (engine, _) = Engine::open(env.clone(), config).await?;
    let settings = LogConfig {
        segment_bytes: 64 << 20,
        compact: true,
        min_cleanable_dirty_millionths: 0,
        ..LogConfig::default()
    };
    let name = TopicPartition::new("clean", 0);
    let log = engine
        .create_log(name, TopicId([1; 16]), settings, None)
        .await?;
    fill(&log, bytes, keys, value_bytes, codec).await?;
    // Sealed and below the recovery point: a checkpoint or two.
    env.sleep(Duration::from_secs(3)).await;
    for what in ["with what a later record replaces", "with nothing to drop"] {
        let before = (engine.metrics().cleaner, log.size_bytes());
        let (started, cpu_before) = (Instant::now(), cpu_s()?);
        engine.clean_now(env.wall_clock_ms()).await;
        let (elapsed, cpu) = (started.elapsed(), cpu_s()? - cpu_before);
        let passes = engine.metrics().cleaner.passes - before.0.passes;
        let size_mb = before.1 as f64 / 1e6;
        let (rate, rate_of_core) = (size_mb / elapsed.as_secs_f64(), size_mb / cpu);
        println!(
            "{what}: {rate:.0} MB/s, {rate_of_core:.0} MB/s per core of CPU time ({passes} passes over {} MB in {elapsed:.2?} with {cpu:.2} s of CPU, {} MB stay)",
            before.1 / 1_000_000,
            log.size_bytes() / 1_000_000
        );
        // So that there is a dirty segment again: the passes go over all of the log.
        fill(&log, 80 << 20, 1, value_bytes, codec).await?;
        env.sleep(Duration::from_secs(3)).await;
    }
    println!("{:?}", engine.metrics().cleaner);
    engine.shutdown_clean().await?;
    Ok(())
}

/// Seconds of CPU time that this process has used, in user mode and in the kernel.
fn cpu_s() -> Result<f64, nix::Error> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Appends records whose keys go round, in an order that is not theirs.
async fn fill(
    log: &DirectLog,
    bytes: u64,
    keys: u64,
    value_bytes: usize,
    codec: Compression,
) -> Result<(), Box<dyn std::error::Error>> {
    let rules = ProduceRules {
        max_message_bytes: usize::MAX,
        ..ProduceRules::default()
    };
    let value: Vec<u8> = (0..value_bytes).map(|at| (at * 7 % 31) as u8).collect();
    let (mut number, mut done) = (0u64, 0);
    while done < bytes {
        let mut builder = BatchBuilder::new().compression(codec);
        let mut size = 0;
        while size < BATCH_BYTES {
            let key = format!("key-{:012}", number.wrapping_mul(0x9e37_79b9) % keys);
            builder = builder.record(rules.now_ms, Some(key.as_bytes()), Some(&value));
            size += value_bytes + 30;
            number += 1;
        }
        let batch = Bytes::from(builder.build()?);
        done += size as u64;
        let appended = log.append(batch, &rules, 1).await?;
        if number % 64 == 0 || done >= bytes {
            log.flushed(appended.last_offset + 1).await?;
        }
    }
    let end = log.log_end_offset();
    log.flushed(end).await?;
    Ok(())
}
