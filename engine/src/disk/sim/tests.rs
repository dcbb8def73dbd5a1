//! The simulated disk keeps what it must keep, loses what it may lose, and fails as told.

use std::path::Path;

use nix::errno::Errno;

use super::{Fault, FaultKind, Operation, SimDisk};
use crate::disk::{Disk, DiskFile, OpenOptions, os_error_of, write_zeros};
use crate::environment::Environment;
use crate::memory::{AlignedBuffer, AlignedSlice};
use crate::sim::{Executor, Outcome, StopAt};

mod failures;

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
fn a_file_made_longer_by_a_durable_write_may_be_short_again_unless_synced() {
    async fn grow(disk: SimDisk, sync: bool) {
        let file = disk
            .open(Path::new("f"), OpenOptions::JOURNAL)
            .await
            .unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(0, vec![blocks(1, 3)]).await.unwrap();
        if sync {
            file.sync_data().await.unwrap();
        }
    }
    let lens = |disk: SimDisk| {
        (0..50)
            .map(|seed| file(&disk.crash(seed), "f").expect("synced").len())
            .collect::<Vec<_>>()
    };
    let unsynced = lens(after(|disk| grow(disk, false)));
    assert!(
        unsynced.contains(&0) && unsynced.contains(&(3 * BLOCK)),
        "{unsynced:?}"
    );
    assert!(
        lens(after(|disk| grow(disk, true)))
            .iter()
            .all(|len| *len == 3 * BLOCK)
    );
    let newer = after(|disk| async move {
        disk.set_extension_is_durable(true);
        grow(disk, false).await;
    });
    assert!(lens(newer).iter().all(|len| *len == 3 * BLOCK));
}

#[test]
fn zeros_written_first_make_later_durable_writes_safe() {
    let disk = after(|disk| async move {
        let file = disk
            .open(Path::new("j"), OpenOptions::JOURNAL)
            .await
            .unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        write_zeros(&file, 0, 3 << 20).await.unwrap();
        file.write_at(2 << 20, vec![blocks(1, 1)]).await.unwrap();
    });
    for seed in 0..20 {
        let content = file(&disk.crash(seed), "j").expect("synced");
        assert_eq!(content.len(), 3 << 20);
        assert_eq!(content.iter().filter(|byte| **byte == 1).count(), BLOCK);
    }
}

#[test]
fn a_write_under_way_may_be_there_in_part_and_harms_nothing_else() {
    let executor = Executor::new(2);
    let stop_at = StopAt {
        disk_operations: Some(7),
        ..StopAt::default()
    };
    let outcome = executor.run_until(stop_at, |env| async move {
        let file = env
            .disk()
            .open(Path::new("f"), OpenOptions::JOURNAL)
            .await
            .unwrap();
        env.disk().sync_dir(Path::new("/")).await.unwrap();
        file.set_len(8 * BLOCK as u64).await.unwrap();
        file.sync_data().await.unwrap();
        file.write_at(0, vec![blocks(1, 4)]).await.unwrap();
        let (one, two) = (file.clone(), file.clone());
        futures_util::future::join(
            one.write_at(2 * BLOCK as u64, vec![blocks(2, 1)]),
            two.write_at(4 * BLOCK as u64, vec![blocks(3, 4)]),
        )
        .await
        .0
        .unwrap();
    });
    assert_eq!(outcome, Outcome::Stopped);
    let (mut torn, mut second_only) = (0, 0);
    for seed in 0..300 {
        for disk in [executor.disk().crash(seed), executor.disk().kill(seed)] {
            let content = file(&disk, "f").expect("synced");
            assert!(content[..2 * BLOCK].iter().all(|byte| *byte == 1));
            assert!(content[3 * BLOCK..4 * BLOCK].iter().all(|byte| *byte == 1));
            let overwritten = content[2 * BLOCK..3 * BLOCK]
                .iter()
                .filter(|byte| **byte == 2)
                .count();
            let added = content[4 * BLOCK..]
                .iter()
                .filter(|byte| **byte == 3)
                .count();
            torn += u32::from(![0, 4 * BLOCK].contains(&added));
            second_only += u32::from(overwritten == 0 && added == 4 * BLOCK);
        }
    }
    assert!(torn > 100 && second_only > 20, "{torn} {second_only}");
}

#[test]
fn names_not_synced_may_or_may_not_have_changed_and_renames_are_atomic() {
    let disk = after(|disk| async move {
        disk.place(Path::new("d/a"), b"a").unwrap();
        disk.place(Path::new("d/old"), b"old").unwrap();
        disk.place(Path::new("d/doomed"), b"doomed").unwrap();
        disk.rename(Path::new("d/a"), Path::new("d/old"))
            .await
            .unwrap();
        disk.remove_file(Path::new("d/doomed")).await.unwrap();
        disk.open(Path::new("d/new"), OpenOptions::SEGMENT)
            .await
            .unwrap();
    });
    assert_eq!(
        disk.files(),
        [("d/new".into(), vec![]), ("d/old".into(), b"a".to_vec())]
    );
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let image = disk.crash(seed);
        let names = (file(&image, "d/a"), file(&image, "d/old"));
        assert!(
            names == (Some(b"a".to_vec()), Some(b"old".to_vec()))
                || names == (None, Some(b"a".to_vec())),
            "a rename happens wholly or not at all: {names:?}"
        );
        seen.insert((
            names.0.is_some(),
            file(&image, "d/doomed").is_some(),
            file(&image, "d/new").is_some(),
        ));
    }
    assert_eq!(seen.len(), 8, "each change for itself: {seen:?}");
}

#[test]
fn a_directory_sync_makes_names_durable_but_not_those_of_other_directories() {
    let disk = after(|disk| async move {
        disk.create_dir_all(Path::new("d/e")).await.unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        for name in ["d/f", "d/e/g"] {
            disk.open(Path::new(name), OpenOptions::SEGMENT)
                .await
                .unwrap();
        }
        disk.sync_dir(Path::new("d")).await.unwrap();
    });
    let images: Vec<_> = (0..100).map(|seed| disk.crash(seed)).collect();
    assert!(images.iter().all(|image| file(image, "d/f").is_some()));
    let kept = images
        .iter()
        .filter(|image| file(image, "d/e/g").is_some())
        .count();
    assert!((10..90).contains(&kept), "{kept}");
}

#[test]
fn writing_a_small_file_atomically_leaves_the_old_or_the_new_and_then_the_new() {
    for stop in 1..40 {
        let executor = Executor::new(stop);
        executor
            .disk()
            .place(Path::new("d/c"), b"old content")
            .unwrap();
        let stop_at = StopAt {
            disk_operations: Some(stop),
            ..StopAt::default()
        };
        let outcome = executor.run_until(stop_at, |env| async move {
            env.disk()
                .write_atomic(Path::new("d/c"), b"new")
                .await
                .unwrap();
            assert_eq!(
                env.disk().read_small(Path::new("d/c")).await.unwrap(),
                b"new"
            );
        });
        for seed in 0..20 {
            let content = file(&executor.disk().crash(seed), "d/c").expect("old or new");
            match outcome {
                Outcome::Stopped => assert!(
                    content == b"old content" || content == b"new",
                    "{content:?}"
                ),
                Outcome::Finished(()) => assert_eq!(content, b"new"),
            }
        }
    }
}

#[test]
fn a_kill_keeps_the_page_cache_which_a_later_power_loss_may_take() {
    let disk = after(|disk| async move {
        let file = disk
            .open(Path::new("f"), OpenOptions::SEGMENT)
            .await
            .unwrap();
        file.write_at(0, vec![blocks(1, 1)]).await.unwrap();
    });
    let survivor = disk.kill(3);
    assert_eq!(file(&survivor, "f"), Some(vec![1; BLOCK]));
    let after_both: Vec<_> = (0..50)
        .map(|seed| file(&survivor.crash(seed), "f"))
        .collect();
    assert!(after_both.contains(&None) && after_both.contains(&Some(vec![1; BLOCK])));
}

#[test]
fn what_a_killed_write_of_several_pieces_left_a_later_sync_makes_durable() {
    let executor = Executor::new(5);
    let stop_at = StopAt {
        disk_operations: Some(5),
        ..StopAt::default()
    };
    let outcome = executor.run_until(stop_at, |env| async move {
        let file = env
            .disk()
            .open(Path::new("f"), OpenOptions::JOURNAL)
            .await
            .unwrap();
        env.disk().sync_dir(Path::new("/")).await.unwrap();
        file.set_len(8 * BLOCK as u64).await.unwrap();
        file.sync_data().await.unwrap();
        let pieces = (1..=6).map(|byte| blocks(byte, 1)).collect();
        file.write_at(0, pieces).await.unwrap();
    });
    assert_eq!(outcome, Outcome::Stopped);
    for seed in 0..100 {
        let survivor = executor.disk().kill(seed);
        let seen = file(&survivor, "f");
        let next = Executor::with_disk(seed, survivor);
        next.run_until(StopAt::default(), |env| async move {
            let options = OpenOptions {
                create: false,
                ..OpenOptions::JOURNAL
            };
            let file = env.disk().open(Path::new("f"), options).await.unwrap();
            file.sync_data().await.unwrap();
        })
        .finished();
        assert_eq!(file(&next.disk().crash(seed), "f"), seen, "seed {seed}");
    }
}

#[test]
fn what_was_made_zero_before_cannot_wipe_out_a_later_durable_write() {
    let disk = after(|disk| async move {
        disk.set_extension_is_durable(true);
        disk.place(Path::new("punched"), &[1; 8 * BLOCK]).unwrap();
        let punched = disk
            .open(Path::new("punched"), OpenOptions::JOURNAL)
            .await
            .unwrap();
        punched.punch(0, 8 * BLOCK as u64).await.unwrap();
        punched
            .write_at(2 * BLOCK as u64, vec![blocks(2, 1)])
            .await
            .unwrap();
        disk.place(Path::new("cut"), &[1; 8 * BLOCK]).unwrap();
        let cut = disk
            .open(Path::new("cut"), OpenOptions::JOURNAL)
            .await
            .unwrap();
        cut.set_len(4 * BLOCK as u64).await.unwrap();
        cut.set_len(8 * BLOCK as u64).await.unwrap();
        cut.write_at(6 * BLOCK as u64, vec![blocks(2, 1)])
            .await
            .unwrap();
    });
    let (mut was_cut, mut was_not) = (0, 0);
    for seed in 0..100 {
        let punched = file(&disk.crash(seed), "punched").expect("placed");
        assert_eq!(punched[2 * BLOCK..3 * BLOCK], [2; BLOCK]);
        assert!([0, 1].contains(&punched[0]));
        let cut = file(&disk.crash(seed), "cut").expect("placed");
        if cut.len() == 8 * BLOCK {
            assert_eq!(cut[6 * BLOCK..7 * BLOCK], [2; BLOCK]);
            was_cut += u32::from(cut[4 * BLOCK] == 0);
            was_not += u32::from(cut[4 * BLOCK] == 1);
        }
    }
    assert!(was_cut > 10 && was_not > 10, "{was_cut} {was_not}");
}

#[test]
fn operations_under_way_together_complete_in_any_order() {
    let orders: std::collections::BTreeSet<_> = (0..100)
        .map(|seed| {
            Executor::run(seed, |env| async move {
                let file = env
                    .disk()
                    .open(Path::new("f"), OpenOptions::JOURNAL)
                    .await
                    .unwrap();
                let order: std::rc::Rc<std::cell::RefCell<Vec<u64>>> = Default::default();
                for index in 0..3 {
                    let (file, order) = (file.clone(), order.clone());
                    env.spawn("write", async move {
                        file.write_at(index * BLOCK as u64, vec![blocks(1, 1)])
                            .await
                            .unwrap();
                        order.borrow_mut().push(index);
                    });
                }
                env.sleep(std::time::Duration::from_secs(1)).await;
                order.take()
            })
        })
        .collect();
    assert_eq!(orders.len(), 6);
}
