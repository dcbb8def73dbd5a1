//! The same promise in worse conditions: the disk refuses with EIO, is full or has no descriptors for a while, logs are deleted while they are appended to and their names
//! taken by others, and every start may have another number of shards. Whatever fails meanwhile, what was acknowledged is there at a later start without troubles.
//!
//! `RINGLOG_TROUBLE_SEEDS` says how many seeds to run (default 60), `RINGLOG_TROUBLE_SEED` replays a single one.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use ringlog_engine::config::EngineConfig;
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::engine::{Engine, prepare_directories, shard_of};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{Log, TopicId, TopicPartition};
use ringlog_engine::sim::{Executor, Outcome, SimEnvironment, StopAt};

use crate::model::{Model, ModelLog};
use crate::workload::{config, log_config, model_batch, random_batch, read_all, rules};
use crate::{STEPS_MAX, mix};

type Shared = Rc<RefCell<Model>>;
type Engines = Rc<Vec<Engine<SimEnvironment>>>;

/// More than anything takes.
const PLENTY: u64 = 1 << 40;
/// Logs that are there at a time.
const LOGS: usize = 5;

fn settings(seed: u64, shard: u32, shards: u32) -> EngineConfig {
    EngineConfig {
        shard,
        shards,
        ballast_bytes: 256 << 10,
        ..config(seed)
    }
}

/// Opens every shard; nothing where one does not open.
async fn open(
    env: &SimEnvironment,
    seed: u64,
    shards: u32,
) -> Result<(Engines, Vec<String>), String> {
    let prepared = prepare_directories(env, &settings(seed, 0, shards)).await;
    prepared.map_err(|error| error.to_string())?;
    let (mut engines, mut offline) = (Vec::new(), Vec::new());
    for shard in 0..shards {
        let opened = Engine::open(env.clone(), settings(seed, shard, shards)).await;
        let (engine, found) = opened.map_err(|error| error.to_string())?;
        engines.push(engine);
        let found = found.into_iter().filter_map(|log| {
            let reason = log.offline?;
            Some(format!("{}: {reason}", log.topic_partition))
        });
        offline.extend(found);
    }
    Ok((Rc::new(engines), offline))
}

fn engine_of<'a>(engines: &'a Engines, id: &TopicId) -> &'a Engine<SimEnvironment> {
    &engines[shard_of(id, 0, engines.len() as u32) as usize]
}

/// Compares every log with the model, on a disk that works.
async fn verify(engines: &Engines, model: &Shared, context: &str) {
    let numbers: Vec<usize> = model.borrow().logs.keys().copied().collect();
    for number in numbers {
        let known = model.borrow().logs[&number].clone();
        let context = format!("{context}, log {number} ({})", known.name);
        let Some(log) = engine_of(engines, &known.topic_id).log(&known.topic_id, 0) else {
            with(model, number, |log| {
                log.deleted |= log.deleting;
                let lost = !log.deleted && log.acknowledged > 0;
                assert!(!lost, "{context}: gone with {}", log.acknowledged);
                log.truncate(0);
                log.truncating_to = None;
            });
            continue;
        };
        assert!(!known.deleted, "{context}: deleted, and there again");
        assert_eq!(log.failure(), None, "{context}");
        let found = read_all(&log, &context).await;
        with(model, number, |expected| {
            expected.deleting = false;
            expected.check(log.log_start_offset(), &found, &context);
        });
    }
}

fn note(model: &Shared, number: usize, what: impl std::fmt::Debug) {
    if std::env::var("RINGLOG_TRACE").is_ok() {
        eprintln!(
            "  log {number} {}: {what:?}",
            model.borrow().logs[&number].name
        );
    }
}

fn with<T>(model: &Shared, number: usize, change: impl FnOnce(&mut ModelLog) -> T) -> T {
    let mut model = model.borrow_mut();
    change(model.logs.get_mut(&number).expect("known"))
}

/// A life of several shards. With `troubled`, things go wrong once all has been compared; with `at_start`, from the beginning.
async fn live(
    env: SimEnvironment,
    model: Shared,
    shards: u32,
    context: String,
    troubled: bool,
    at_start: bool,
) {
    let seed = model.borrow().seed;
    if at_start {
        trouble(&env).await;
    }
    let opened = open(&env, seed, shards).await;
    if at_start {
        // Whatever came of it: a later start is without troubles.
        return;
    }
    let (engines, offline) = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(offline, Vec::<String>::new(), "{context}");
    verify(&engines, &model, &context).await;
    let (stop, rounds) = (
        Rc::new(RefCell::new(false)),
        if troubled { 400 } else { 30 },
    );
    let troubles = async {
        while troubled && !*stop.borrow() {
            env.sleep(Duration::from_millis(env.world().random_between(5, 300)))
                .await;
            trouble(&env).await;
            env.sleep(Duration::from_millis(env.world().random_between(1, 200)))
                .await;
            env.disk().clear_faults();
            env.disk().set_capacity_bytes(PLENTY);
        }
    };
    let places = (0..LOGS).map(|_| work(&env, &engines, &model, rounds));
    let working = async {
        join_all(places).await;
        *stop.borrow_mut() = true;
    };
    futures_util::join!(working, troubles);
    env.disk().clear_faults();
    env.disk().set_capacity_bytes(PLENTY);
    if !troubled {
        verify(&engines, &model, &format!("{context}, at its end")).await;
        for engine in engines.iter() {
            engine.shutdown_clean().await.expect("a clean stop");
        }
    }
}

/// Something goes wrong from now on.
async fn trouble(env: &SimEnvironment) {
    let world = env.world();
    let disk = env.disk();
    let operations = [
        Operation::Open,
        Operation::Write,
        Operation::Read,
        Operation::Sync,
        Operation::Resize,
        Operation::Names,
        Operation::SyncDir,
    ];
    let operation = operations[world.random_between(0, 6) as usize];
    let path =
        ["", ".journal", "topic-", ".tmp", "checkpoint"][world.random_between(0, 4) as usize];
    let often = |kind, operation| Fault {
        probability: 0.3,
        ..Fault::always(kind, operation, path)
    };
    match world.random_between(0, 5) {
        0 => disk.inject(Fault::once(
            FaultKind::InputOutput,
            operation,
            path,
            world.random_between(0, 5),
        )),
        1 => disk.inject(Fault::always(
            FaultKind::NoDescriptor,
            Operation::Open,
            path,
        )),
        2 => disk.inject(often(FaultKind::NoDescriptor, Operation::Open)),
        3 => disk.inject(often(FaultKind::OutOfSpace, Operation::Resize)),
        4 => disk.inject(often(FaultKind::OutOfSpace, Operation::Open)),
        _ => {
            disk.set_capacity_bytes(PLENTY);
            if let Ok(free) = disk.available_bytes(Path::new("/data")).await {
                let left = world.random_between(0, 300_000);
                disk.set_capacity_bytes(PLENTY - free.saturating_sub(left));
            }
        }
    }
}

/// One log after the other: takes one that nobody works on, or makes one, until it is deleted or answers no more.
async fn work(env: &SimEnvironment, engines: &Engines, model: &Shared, rounds: usize) {
    let mut left = rounds;
    for _ in 0..20 {
        let number = {
            let mut model = model.borrow_mut();
            let free = model
                .logs
                .iter()
                .find(|(_, log)| !log.deleted && !log.deleting && log.doing.is_empty());
            let free = free.map(|(number, _)| *number);
            let number = free.unwrap_or_else(|| model.add_log());
            model.logs.get_mut(&number).expect("known").doing = "taken".into();
            number
        };
        let (id, name) = {
            let model = model.borrow();
            (
                model.logs[&number].topic_id,
                model.logs[&number].name.clone(),
            )
        };
        let engine = engine_of(engines, &id);
        let config = log_config(model.borrow().seed);
        let made = engine.create_log(TopicPartition::new(name, 0), id, config, None);
        let made = made.await;
        note(
            model,
            number,
            made.as_ref()
                .map(|log| (log.log_start_offset(), log.log_end_offset())),
        );
        if let Ok(log) = made {
            left = use_log(env, engine, &log, model, number, left).await;
        }
        if left == 0 {
            return;
        }
        left = left.saturating_sub(1);
    }
}

/// Works on a log; returns how many rounds are left once it is deleted or fails.
async fn use_log(
    env: &SimEnvironment,
    engine: &Engine<SimEnvironment>,
    log: &Rc<Log<SimEnvironment>>,
    model: &Shared,
    number: usize,
    mut left: usize,
) -> usize {
    while left > 0 && log.failure().is_none() {
        left -= 1;
        match env.world().random_between(0, 99) {
            0..=79 => append_some(env, log, model, number).await,
            80..=84 => truncate(env, log, model, number).await,
            85..=88 => delete_before(env, log, model, number).await,
            89..=92 => {
                with(model, number, |log| log.deleting = true);
                let id = log.topic_id();
                // While others are appending.
                let appending = append_some(env, log, model, number);
                let deleting = engine.delete_log(&id, 0);
                let (_, deleted) = futures_util::join!(appending, deleting);
                note(model, number, &deleted);
                if deleted.is_ok() {
                    with(model, number, |log| log.deleted = true);
                }
                return left;
            }
            _ => {
                env.sleep(Duration::from_millis(env.world().random_between(1, 100)))
                    .await
            }
        }
    }
    left
}

async fn append_some(
    env: &SimEnvironment,
    log: &Rc<Log<SimEnvironment>>,
    model: &Shared,
    number: usize,
) {
    let sent: Vec<_> = (0..env.world().random_between(1, 12))
        .map(|_| random_batch(env, None))
        .collect();
    let rules = rules();
    let appends = sent.iter().map(|batch| async {
        // A refusal has given out no offset.
        let Ok(appended) = log.append(batch.clone(), &rules, 3).await else {
            return;
        };
        with(model, number, |expected| {
            assert_eq!(appended.base_offset, expected.end(), "offsets go on");
            let mut added = model_batch(appended.base_offset, batch);
            added.last_offset = appended.last_offset;
            expected.batches.push(added);
        });
        let next = appended.last_offset + 1;
        if log.flushed(next).await.is_ok() {
            with(model, number, |expected| expected.acknowledge(next));
        }
    });
    join_all(appends).await;
}

async fn truncate(
    env: &SimEnvironment,
    log: &Rc<Log<SimEnvironment>>,
    model: &Shared,
    number: usize,
) {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    if start >= end {
        return;
    }
    let offset = env.world().random_between(start as u64, end as u64) as i64;
    with(model, number, |log| log.truncating_to = Some(offset));
    let truncated = log.truncate_to(offset).await;
    note(model, number, ("truncate", offset, &truncated));
    with(model, number, |expected| {
        if truncated.is_ok() {
            expected.truncate(offset);
        }
        // Refused and online, it has not begun; else the next start finishes it or not.
        if truncated.is_ok() || log.failure().is_none() {
            expected.truncating_to = None;
        }
    });
}

async fn delete_before(
    env: &SimEnvironment,
    log: &Rc<Log<SimEnvironment>>,
    model: &Shared,
    number: usize,
) {
    let (start, end) = (log.log_start_offset(), log.high_watermark());
    if start >= end {
        return;
    }
    let offset = env.world().random_between(start as u64, end as u64) as i64;
    with(model, number, |log| {
        log.start_asked = log.start_asked.max(offset)
    });
    let deleted = log.delete_records_before(offset).await;
    note(model, number, (offset, &deleted));
    if deleted.is_ok() {
        with(model, number, |log| log.start = log.start.max(offset));
    }
}

fn run_seed(seed: u64) {
    let model = Rc::new(RefCell::new(Model::new(seed)));
    let mut disk = SimDisk::new(mix(seed, 1));
    let lives = 3 + mix(seed, 2) % 4;
    for life in 0..=lives {
        let last = life == lives;
        let world = mix(seed, 100 + life);
        let executor = Executor::with_disk(world, disk);
        let operations = match mix(world, 1) % 3 {
            0 => mix(world, 2) % 300,
            _ => mix(world, 2) % 4000,
        };
        let stop = StopAt {
            disk_operations: (!last).then_some(operations),
            steps: Some(STEPS_MAX),
            ..StopAt::default()
        };
        for log in model.borrow_mut().logs.values_mut() {
            log.doing.clear();
        }
        executor.disk().clear_faults();
        executor.disk().set_capacity_bytes(PLENTY);
        let shards = 1 + (mix(world, 5) % 3) as u32;
        let at_start = !last && mix(world, 6).is_multiple_of(4);
        let context = format!("seed {seed}, life {life} of {shards} shards");
        if std::env::var("RINGLOG_TRACE").is_ok() {
            eprintln!("{context}: {operations} operations, troubled at the start: {at_start}");
        }
        let shared = model.clone();
        let outcome = executor.run_until(stop, move |env| {
            live(env, shared, shards, context, !last, at_start)
        });
        assert!(
            !last || outcome == Outcome::Finished(()),
            "seed {seed}: the last life spins"
        );
        disk = match mix(world, 3) % 4 {
            0 => executor.disk().kill(mix(world, 4)),
            _ => executor.disk().crash(mix(world, 4)),
        };
    }
}

#[test]
fn acknowledged_batches_survive_every_trouble() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("RINGLOG_TROUBLE_SEED") {
        run_seed(seed);
        return;
    }
    let first: u64 = number("RINGLOG_SEED_FIRST").unwrap_or(0);
    for seed in first..first + number("RINGLOG_TROUBLE_SEEDS").unwrap_or(60) {
        let result = std::panic::catch_unwind(|| run_seed(seed));
        if let Err(panic) = result {
            eprintln!(
                "seed {seed} fails; replay it with RINGLOG_TROUBLE_SEED={seed} cargo test -p ringlog-engine --test log_simulation every_trouble"
            );
            std::panic::resume_unwind(panic);
        }
    }
}
