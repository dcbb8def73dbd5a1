//! A truncation that fails, or is given up, between the journal and the files: the log goes offline, the journal keeps what finishes it however long the shard lives on,
//! and the next start finds the log truncated.

use std::time::Duration;

use futures_util::future::{Either, select};
use ringlog_engine::config::EngineConfig;
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::environment::Environment;

use crate::support::{batch, config, create, live, open_whole, put};

fn often_checkpointed() -> EngineConfig {
    EngineConfig {
        checkpoint_interval: Duration::from_millis(50),
        ..config()
    }
}

/// How the truncation ends early.
#[derive(Clone, Copy, Debug)]
enum End {
    Fails,
    GivenUpAfter(u64),
}

fn truncate_and_restart(end: End) {
    let (begun, disk) = live(&SimDisk::new(1), 1, move |env| async move {
        let engine = open_whole(&env, often_checkpointed()).await;
        let (cut, other) = (create(&engine, 1).await, create(&engine, 2).await);
        for _ in 0..10 {
            put(&cut, batch(5000, 1)).await;
        }
        env.sleep(Duration::from_millis(300)).await;
        match end {
            End::Fails => {
                env.disk().inject(Fault::always(
                    FaultKind::InputOutput,
                    Operation::Resize,
                    "t1-0/",
                ));
                cut.truncate_to(4).await.expect_err("its disk refuses");
                env.disk().clear_faults();
            }
            End::GivenUpAfter(micros) => {
                let truncating = std::pin::pin!(cut.truncate_to(4));
                let sleep = std::pin::pin!(env.sleep(Duration::from_micros(micros)));
                if let Either::Left((done, _)) = select(truncating, sleep).await {
                    assert_eq!(done, Ok(4));
                }
            }
        }
        let begun = cut.failure().is_some() || cut.log_end_offset() == 4;
        // The journal goes round several times.
        for _ in 0..300 {
            put(&other, batch(5000, 1)).await;
        }
        begun
    });
    let (found, _) = live(&disk.crash(3), 2, |env| async move {
        let engine = open_whole(&env, often_checkpointed()).await;
        create(&engine, 1).await.log_end_offset()
    });
    let expected = if begun { 4 } else { 10 };
    assert_eq!(found, expected, "{end:?}");
}

#[test]
fn a_failed_truncation_is_finished_by_the_next_start() {
    truncate_and_restart(End::Fails);
}

#[test]
fn a_truncation_given_up_is_whole_or_not_there() {
    for micros in (0..12_000).step_by(150) {
        truncate_and_restart(End::GivenUpAfter(micros));
    }
}
