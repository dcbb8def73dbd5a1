//! However many shards share the journal's bytes, each keeps to its share, and a share is more than the file being written to.

use std::path::PathBuf;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::log::{TopicId, TopicPartition};
use ringlog_engine::sim::Executor;

#[test]
fn every_shard_keeps_to_its_share() {
    for shards in [1, 2, 9, 16, 64] {
        let share = (512 << 20) / shards;
        let config = EngineConfig::new(vec![PathBuf::from("/data")]).with_journal_bytes(share);
        assert!(3 * config.journal_file_bytes <= share, "{shards} shards");
        // Half of the share is what presses: a single file must not reach it.
        assert!(
            2 * config.journal_file_bytes <= share / 2,
            "{shards} shards"
        );
        assert!(config.journal_first_file_bytes <= config.journal_file_bytes);
    }
}

#[test]
fn a_small_share_is_not_exceeded() {
    let share = 8 << 20;
    let executor = Executor::new(1);
    let life = executor.run_until(Default::default(), move |env| async move {
        let config = EngineConfig::new(vec![PathBuf::from("/data")]).with_journal_bytes(share);
        prepare_directories(&env, &config).await.expect("prepared");
        let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
        let name = TopicPartition::new("one", 0);
        let log = engine.create_log(name, TopicId([1; 16]), LogConfig::default(), None);
        let log = log.await.expect("made");
        let rules = ProduceRules {
            now_ms: 1_704_067_200_000,
            ..ProduceRules::default()
        };
        let batch = BatchBuilder::new().record(1_704_067_200_000, None, Some(&[1; 900_000]));
        let batch = Bytes::from(batch.build().expect("a batch"));
        let mut most = 0;
        for _ in 0..60 {
            let appended = log
                .append(batch.clone(), &rules, 1)
                .await
                .expect("appended");
            let flushed = log.flushed(appended.last_offset + 1).await;
            flushed.expect("flushed");
            most = most.max(engine.metrics().journal.file_bytes);
        }
        most
    });
    let most = life.finished();
    assert!(most <= share, "{most} bytes of journal files");
}
