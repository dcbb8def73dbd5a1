//! What may be under way while a log is deleted: records before an offset are being deleted, or what an offline log needs is being said again. Neither may outlive it, in the
//! files for its successor or in the journal for the next start.

use std::time::Duration;

use bytes::Bytes;
use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::environment::Environment;

use crate::support::{append, batch, config, create_in, id, live, open_whole, put};

fn busy() -> EngineConfig {
    EngineConfig {
        write_behind_age: Duration::from_millis(20),
        checkpoint_interval: Duration::from_millis(50),
        file_delete_delay: Duration::from_millis(5),
        ..config()
    }
}

fn rolling() -> LogConfig {
    LogConfig {
        segment_bytes: 256 << 10,
        ..LogConfig::default()
    }
}

fn record() -> Bytes {
    batch(5000, 1)
}

#[test]
fn a_new_log_start_is_not_written_for_the_next_log_of_the_name() {
    for delay in (0..8000).step_by(200) {
        let (_, disk) = live(&SimDisk::new(delay), delay, move |env| async move {
            let engine = open_whole(&env, busy()).await;
            let log = create_in(&engine, "one", 1, rolling()).await;
            for _ in 0..20 {
                put(&log, record()).await;
            }
            let deleting_records = async {
                for offset in 1..20 {
                    if log.delete_records_before(offset).await.is_err() {
                        return;
                    }
                }
            };
            let anew = async {
                env.sleep(Duration::from_micros(delay)).await;
                let deleted = engine.delete_log(&id(1), 0).await;
                deleted.expect("deleted");
                let log = create_in(&engine, "one", 2, rolling()).await;
                put(&log, record()).await;
                put(&log, record()).await;
            };
            futures_util::join!(deleting_records, anew);
        });
        let (found, _) = live(&disk.crash(delay), delay, |env| async move {
            let engine = open_whole(&env, busy()).await;
            let log = create_in(&engine, "one", 2, rolling()).await;
            (log.log_start_offset(), log.high_watermark())
        });
        assert_eq!(found, (0, 2), "deleted after {delay} us");
    }
}

#[test]
fn an_offline_log_may_be_deleted_while_it_is_said_again() {
    for delay in 0..30 {
        let (_, disk) = live(&SimDisk::new(delay), delay, move |env| async move {
            let engine = open_whole(&env, busy()).await;
            let bad = create_in(&engine, "bad", 1, rolling()).await;
            let good = create_in(&engine, "good", 2, rolling()).await;
            env.disk().inject(Fault::always(
                FaultKind::InputOutput,
                Operation::Write,
                "bad-0/0",
            ));
            for _ in 0..20 {
                append(&bad, record()).await;
            }
            // Its age has it written behind, which fails.
            env.sleep(Duration::from_secs(1)).await;
            assert!(bad.failure().is_some());
            let producing = async {
                for _ in 0..300 {
                    put(&good, record()).await;
                }
            };
            let deleting = async {
                env.sleep(Duration::from_micros(delay * 1000)).await;
                let deleted = engine.delete_log(&id(1), 0).await;
                deleted.expect("deleted");
            };
            futures_util::join!(producing, deleting);
        });
        let disk = disk.crash(delay);
        disk.clear_faults();
        let (found, _) = live(&disk, delay, |env| async move {
            let engine = open_whole(&env, busy()).await;
            let bad = engine.log(&id(1), 0).is_some();
            (
                bad,
                create_in(&engine, "good", 2, rolling())
                    .await
                    .high_watermark(),
            )
        });
        assert_eq!(found, (false, 300), "deleted after step {delay}");
    }
}
