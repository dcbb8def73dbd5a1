//! A journal file rots that alone holds records of an offline log: what follows the rot in the file is not taken for something that never was. The file stays until it is repaired or the log deleted.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::future::select;
use ringlog_engine::config::EngineConfig;
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::environment::Environment;

use crate::support::{batch, config, create, fills, live, open_whole, put};

/// Records of the offline log, each of one byte's value.
const RECORDS: u8 = 6;
const RECORD_BYTES: usize = 3000;

fn busy() -> EngineConfig {
    EngineConfig {
        write_behind_age: Duration::from_millis(20),
        checkpoint_interval: Duration::from_millis(50),
        ..config()
    }
}

/// The journal file that holds the record of this fill byte, and a place in the record.
fn place_of(disk: &SimDisk, fill: u8) -> (PathBuf, u64) {
    let record = vec![fill; RECORD_BYTES / 2];
    let found = disk.files().into_iter().find_map(|(path, content)| {
        let is_journal = path.extension().is_some_and(|kind| kind == "journal");
        let mut places = content.windows(record.len());
        let at = places.position(|window| is_journal && window == record)?;
        Some((Path::new("/").join(path), at as u64))
    });
    found.expect("the record is in the journal")
}

#[test]
fn records_behind_the_rot_are_not_recycled_away() {
    for rotten in 1..=RECORDS {
        let seed = u64::from(rotten);
        let ((path, at), disk) = live(&SimDisk::new(seed), seed, move |env| async move {
            let engine = open_whole(&env, busy()).await;
            let (bad, good) = (create(&engine, 1).await, create(&engine, 2).await);
            let broken = Fault::always(FaultKind::InputOutput, Operation::Write, "t1-0/0");
            env.disk().inject(broken);
            for fill in 1..=RECORDS {
                put(&bad, batch(RECORD_BYTES, fill)).await;
            }
            // Its age has it written behind, which fails.
            env.sleep(Duration::from_secs(1)).await;
            assert!(bad.failure().is_some());
            let (path, at) = place_of(env.disk(), rotten);
            env.disk().flip_bit(&path, at, 3).expect("flipped");
            // More than the journal holds. It may have to wait for good.
            let producing = async {
                for _ in 0..300 {
                    put(&good, batch(RECORD_BYTES, 99)).await;
                }
            };
            let enough = env.sleep(Duration::from_secs(30));
            select(pin!(producing), pin!(enough)).await;
            (path, at)
        });
        let disk = disk.crash(seed);
        disk.clear_faults();
        disk.flip_bit(&path, at, 3).expect("repaired");
        let (found, _) = live(&disk, seed, |env| async move {
            let engine = open_whole(&env, busy()).await;
            fills(&create(&engine, 1).await).await
        });
        assert_eq!(found, (1..=RECORDS).collect::<Vec<u8>>(), "{rotten}");
    }
}
