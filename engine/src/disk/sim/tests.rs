//! The simulated disk keeps what it must keep, loses what it may lose, and fails as told.

use std::path::Path;

use super::{Fault, FaultKind, Operation, SimDisk};
use crate::disk::{Disk, DiskFile, OpenOptions, os_error_of};
use crate::environment::Environment;
use crate::memory::{AlignedBuffer, AlignedSlice};
use crate::sim::{Executor, StopAt};

const BLOCK: usize = 4096;

fn blocks(byte: u8, count: usize) -> AlignedSlice {
    AlignedBuffer::copied_from(&vec![byte; count * BLOCK]).into_aligned_slice()
}

fn file(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    disk.files()
        .into_iter()
        .find(|(path, _)| path == Path::new(name))
        .map(|(_, content)| content)
}

/// Runs `act` on a fresh disk, then gives the disk as it is.
fn after<F: Future<Output = ()> + 'static>(act: impl FnOnce(SimDisk) -> F) -> SimDisk {
    let executor = Executor::new(1);
    executor
        .run_until(StopAt::default(), |env| act(env.disk().clone()))
        .finished();
    executor.disk().clone()
}

#[test]
fn a_completed_durable_write_survives_every_power_loss() {
    let disk = after(|disk| async move {
        disk.create_dir_all(Path::new("d")).await.unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        let file = disk
            .open(Path::new("d/f"), OpenOptions::JOURNAL)
            .await
            .unwrap();
        disk.sync_dir(Path::new("d")).await.unwrap();
        file.set_len(8 * BLOCK as u64).await.unwrap();
        file.sync_data().await.unwrap();
        file.write_at(BLOCK as u64, vec![blocks(7, 2), blocks(8, 1)])
            .await
            .unwrap();
    });
    for seed in 0..200 {
        let content = file(&disk.crash(seed), "d/f").expect("the name was synced");
        assert_eq!(content.len(), 8 * BLOCK);
        assert!(content[BLOCK..3 * BLOCK].iter().all(|byte| *byte == 7));
        assert!(content[3 * BLOCK..4 * BLOCK].iter().all(|byte| *byte == 8));
    }
}

#[test]
fn an_unsynced_write_may_survive_in_part_but_sectors_stay_whole() {
    let disk = after(|disk| async move {
        let file = disk
            .open(Path::new("f"), OpenOptions::SEGMENT)
            .await
            .unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(0, vec![blocks(1, 2)]).await.unwrap();
        file.sync_data().await.unwrap();
        file.write_at(0, vec![blocks(2, 2)]).await.unwrap();
    });
    let (mut old, mut new, mut torn) = (0, 0, 0);
    for seed in 0..300 {
        let content = file(&disk.crash(seed), "f").expect("the name was synced");
        assert_eq!(content.len(), 2 * BLOCK);
        for sector in content.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]) && [1, 2].contains(&sector[0]));
        }
        let count = content.chunks(512).filter(|sector| sector[0] == 2).count();
        match count {
            0 => old += 1,
            16 => new += 1,
            _ => torn += 1,
        }
    }
    assert!(old > 20 && new > 20 && torn > 50, "{old} {new} {torn}");
}

#[test]
fn a_synced_write_survives() {
    let disk = after(|disk| async move {
        let file = disk
            .open(Path::new("f"), OpenOptions::SEGMENT)
            .await
            .unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(0, vec![blocks(3, 4)]).await.unwrap();
        file.sync_data().await.unwrap();
    });
    for seed in 0..100 {
        assert_eq!(file(&disk.crash(seed), "f"), Some(vec![3; 4 * BLOCK]));
    }
}

#[test]
fn eio_comes_out_with_its_number_and_path() {
    let executor = Executor::new(5);
    executor.disk().inject(Fault::once(
        FaultKind::InputOutput,
        Operation::Write,
        "f",
        1,
    ));
    executor
        .run_until(StopAt::default(), |env| async move {
            let file = env
                .disk()
                .open(Path::new("/data/f"), OpenOptions::SEGMENT)
                .await;
            assert_eq!(
                file.err().map(|error| error.kind()),
                Some(std::io::ErrorKind::NotFound)
            );
            env.disk().create_dir_all(Path::new("/data")).await.unwrap();
            let file = env
                .disk()
                .open(Path::new("/data/f"), OpenOptions::SEGMENT)
                .await
                .unwrap();
            file.write_at(0, vec![blocks(1, 1)]).await.unwrap();
            let error = file.write_at(0, vec![blocks(2, 1)]).await.unwrap_err();
            assert_eq!(os_error_of(&error), Some(nix::errno::Errno::EIO as i32));
            assert!(error.to_string().contains("/data/f"), "{error}");
            file.write_at(0, vec![blocks(3, 1)]).await.unwrap();
        })
        .finished();
}
