//! What unit tests begin with: a log of an engine on the simulated disk.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::{Log, TopicId, TopicPartition};
use crate::batch::{BatchBuilder, ProduceRules};
use crate::config::{EngineConfig, LogConfig};
use crate::engine::{Engine, prepare_directories};
use crate::sim::{Executor, SimEnvironment, StopAt};

pub(crate) type SimLog = Log<SimEnvironment>;

/// Where files are written behind and checkpoints made all the time, and nothing is cleaned unasked.
pub(crate) fn busy() -> EngineConfig {
    EngineConfig {
        checkpoint_interval: Duration::from_millis(20),
        write_behind_age: Duration::from_millis(20),
        cleaner_enabled: false,
        ..EngineConfig::new(vec![PathBuf::from("/data")]).with_journal_bytes(16 << 20)
    }
}

/// Lets `work` have a log of an engine with this configuration, for at most a minute.
pub(crate) fn with_log<W: Future<Output = ()> + 'static>(
    seed: u64,
    config: EngineConfig,
    log_config: LogConfig,
    work: impl FnOnce(SimEnvironment, Rc<SimLog>) -> W + 'static,
) {
    let life = move |env: SimEnvironment| async move {
        prepare_directories(&env, &config).await.expect("prepared");
        let (engine, _) = Engine::open(env.clone(), config).await.expect("opened");
        let name = TopicPartition::new("log", 0);
        let made = engine.create_log(name, TopicId([1; 16]), log_config, None);
        work(env, made.await.expect("made")).await;
    };
    let stop = StopAt {
        micros: Some(60_000_000),
        ..StopAt::default()
    };
    Executor::new(seed).run_until(stop, life).finished();
}

/// Appends a record of so many bytes; the log's end then.
pub(crate) async fn append(log: &SimLog, key: Option<&[u8]>, bytes: usize) -> i64 {
    let record = BatchBuilder::new().record(0, key, Some(&vec![0; bytes]));
    let batch = Bytes::from(record.build().expect("a batch"));
    let appended = log.append(batch, &ProduceRules::default(), 1).await;
    appended.expect("appended").last_offset + 1
}

/// Appends records one after the other, each of which is durable before the next; of three keys.
pub(crate) async fn fill(log: &SimLog, count: usize, bytes: usize) {
    for number in 0..count {
        let key = [b"one", b"two", b"six"][number % 3];
        let end = append(log, Some(key), bytes).await;
        log.flushed(end).await.expect("flushed");
    }
}
