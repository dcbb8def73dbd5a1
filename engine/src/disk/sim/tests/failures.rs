//! What fails, and what a failure leaves behind.

use super::*;

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
            assert_eq!(os_error_of(&error), Some(Errno::EIO as i32));
            assert!(error.to_string().contains("/data/f"), "{error}");
            file.write_at(0, vec![blocks(3, 1)]).await.unwrap();
        })
        .finished();
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_brings_back() {
    let disk = after(|disk| async move {
        disk.inject(Fault::once(FaultKind::InputOutput, Operation::Sync, "f", 0));
        let file = disk
            .open(Path::new("f"), OpenOptions::SEGMENT)
            .await
            .unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(0, vec![blocks(1, 1)]).await.unwrap();
        file.sync_data().await.unwrap_err();
        file.sync_data().await.unwrap();
    });
    assert!((0..50).any(|seed| file(&disk.crash(seed), "f") != Some(vec![1; BLOCK])));
}

#[test]
fn a_failed_write_may_have_happened_in_part() {
    let contents: std::collections::BTreeSet<_> = (0..40)
        .map(|seed| {
            let executor = Executor::new(seed);
            executor
                .disk()
                .inject(Fault::always(FaultKind::InputOutput, Operation::Write, ""));
            executor
                .run_until(StopAt::default(), |env| async move {
                    let file = env
                        .disk()
                        .open(Path::new("f"), OpenOptions::JOURNAL)
                        .await
                        .unwrap();
                    file.write_at(0, vec![blocks(1, 1)]).await.unwrap_err();
                })
                .finished();
            file(executor.disk(), "f")
                .map(|content| content.iter().filter(|byte| **byte == 1).count())
        })
        .collect();
    assert!(
        contents.len() > 4,
        "nothing, everything, and parts: {contents:?}"
    );
}

#[test]
fn what_a_failed_sync_left_behind_does_not_come_back_over_newer_content() {
    let disk = after(|disk| async move {
        disk.inject(Fault::once(FaultKind::InputOutput, Operation::Sync, "f", 0));
        let file = disk
            .open(Path::new("f"), OpenOptions::SEGMENT)
            .await
            .unwrap();
        disk.sync_dir(Path::new("/")).await.unwrap();
        file.write_at(0, vec![blocks(1, 1)]).await.unwrap();
        file.sync_data().await.unwrap_err();
        file.write_at(0, vec![blocks(2, 1)]).await.unwrap();
        file.sync_data().await.unwrap();
    });
    for seed in 0..50 {
        assert_eq!(file(&disk.crash(seed), "f"), Some(vec![2; BLOCK]));
    }
}

#[test]
fn a_write_refused_for_space_has_not_happened() {
    let disk = after(|disk| async move {
        disk.inject(Fault::once(FaultKind::OutOfSpace, Operation::Write, "f", 0));
        let file = disk
            .open(Path::new("f"), OpenOptions::JOURNAL)
            .await
            .unwrap();
        file.write_at(0, vec![blocks(1, 1)]).await.unwrap_err();
        assert_eq!(file.len().await.unwrap(), 0);
        file.write_at(BLOCK as u64, vec![blocks(1, 1)])
            .await
            .unwrap();
    });
    assert_eq!(
        file(&disk, "f").map(|content| content[..BLOCK].to_vec()),
        Some(vec![0; BLOCK])
    );
}

#[test]
fn a_full_disk_refuses_and_reserved_space_stays_usable() {
    after(|disk| async move {
        let space = 16 * BLOCK as u64;
        disk.set_capacity_bytes(space);
        let full = |error: std::io::Error| {
            assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}")
        };
        let reserved = disk
            .open(Path::new("reserved"), OpenOptions::SEGMENT)
            .await
            .unwrap();
        reserved.allocate(0, 10 * BLOCK as u64, true).await.unwrap();
        assert_eq!(reserved.len().await.unwrap(), 0);
        let other = disk
            .open(Path::new("other"), OpenOptions::SEGMENT)
            .await
            .unwrap();
        full(other.write_at(0, vec![blocks(1, 7)]).await.unwrap_err());
        other.write_at(0, vec![blocks(1, 6)]).await.unwrap();
        assert_eq!(disk.available_bytes(Path::new("/")).await.unwrap(), 0);
        full(other.allocate(0, space, false).await.unwrap_err());
        reserved.write_at(0, vec![blocks(2, 10)]).await.unwrap();
        full(
            reserved
                .write_at(10 * BLOCK as u64, vec![blocks(2, 1)])
                .await
                .unwrap_err(),
        );

        other.punch(0, 2 * BLOCK as u64).await.unwrap();
        assert_eq!(
            disk.available_bytes(Path::new("/")).await.unwrap(),
            2 * BLOCK as u64
        );
        reserved.set_len(4 * BLOCK as u64).await.unwrap();
        assert_eq!(
            disk.available_bytes(Path::new("/")).await.unwrap(),
            8 * BLOCK as u64
        );
        disk.remove_file(Path::new("other")).await.unwrap();
        assert_eq!(
            disk.available_bytes(Path::new("/")).await.unwrap(),
            8 * BLOCK as u64,
            "still open"
        );
        other.close().await.unwrap();
        assert_eq!(
            disk.available_bytes(Path::new("/")).await.unwrap(),
            12 * BLOCK as u64
        );
    });
}

#[test]
fn bits_flip_in_reads_when_told_and_on_the_medium_for_good() {
    after(|disk| async move {
        disk.place(Path::new("f"), &[0; BLOCK]).unwrap();
        let ones = async |disk: &SimDisk| -> u32 {
            disk.read_small(Path::new("f"))
                .await
                .unwrap()
                .iter()
                .map(|byte| byte.count_ones())
                .sum()
        };
        disk.inject(Fault::once(FaultKind::BitFlip, Operation::Read, "f", 1));
        assert_eq!(
            (ones(&disk).await, ones(&disk).await, ones(&disk).await),
            (0, 1, 0)
        );
        disk.flip_bit(Path::new("f"), 77, 3).unwrap();
        assert_eq!(disk.read_small(Path::new("f")).await.unwrap()[77], 8);
        assert_eq!(ones(&disk.crash(1)).await, 1);
    });
}

#[test]
fn misuse_is_refused_as_the_kernel_does() {
    after(|disk| async move {
        let errno = |error: std::io::Error| os_error_of(&error).map(Errno::from_raw);
        let missing = disk
            .open(Path::new("none"), OpenOptions::READ)
            .await
            .err()
            .and_then(errno);
        assert_eq!(missing, Some(Errno::ENOENT));
        let file = disk
            .open(Path::new("f"), OpenOptions::SEGMENT)
            .await
            .unwrap();
        assert_eq!(
            file.write_at(512, vec![blocks(1, 1)])
                .await
                .err()
                .and_then(errno),
            Some(Errno::EINVAL)
        );
        let buffer = AlignedBuffer::with_capacity(BLOCK);
        assert_eq!(
            file.read_at(0, buffer, 100).await.err().and_then(errno),
            Some(Errno::EINVAL)
        );
        let reader = disk.open(Path::new("f"), OpenOptions::READ).await.unwrap();
        assert_eq!(
            reader
                .write_at(0, vec![blocks(1, 1)])
                .await
                .err()
                .and_then(errno),
            Some(Errno::EBADF)
        );
        disk.create_dir_all(Path::new("d/e")).await.unwrap();
        assert_eq!(
            disk.remove_dir(Path::new("d")).await.err().and_then(errno),
            Some(Errno::ENOTEMPTY)
        );
        disk.remove_dir(Path::new("d/e")).await.unwrap();
        disk.remove_dir(Path::new("d")).await.unwrap();
        assert_eq!(disk.open_files(), 2);
        drop((file, reader));
        assert_eq!(disk.open_files(), 0);
    });
}
