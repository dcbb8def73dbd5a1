//! Proves that appends which wait for memory go on as soon as the journal lets write-behind free some, and not only when the aging of dirty logs comes round: with a cache
//! no larger than what the journal may hold back, and the default age of five seconds.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use ringlog_engine::batch::{BatchBuilder, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{TopicId, TopicPartition};
use ringlog_engine::sim::Executor;

#[test]
fn a_wait_for_memory_ends_with_the_journal_not_with_age() {
    for cache in [1 << 20, 4 << 20, 12 << 20] {
        let executor = Executor::with_disk(1, SimDisk::new(1));
        let took_us = executor
            .run_until(Default::default(), move |env| async move {
                let mut config = EngineConfig::new(vec![PathBuf::from("/data")]);
                config.journal_first_file_bytes = 64 << 20;
                config.journal_file_bytes = 64 << 20;
                config.tail_cache_bytes = cache;
                assert!(config.write_behind_age >= Duration::from_secs(5));
                prepare_directories(&env, &config).await.expect("prepared");
                let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
                let mut logs = Vec::new();
                for number in 0..8u8 {
                    let name = TopicPartition::new(format!("t{number}"), 0);
                    let id = TopicId([number + 1; 16]);
                    let made = engine.create_log(name, id, LogConfig::default(), None);
                    logs.push(made.await.expect("made"));
                }
                let batch = BatchBuilder::new().record(0, None, Some(&[7; 40_000]));
                let batch = Bytes::from(batch.build().expect("a batch"));
                let rules = ProduceRules::default();
                let began = env.now();
                let appends = logs.iter().flat_map(|log| {
                    (0..3 * cache / 8 / 40_000).map(|_| async {
                        let appended = log.append(batch.clone(), &rules, 1).await;
                        let appended = appended.expect("appended");
                        let end = appended.last_offset + 1;
                        log.flushed(end).await.expect("flushed");
                    })
                });
                join_all(appends).await;
                env.now() - began
            })
            .finished();
        assert!(
            took_us < 2_000_000,
            "cache of {cache}: three times as much took {took_us} us"
        );
    }
}
