//! A file of offsets may be written as large as it gets, and so it must be readable at the next start.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use ringlog_engine::config::EngineConfig;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::engine::{Engine, prepare_directories};
use ringlog_engine::sim::Executor;

#[test]
fn recovery_points_of_very_many_partitions_can_be_read() {
    let mut text = "0\n70000\n".to_owned();
    for partition in 0..70_000 {
        writeln!(text, "{} {partition} 7", "n".repeat(249)).expect("a string");
    }
    assert!(text.len() > 16 << 20);
    let disk = SimDisk::new(1);
    let path = Path::new("/data/recovery-point-offset-checkpoint.0");
    disk.place(path, text.as_bytes()).expect("placed");
    let executor = Executor::with_disk(1, disk);
    let life = executor.run_until(Default::default(), |env| async move {
        let config = EngineConfig::new(vec![PathBuf::from("/data")]);
        prepare_directories(&env, &config).await.expect("prepared");
        Engine::open(env, config)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    });
    assert_eq!(life.finished(), Ok(()));
}
