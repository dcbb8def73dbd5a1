//! Measures raw append through the engine on the real disk: how many MB/s of batches become durable in journal entries of about a mebibyte, first
//! only into the journal (as much as the tail cache holds back from the segments), then sustained with segments written behind.
//!
//! `cargo run --release -p ringlog-engine --example append -- DIRECTORY [MEGABYTES] [BATCH_BYTES]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::direct::DirectDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::DirectEnvironment;
use ringlog_engine::log::{Log, TopicId, TopicPartition};

type DirectLog = std::rc::Rc<Log<DirectEnvironment<DirectDisk>>>;

/// Batches on their way at a time.
const IN_FLIGHT: usize = 16;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("which directory?")?);
    let megabytes: u64 = arguments.next().map_or(Ok(2048), |text| text.parse())?;
    let batch_bytes: usize = arguments
        .next()
        .map_or(Ok(1_000_000), |text| text.parse())?;
    compio::runtime::Runtime::new()?.block_on(measure(directory, megabytes, batch_bytes))
}

async fn measure(
    directory: PathBuf,
    megabytes: u64,
    batch_bytes: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let env = DirectEnvironment::new(DirectDisk::new());
    let builder = BatchBuilder::new().record(1, None, Some(&vec![7; batch_bytes]));
    let batch = Bytes::from(builder.build()?);
    let count = |bytes: u64| (bytes / batch.len() as u64).max(1);

    // The journal alone, into files written before: nothing is written behind, and what was appended is cut off again between rounds, so that the same
    // memory is used again, as it is by a broker that has run for a while.
    let mut config = EngineConfig::new(vec![directory.join("journal-only")]);
    config.write_behind_bytes = u64::MAX;
    config.write_behind_age = Duration::from_secs(3600);
    config.checkpoint_interval = Duration::from_secs(3600);
    config.journal_first_file_bytes = 512 << 20;
    config.journal_bytes_max = 4 << 30;
    let (engine, log) = open(&env, config).await?;
    let (round, rounds) = (count(14 << 20), 40);
    append(&log, &batch, round).await?;
    let before = engine.metrics().journal.entries;
    let mut elapsed = Duration::ZERO;
    for _ in 0..rounds {
        log.truncate_to(0).await?;
        let started = Instant::now();
        append(&log, &batch, round).await?;
        elapsed += started.elapsed();
    }
    let entries = engine.metrics().journal.entries - before;
    report(
        "journal only",
        elapsed,
        rounds * round * batch.len() as u64,
        entries,
    );
    drop((engine, log));

    let config = EngineConfig::new(vec![directory.join("sustained")]);
    let (engine, log) = open(&env, config).await?;
    let started = Instant::now();
    append(&log, &batch, count(megabytes << 20)).await?;
    let entries = engine.metrics().journal.entries;
    report(
        "sustained, segments included",
        started.elapsed(),
        count(megabytes << 20) * batch.len() as u64,
        entries,
    );
    println!("{:?}", engine.metrics());
    engine.shutdown_clean().await?;
    report(
        "sustained, with a clean stop",
        started.elapsed(),
        count(megabytes << 20) * batch.len() as u64,
        entries,
    );
    Ok(())
}

async fn open(
    env: &DirectEnvironment<DirectDisk>,
    config: EngineConfig,
) -> Result<(Engine<DirectEnvironment<DirectDisk>>, DirectLog), Box<dyn std::error::Error>> {
    prepare_directories(env, &config).await?;
    let (engine, _) = Engine::open(env.clone(), config).await?;
    let name = TopicPartition::new("append", 0);
    let log = engine
        .create_log(name, TopicId([1; 16]), LogConfig::default(), None)
        .await?;
    Ok((engine, log))
}

async fn append(
    log: &DirectLog,
    batch: &Bytes,
    count: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let rules = ProduceRules {
        max_message_bytes: usize::MAX,
        ..ProduceRules::default()
    };
    let mut ends = std::collections::VecDeque::new();
    for _ in 0..count {
        let appended = log.append(batch.clone(), &rules, 1).await?;
        ends.push_back(appended.last_offset + 1);
        if ends.len() >= IN_FLIGHT
            && let Some(end) = ends.pop_front()
        {
            log.flushed(end).await?;
        }
    }
    if let Some(end) = ends.pop_back() {
        log.flushed(end).await?;
    }
    Ok(())
}

fn report(what: &str, elapsed: Duration, bytes: u64, entries: u64) {
    let rate = bytes as f64 / 1e6 / elapsed.as_secs_f64();
    println!(
        "{what}: {rate:.0} MB/s ({} MB in {elapsed:.2?}, {entries} journal entries)",
        bytes / 1_000_000
    );
}
