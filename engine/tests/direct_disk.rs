//! The real disk does what its trait says, on the file system that the build directory is on: journal files really are
//! O_DIRECT | O_DSYNC, large gathers arrive whole, errors name their path, and refusing file systems are still served.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use ringlog_engine::disk::direct::DirectDisk;
use ringlog_engine::disk::{DirEntry, Disk, DiskFile, OpenOptions, WRITE_PIECES_MAX, write_zeros};
use ringlog_engine::environment::{DirectEnvironment, Environment};
use ringlog_engine::memory::{AlignedBuffer, AlignedSlice};

const BLOCK: usize = 4096;
const O_DSYNC: u64 = 0o10000;
const O_DIRECT: u64 = 0o40000;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written")
}

fn blocks(byte: u8, count: usize) -> AlignedSlice {
    AlignedBuffer::copied_from(&vec![byte; count * BLOCK]).into_aligned_slice()
}

/// The flags of this process's open descriptors of a file.
fn flags_of(path: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")
        .expect("procfs is mounted")
        .flatten()
    {
        if std::fs::read_link(entry.path()).is_ok_and(|target| target == path) {
            let info = PathBuf::from("/proc/self/fdinfo").join(entry.file_name());
            let info = std::fs::read_to_string(info).expect("the descriptor is open");
            let flags = info
                .lines()
                .find_map(|line| line.strip_prefix("flags:"))
                .expect("fdinfo has flags");
            found.push(u64::from_str_radix(flags.trim(), 8).expect("flags are octal"));
        }
    }
    found
}

#[compio::test]
async fn descriptors_carry_what_was_asked_for() {
    let dir = directory();
    let path = dir.path().canonicalize().unwrap().join("f");
    for (options, expected) in [
        (OpenOptions::JOURNAL, O_DIRECT | O_DSYNC),
        (OpenOptions::SEGMENT, O_DIRECT),
        (OpenOptions::READ, O_DIRECT),
        (
            OpenOptions {
                durable: true,
                write: true,
                ..OpenOptions::default()
            },
            O_DSYNC,
        ),
    ] {
        let disk = DirectDisk::new();
        let file = disk.open(&path, options).await.unwrap();
        let expected = if disk.capabilities().direct {
            expected
        } else {
            expected & !O_DIRECT
        };
        assert_eq!(
            flags_of(&path)
                .iter()
                .map(|flags| flags & (O_DIRECT | O_DSYNC))
                .collect::<Vec<_>>(),
            [expected]
        );
        file.close().await.unwrap();
        assert!(flags_of(&path).is_empty(), "closed");
    }
    let file = DirectDisk::buffered()
        .open(&path, OpenOptions::JOURNAL)
        .await
        .unwrap();
    assert_eq!(
        flags_of(&path)[0] & (O_DIRECT | O_DSYNC),
        O_DSYNC,
        "durable even when buffered"
    );
    drop(file);
}

#[compio::test]
async fn a_file_system_without_direct_io_is_served_all_the_same() {
    let disk = DirectDisk::new();
    assert!(disk.capabilities().direct);
    let file = disk
        .open(Path::new("/proc/version"), OpenOptions::READ)
        .await
        .unwrap();
    let (buffer, read) = file
        .read_at(0, AlignedBuffer::with_capacity(BLOCK), BLOCK)
        .await
        .unwrap();
    assert!(read > 0 && buffer.starts_with(b"Linux"));
    assert!(
        !disk.capabilities().direct,
        "and the disk says what was lost"
    );
}

#[compio::test]
async fn a_gather_arrives_whole_however_many_pieces() {
    let dir = directory();
    let disk = DirectDisk::new();
    let file = disk
        .open(&dir.path().join("f"), OpenOptions::JOURNAL)
        .await
        .unwrap();
    let count = 2 * WRITE_PIECES_MAX + 3;
    let pieces: Vec<_> = (0..count).map(|index| blocks(index as u8, 1)).collect();
    file.write_at(BLOCK as u64, pieces).await.unwrap();
    assert_eq!(file.len().await.unwrap(), ((count + 1) * BLOCK) as u64);
    let len = (count + 4) * BLOCK;
    let (buffer, read) = file
        .read_at(0, AlignedBuffer::with_capacity(len), len)
        .await
        .unwrap();
    assert_eq!(
        read,
        (count + 1) * BLOCK,
        "the file ends before what was asked for"
    );
    assert!(buffer[..BLOCK].iter().all(|byte| *byte == 0));
    for (index, block) in buffer[BLOCK..].chunks(BLOCK).enumerate() {
        assert!(block.iter().all(|byte| *byte == index as u8));
    }
}

#[compio::test]
async fn length_and_space_are_separate() {
    use std::os::unix::fs::MetadataExt;
    let dir = directory();
    let path = dir.path().join("f");
    let space = || std::fs::metadata(&path).unwrap().blocks() * 512;
    let file = DirectDisk::new()
        .open(&path, OpenOptions::SEGMENT)
        .await
        .unwrap();
    file.allocate(0, 1 << 20, true).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 0);
    assert!(space() >= 1 << 20);
    file.write_at(0, vec![blocks(1, 2)]).await.unwrap();
    file.set_len(5000).await.unwrap();
    assert!(space() < 1 << 20, "cutting frees what was reserved behind");
    let (buffer, read) = file
        .read_at(0, AlignedBuffer::with_capacity(BLOCK * 4), BLOCK * 4)
        .await
        .unwrap();
    assert_eq!(
        (read, buffer.len()),
        (5000, 5000),
        "a direct read ends where the file ends"
    );
    file.allocate(0, 1 << 16, false).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 1 << 16);
    file.punch(0, BLOCK as u64).await.unwrap();
    let (buffer, _) = file.read_at(0, buffer, BLOCK * 2).await.unwrap();
    assert!(
        buffer[..BLOCK].iter().all(|byte| *byte == 0)
            && buffer[BLOCK..5000].iter().all(|byte| *byte == 1)
    );
    write_zeros(&file, 0, 3 << 20).await.unwrap();
    assert_eq!(file.len().await.unwrap(), 3 << 20);
    file.sync_data().await.unwrap();
}

#[compio::test]
async fn names_come_and_go() {
    let dir = directory();
    let disk = DirectDisk::new();
    let deep = dir.path().join("a/b");
    disk.create_dir_all(&deep).await.unwrap();
    disk.create_dir_all(&deep).await.unwrap();
    disk.write_atomic(&deep.join("c"), b"first").await.unwrap();
    disk.write_atomic(&deep.join("c"), b"2nd").await.unwrap();
    disk.write_atomic(&deep.join("empty"), b"").await.unwrap();
    assert_eq!(disk.read_small(&deep.join("c")).await.unwrap(), b"2nd");
    assert_eq!(disk.read_small(&deep.join("empty")).await.unwrap(), b"");
    disk.create_dir_all(&deep.join("d")).await.unwrap();
    let entry = |name: &str, len, is_dir| DirEntry {
        name: name.into(),
        len,
        is_dir,
    };
    let expected = [
        entry("c", 3, false),
        entry("d", 0, true),
        entry("empty", 0, false),
    ];
    assert_eq!(disk.list(&deep).await.unwrap(), expected);
    disk.rename(&deep.join("c"), &deep.join("e")).await.unwrap();
    disk.sync_dir(&deep).await.unwrap();
    assert!(
        !disk.exists(&deep.join("c")).await.unwrap() && disk.exists(&deep.join("e")).await.unwrap()
    );
    assert!(disk.remove_dir(&deep).await.is_err(), "not empty");
    disk.remove_file(&deep.join("e")).await.unwrap();
    disk.remove_dir(&deep.join("d")).await.unwrap();
    assert!(disk.available_bytes(&deep).await.unwrap() > 0);
}

#[compio::test]
async fn errors_keep_their_kind_and_name_their_path() {
    let dir = directory();
    let disk = DirectDisk::new();
    let missing = dir.path().join("missing");
    let error = disk
        .open(&missing, OpenOptions::READ)
        .await
        .err()
        .expect("it is not there");
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    assert!(error.to_string().contains("missing"), "{error}");
    let full = disk
        .open(
            Path::new("/dev/full"),
            OpenOptions {
                create: false,
                ..OpenOptions::SEGMENT
            },
        )
        .await
        .unwrap();
    let error = full.write_at(0, vec![blocks(1, 1)]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(ringlog_engine::disk::os_error_of(&error), Some(28));
    assert!(error.to_string().contains("/dev/full"), "{error}");
    let file = disk
        .open(&dir.path().join("f"), OpenOptions::SEGMENT)
        .await
        .unwrap();
    assert!(
        file.write_at(100, vec![blocks(1, 1)]).await.is_err(),
        "off a block boundary"
    );
    assert!(
        file.read_at(0, AlignedBuffer::with_capacity(BLOCK), 2 * BLOCK)
            .await
            .is_err(),
        "larger than the buffer"
    );
}

#[compio::test]
async fn a_panicking_task_harms_no_other() {
    let env = DirectEnvironment::new(DirectDisk::new());
    let done = Rc::new(Cell::new(false));
    let started = env.now();
    env.spawn("panics", async { panic!("on purpose") });
    let (flag, later) = (done.clone(), env.clone());
    env.spawn("goes on", async move {
        later.sleep(Duration::from_millis(20)).await;
        flag.set(true);
    });
    while !done.get() {
        env.sleep(Duration::from_millis(5)).await;
        assert!(env.now() - started < 10_000_000, "the other task never ran");
    }
    assert!(env.now() - started >= 20_000);
    assert_ne!(env.random(), env.random());
    assert_ne!(
        DirectEnvironment::new(DirectDisk::new()).random(),
        DirectEnvironment::new(DirectDisk::new()).random()
    );
    assert!(env.wall_clock_ms() > 1_704_067_200_000);
}
