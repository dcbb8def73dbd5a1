//! The simulated disk and the real one answer alike: the same random operations give the same results, contents, lengths and kinds of
//! error on both, and a recording of the real one plays back to the same files; so what simulation shows about the engine is about the real file system too.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use proptest::prelude::*;
use ringlog_engine::disk::direct::DirectDisk;
use ringlog_engine::disk::recording::RecordingDisk;
use ringlog_engine::disk::{Disk, DiskFile, OpenOptions};
use ringlog_engine::environment::Environment;
use ringlog_engine::memory::AlignedBuffer;
use ringlog_engine::sim::{Executor, StopAt};

const BLOCK: u64 = 4096;

#[derive(Clone, Debug)]
enum Operation {
    Open {
        name: usize,
        create: bool,
        durable: bool,
    },
    Close(usize),
    Write {
        name: usize,
        block: u64,
        blocks: usize,
        byte: u8,
    },
    Read {
        name: usize,
        block: u64,
        blocks: usize,
    },
    SetLen {
        name: usize,
        len: u64,
    },
    Allocate {
        name: usize,
        block: u64,
        blocks: u64,
        keep_size: bool,
    },
    Punch {
        name: usize,
        block: u64,
        blocks: u64,
    },
    CreateDir(usize),
    RemoveDir(usize),
    Remove(usize),
    Rename(usize, usize),
    List(usize),
    WriteAtomic {
        name: usize,
        len: usize,
    },
    ReadSmall(usize),
    Sync(usize),
    SyncDir(usize),
}

const NAMES: [&str; 7] = ["a", "b", "d", "d/a", "d/b", "d/e", "x/y"];

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    use Operation::*;
    let name = || 0..NAMES.len();
    let operation = prop_oneof![
        3 => (name(), any::<bool>(), any::<bool>()).prop_map(|(name, create, durable)| Open { name, create, durable }),
        1 => name().prop_map(Close),
        4 => (name(), 0u64..6, 1usize..4, any::<u8>()).prop_map(|(name, block, blocks, byte)| Write { name, block, blocks, byte }),
        3 => (name(), 0u64..8, 1usize..4).prop_map(|(name, block, blocks)| Read { name, block, blocks }),
        2 => (name(), 0u64..30_000).prop_map(|(name, len)| SetLen { name, len }),
        1 => (name(), 0u64..8, 1u64..4, any::<bool>()).prop_map(|(name, block, blocks, keep_size)| Allocate { name, block, blocks, keep_size }),
        1 => (name(), 0u64..8, 1u64..4).prop_map(|(name, block, blocks)| Punch { name, block, blocks }),
        2 => name().prop_map(CreateDir),
        1 => name().prop_map(RemoveDir),
        1 => name().prop_map(Remove),
        2 => (name(), name()).prop_map(|(from, to)| Rename(from, to)),
        1 => name().prop_map(List),
        1 => (name(), 0usize..9000).prop_map(|(name, len)| WriteAtomic { name, len }),
        2 => name().prop_map(ReadSmall),
        1 => name().prop_map(Sync),
        1 => name().prop_map(SyncDir),
    ];
    prop::collection::vec(operation, 1..60)
}

/// What an operation answered, in a form that can be compared.
fn answer<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!(
            "error {:?} {:?}",
            error.kind(),
            ringlog_engine::disk::os_error_of(&error)
        ),
    }
}

async fn carry_out<D: Disk>(disk: D, root: &Path, operations: &[Operation]) -> Vec<String> {
    let path = |name: usize| root.join(NAMES[name]);
    let mut open: BTreeMap<usize, D::File> = BTreeMap::new();
    let mut answers = Vec::new();
    for operation in operations {
        answers.push(match *operation {
            Operation::Open {
                name,
                create,
                durable,
            } => {
                let options = OpenOptions {
                    create,
                    write: true,
                    durable,
                    direct: true,
                };
                let opened = disk.open(&path(name), options).await;
                answer(opened.map(|file| {
                    open.insert(name, file);
                }))
            }
            Operation::Close(name) => {
                open.remove(&name);
                String::new()
            }
            Operation::Write {
                name,
                block,
                blocks,
                byte,
            } => match open.get(&name) {
                Some(file) => {
                    let piece = |byte: u8| {
                        AlignedBuffer::copied_from(&[byte; BLOCK as usize]).into_aligned_slice()
                    };
                    let pieces = (0..blocks)
                        .map(|index| piece(byte.wrapping_add(index as u8)))
                        .collect();
                    answer(file.write_at(block * BLOCK, pieces).await)
                }
                None => String::new(),
            },
            Operation::Read {
                name,
                block,
                blocks,
            } => match open.get(&name) {
                Some(file) => {
                    let len = blocks * BLOCK as usize;
                    let read = file
                        .read_at(block * BLOCK, AlignedBuffer::with_capacity(len), len)
                        .await;
                    answer(read.map(|(buffer, read)| (buffer.to_vec(), read)))
                }
                None => String::new(),
            },
            Operation::SetLen { name, len } => match open.get(&name) {
                Some(file) => {
                    let set = file.set_len(len).await;
                    answer(set) + &answer(file.len().await)
                }
                None => String::new(),
            },
            Operation::Allocate {
                name,
                block,
                blocks,
                keep_size,
            } => match open.get(&name) {
                Some(file) => {
                    let allocated = file
                        .allocate(block * BLOCK, blocks * BLOCK, keep_size)
                        .await;
                    answer(allocated) + &answer(file.len().await)
                }
                None => String::new(),
            },
            Operation::Punch {
                name,
                block,
                blocks,
            } => match open.get(&name) {
                Some(file) => answer(file.punch(block * BLOCK, blocks * BLOCK).await),
                None => String::new(),
            },
            Operation::CreateDir(name) => answer(disk.create_dir_all(&path(name)).await),
            Operation::RemoveDir(name) => answer(disk.remove_dir(&path(name)).await),
            Operation::Remove(name) => answer(disk.remove_file(&path(name)).await),
            Operation::Rename(from, to) => answer(disk.rename(&path(from), &path(to)).await),
            Operation::List(name) => answer(disk.list(&path(name)).await),
            Operation::WriteAtomic { name, len } => {
                answer(disk.write_atomic(&path(name), &vec![b'w'; len]).await)
            }
            Operation::ReadSmall(name) => answer(disk.read_small(&path(name)).await),
            Operation::Sync(name) => match open.get(&name) {
                Some(file) => answer(file.sync_data().await),
                None => String::new(),
            },
            Operation::SyncDir(name) => answer(disk.sync_dir(&path(name)).await),
        });
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn both_disks_answer_alike(operations in operations()) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written");
        let runtime = compio::runtime::Runtime::new().expect("a runtime starts");
        let disk = RecordingDisk::new(DirectDisk::new(), dir.path());
        let real = runtime.block_on(carry_out(disk.clone(), dir.path(), &operations));
        let for_sim = operations.clone();
        let executor = Executor::new(1);
        let simulated = executor.run_until(StopAt::default(), |env| async move {
            carry_out(env.disk().clone(), Path::new("/"), &for_sim).await
        });
        let simulated = simulated.finished();
        for (index, (real, simulated)) in real.iter().zip(&simulated).enumerate() {
            prop_assert_eq!(real, simulated, "step {}: {:?}", index, &operations[index]);
        }
        let mut replay = disk.replay().expect("the recording starts");
        while let Some(step) = replay.step() {
            step.expect("every recorded change can be played back");
        }
        let root = dir.path().strip_prefix("/").expect("the build directory has an absolute path");
        let replayed = replay.now().files();
        let replayed: Vec<_> = replayed.iter().map(|(path, bytes)| (path.strip_prefix(root).ok(), bytes)).collect();
        let simulated = executor.disk().files();
        let simulated: Vec<_> = simulated.iter().map(|(path, bytes)| (Some(path.as_path()), bytes)).collect();
        prop_assert_eq!(replayed, simulated);
    }
}
