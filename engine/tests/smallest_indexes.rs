//! `segment.index.bytes` may be as small as Kafka allows: segments then roll often, and nothing else comes of it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::batch::{BatchBuilder, ProduceRules};
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{ReadLimit, TopicId, TopicPartition};
use ringlog_engine::sim::Executor;

const NOW_MS: i64 = 1_704_067_200_000;

#[test]
fn an_index_without_room_takes_no_log_offline() {
    for index_bytes in [0, 4, 8, 11, 12, 20, 24, 36] {
        let executor = Executor::new(index_bytes);
        let life = executor.run_until(Default::default(), move |env| async move {
            let config = EngineConfig {
                checkpoint_interval: Duration::from_millis(20),
                ..EngineConfig::new(vec![PathBuf::from("/data")])
            };
            prepare_directories(&env, &config).await.expect("prepared");
            let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
            let config = LogConfig {
                segment_index_bytes: index_bytes,
                index_interval_bytes: 0,
                segment_bytes: 4 << 10,
                ..LogConfig::default()
            };
            let name = TopicPartition::new("one", 0);
            let log = engine.create_log(name, TopicId([1; 16]), config, None);
            let log = log.await.expect("made");
            for number in 0..60 {
                let batch = BatchBuilder::new().record(NOW_MS + number, None, Some(&[1; 300]));
                let rules = ProduceRules {
                    now_ms: NOW_MS,
                    ..ProduceRules::default()
                };
                let batch = Bytes::from(batch.build().expect("a batch"));
                let appended = log.append(batch, &rules, 1).await.expect("appended");
                let flushed = log.flushed(appended.last_offset + 1).await;
                flushed.expect("flushed");
                env.sleep(Duration::from_millis(10)).await;
            }
            env.sleep(Duration::from_secs(1)).await;
            assert_eq!(log.failure(), None, "{index_bytes} bytes");
            let mut next = 0;
            while next < 60 {
                let read = log.read(next, 1 << 20, true, ReadLimit::HighWatermark);
                let read = read.await.expect("readable");
                assert!(!read.is_empty());
                next = read.next_offset;
            }
            let found = log.offset_for_timestamp(NOW_MS + 33).await;
            assert_eq!(found.expect("found").map(|found| found.offset), Some(33));
        });
        life.finished();
    }
}
