//! A recording of the real disk, played back, contains every power loss: what was promised after durable writes and syncs is in every
//! image, what was not may be missing, and without the recording's own notion of durability the same check fails.

use std::path::Path;

use ringlog_engine::disk::direct::DirectDisk;
use ringlog_engine::disk::recording::{RecordingDisk, Step};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::disk::{Disk, DiskFile, OpenOptions, write_zeros};
use ringlog_engine::memory::{AlignedBuffer, AlignedSlice};

const BLOCK: usize = 4096;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written")
}

fn blocks(byte: u8, count: usize) -> AlignedSlice {
    AlignedBuffer::copied_from(&vec![byte; count * BLOCK]).into_aligned_slice()
}

fn content(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
    let path = path.strip_prefix("/").unwrap_or(path);
    disk.files()
        .into_iter()
        .find(|(other, _)| other == path)
        .map(|(_, content)| content)
}

/// Writes entry after entry to one file, two at a time, and marks each pair as promised once both are done.
async fn write_entries<D: Disk>(
    disk: &RecordingDisk<D>,
    path: &Path,
    options: OpenOptions,
    entries: u8,
) {
    let file = disk.open(path, options).await.unwrap();
    write_zeros(&file, 0, u64::from(entries) * 2 * BLOCK as u64)
        .await
        .unwrap();
    disk.sync_dir(path.parent().unwrap()).await.unwrap();
    for entry in (1..entries).step_by(2) {
        let write = async |entry: u8| {
            file.write_at(u64::from(entry) * 2 * BLOCK as u64, vec![blocks(entry, 2)])
                .await
        };
        let (one, two) = futures_util::join!(write(entry), write(entry + 1));
        one.and(two).unwrap();
        disk.mark(u64::from(entry) + 1);
    }
}

/// How many images, of some at every moment, lack an entry that was promised before.
fn broken_promises<D: Disk>(disk: &RecordingDisk<D>, path: &Path) -> (usize, usize) {
    let (mut promised, mut images, mut broken) = (0, 0, 0);
    let mut replay = disk.replay().unwrap();
    while let Some(step) = replay.step() {
        if let Step::Mark(mark) = step.unwrap() {
            promised = mark as usize;
        }
        for seed in 0..8 {
            images += 1;
            let image = content(&replay.crash(seed), path).unwrap_or_default();
            let whole = |entry: usize| {
                let bytes = image.get(entry * 2 * BLOCK..(entry + 1) * 2 * BLOCK);
                bytes.is_some_and(|bytes| bytes.iter().all(|byte| usize::from(*byte) == entry))
            };
            broken += usize::from(!(1..=promised).all(whole));
        }
    }
    (images, broken)
}

#[compio::test]
async fn promises_made_after_durable_writes_are_kept_by_every_image() {
    let dir = directory();
    let path = dir.path().join("journal");
    let disk = RecordingDisk::new(DirectDisk::new(), dir.path());
    write_entries(&disk, &path, OpenOptions::JOURNAL, 21).await;
    let (images, broken) = broken_promises(&disk, &path);
    assert!(images > 400);
    assert_eq!(broken, 0);
}

#[compio::test]
async fn promises_made_after_writes_that_are_not_durable_are_found_out() {
    let dir = directory();
    let path = dir.path().join("journal");
    let disk = RecordingDisk::new(DirectDisk::new(), dir.path());
    write_entries(&disk, &path, OpenOptions::SEGMENT, 21).await;
    let (images, broken) = broken_promises(&disk, &path);
    assert!(broken > images / 4, "{broken} of {images}");
}

#[compio::test]
async fn a_name_whose_directory_was_not_synced_is_found_out() {
    let dir = directory();
    let path = dir.path().join("f");
    let disk = RecordingDisk::new(DirectDisk::new(), dir.path());
    let file = disk.open(&path, OpenOptions::JOURNAL).await.unwrap();
    write_zeros(&file, 0, BLOCK as u64).await.unwrap();
    let images = |disk: &RecordingDisk<DirectDisk>| {
        let mut replay = disk.replay().unwrap();
        while let Some(step) = replay.step() {
            step.unwrap();
        }
        (0..40)
            .filter(|seed| content(&replay.crash(*seed), &path).is_some())
            .count()
    };
    assert!((5..35).contains(&images(&disk)));
    disk.sync_dir(dir.path()).await.unwrap();
    assert_eq!(images(&disk), 40);
}

#[compio::test]
async fn the_end_of_a_replay_is_the_disk_and_can_be_written_out() {
    let dir = directory();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    let disk = RecordingDisk::new(DirectDisk::new(), &from);
    disk.create_dir_all(&from.join("d/e")).await.unwrap();
    disk.write_atomic(&from.join("d/small"), b"small")
        .await
        .unwrap();
    disk.write_atomic(&from.join("d/small"), b"smaller still")
        .await
        .unwrap();
    let file = disk
        .open(&from.join("d/e/f"), OpenOptions::SEGMENT)
        .await
        .unwrap();
    file.allocate(0, 1 << 16, true).await.unwrap();
    file.write_at(0, vec![blocks(1, 2), blocks(2, 3)])
        .await
        .unwrap();
    file.punch(BLOCK as u64, BLOCK as u64).await.unwrap();
    file.set_len(4 * BLOCK as u64 + 7).await.unwrap();
    file.close().await.unwrap();
    disk.rename(&from.join("d/e/f"), &from.join("d/g"))
        .await
        .unwrap();
    disk.write_atomic(&from.join("gone"), b"x").await.unwrap();
    disk.remove_file(&from.join("gone")).await.unwrap();
    disk.create_dir_all(&from.join("h")).await.unwrap();
    disk.remove_dir(&from.join("d/e")).await.unwrap();

    let mut replay = disk.replay().unwrap();
    while let Some(step) = replay.step() {
        step.unwrap();
    }
    let direct = DirectDisk::new();
    replay.now().copy_to(&direct, &from, &to).await.unwrap();
    for sub in ["", "d", "h"] {
        assert_eq!(
            direct.list(&from.join(sub)).await.unwrap(),
            direct.list(&to.join(sub)).await.unwrap()
        );
    }
    for name in ["d/small", "d/g"] {
        assert_eq!(
            std::fs::read(from.join(name)).unwrap(),
            std::fs::read(to.join(name)).unwrap(),
            "{name}"
        );
    }
}
