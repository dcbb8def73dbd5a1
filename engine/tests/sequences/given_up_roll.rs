//! A segment that could not be begun for want of space leaves its file behind, and the log goes on in the segment before: the next start is not misled by it.

use std::path::Path;
use std::time::Duration;

use ringlog_engine::config::{EngineConfig, LogConfig};
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::AppendError;

use crate::support::{batch, config, contents, create_in, live, open_whole, put, rules};

const LEFT_BEHIND: &str = "/data/t1-0/00000000000000000001.log";

fn rolling() -> LogConfig {
    LogConfig {
        segment_bytes: 32 << 10,
        ..LogConfig::default()
    }
}

fn soon() -> EngineConfig {
    EngineConfig {
        write_behind_age: Duration::from_millis(50),
        checkpoint_interval: Duration::from_millis(100),
        ..config()
    }
}

#[test]
fn a_start_is_not_misled_by_a_segment_that_was_never_begun() {
    for (clean, checkpointed) in [(true, true), (false, true), (false, false)] {
        let (_, disk) = live(&SimDisk::new(1), 1, move |env| async move {
            let mut config = soon();
            if !checkpointed {
                config.checkpoint_interval = Duration::from_secs(1000);
            }
            let engine = open_whole(&env, config).await;
            let log = create_in(&engine, "t1", 1, rolling()).await;
            put(&log, batch(20_000, 1)).await;
            env.disk().inject(Fault::always(
                FaultKind::OutOfSpace,
                Operation::Resize,
                "t1-0/",
            ));
            let refused = log.append(batch(20_000, 2), &rules(), 1).await;
            assert!(
                matches!(refused, Err(AppendError::StorageFull(_))),
                "{refused:?}"
            );
            env.disk().clear_faults();
            // These fit where the other did not.
            for fill in 3..6 {
                put(&log, batch(2000, fill)).await;
            }
            env.sleep(Duration::from_secs(2)).await;
            if clean {
                engine.shutdown_clean().await.expect("stopped");
            }
        });
        let left = disk.files().into_iter();
        let mut left = left.filter(|(path, _)| Path::new("/").join(path) == Path::new(LEFT_BEHIND));
        assert!(left.next().is_some(), "the test has lost its point");
        let mut disk = disk.kill(1);
        for life in 0..2 {
            let (_, after) = live(&disk, 2 + life, move |env| async move {
                let engine = open_whole(&env, soon()).await;
                let log = create_in(&engine, "t1", 1, rolling()).await;
                let mut expected = vec![(0, 1), (1, 3), (2, 4), (3, 5)];
                expected.extend((0..life as i64).map(|offset| (4 + offset, 9)));
                assert_eq!(contents(&log).await, expected);
                put(&log, batch(20_000, 9)).await;
            });
            disk = after.crash(life);
        }
    }
}
