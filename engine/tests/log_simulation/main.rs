//! Proves, on the simulated disk, what `durability.md` promises: whatever moment the power goes (also during recovery), every acknowledged batch is there afterwards,
//! byte for byte, in order, once, at its offset; and what was not acknowledged is there in order or not at all. The last stable offset and the aborted
//! transactions are what the batches say. At the end of each seed a bit rots: it is noticed, or harms
//! nothing.
//!
//! `RINGLOG_SEEDS` says how many seeds to run (default 300), `RINGLOG_SEED` replays a single one.

mod model;
mod transactions;
mod troubles;
mod workload;

use std::cell::RefCell;
use std::rc::Rc;

use model::Model;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::sim::{Executor, Outcome, StopAt};

/// Far more polls than a life takes; a life that spins ends here.
const STEPS_MAX: u64 = 3_000_000;

/// A sequence of numbers that follows from a seed.
fn mix(seed: u64, salt: u64) -> u64 {
    let mut word = seed
        .wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Several lives on one disk, each ended at a random moment, and a last one that ends well.
fn run_seed(seed: u64) {
    let model = Rc::new(RefCell::new(Model::new(seed)));
    let mut disk = SimDisk::new(mix(seed, 1));
    let lives = 2 + mix(seed, 2) % 4;
    for life in 0..lives {
        let world = mix(seed, 100 + life);
        let executor = Executor::with_disk(world, disk.clone());
        // Every third life is short: it may end during recovery.
        let operations = match mix(world, 1) % 3 {
            0 => mix(world, 2) % 60,
            1 => mix(world, 2) % 600,
            _ => mix(world, 2) % 3000,
        };
        let stop = StopAt {
            disk_operations: Some(operations),
            steps: Some(STEPS_MAX),
            ..StopAt::default()
        };
        let shared = model.clone();
        let outcome = executor.run_until(stop, move |env| workload::live(env, shared, life, false));
        if std::env::var("RINGLOG_TRACE").is_ok() {
            eprintln!(
                "life {life}: {} operations, {} us, {:?}",
                operations,
                executor.world().now(),
                matches!(outcome, Outcome::Stopped)
            );
        }
        disk = match (outcome, mix(world, 3) % 4) {
            (Outcome::Stopped, 0) => executor.disk().kill(mix(world, 4)),
            _ => executor.disk().crash(mix(world, 4)),
        };
    }
    let executor = Executor::with_disk(mix(seed, 3), disk);
    let shared = model.clone();
    let stop = StopAt {
        steps: Some(STEPS_MAX),
        ..StopAt::default()
    };
    let outcome = executor.run_until(stop, move |env| workload::live(env, shared, lives, true));
    let doing: Vec<String> = model
        .borrow()
        .logs
        .values()
        .map(|log| log.doing.clone())
        .collect();
    assert_eq!(
        outcome,
        Outcome::Finished(()),
        "the last life spins at {doing:?}, {} us",
        executor.world().now()
    );
    // And once more after the clean stop.
    let disk = executor.disk().crash(mix(seed, 5));
    let stop = || StopAt {
        steps: Some(STEPS_MAX),
        ..StopAt::default()
    };
    let executor = Executor::with_disk(mix(seed, 4), disk.kill(mix(seed, 6)));
    let shared = model.clone();
    executor
        .run_until(stop(), move |env| workload::verify_only(env, shared))
        .finished();
    // And with a bit rotten after the clean stop, or after a crash right behind it.
    let disk = match mix(seed, 7) % 2 {
        0 => disk,
        _ => executor.disk().crash(mix(seed, 8)),
    };
    rot(&disk, seed);
    let executor = Executor::with_disk(mix(seed, 9), disk);
    executor
        .run_until(stop(), move |env| workload::verify_rotten(env, model))
        .finished();
}

/// Flips a bit of a segment or of an offset index.
fn rot(disk: &SimDisk, seed: u64) {
    let files = disk.files().into_iter();
    let files: Vec<_> = files
        .filter(|(path, content)| {
            let kind = path.extension().and_then(|kind| kind.to_str());
            matches!(kind, Some("log" | "index")) && !content.is_empty()
        })
        .collect();
    let Some((path, content)) = files.get(mix(seed, 10) as usize % files.len().max(1)) else {
        return;
    };
    let at = mix(seed, 11) % content.len() as u64;
    let path = std::path::Path::new("/").join(path);
    disk.flip_bit(&path, at, (mix(seed, 12) % 8) as u8)
        .expect("flipped");
}

#[test]
fn acknowledged_batches_survive_every_crash() {
    if let Ok(seed) = std::env::var("RINGLOG_SEED") {
        run_seed(seed.parse().expect("RINGLOG_SEED is a number"));
        return;
    }
    let seeds: u64 = std::env::var("RINGLOG_SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok())
        .unwrap_or(300);
    let first: u64 = std::env::var("RINGLOG_SEED_FIRST")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(0);
    for seed in first..first + seeds {
        let result = std::panic::catch_unwind(|| run_seed(seed));
        if let Err(panic) = result {
            eprintln!(
                "seed {seed} fails; replay it with RINGLOG_SEED={seed} cargo test -p ringlog-engine --test log_simulation"
            );
            std::panic::resume_unwind(panic);
        }
    }
    let [parked, settled] = [&workload::PARKED, &workload::SETTLED]
        .map(|count| count.load(std::sync::atomic::Ordering::Relaxed));
    eprintln!("{parked} batches were left in the journal by starts, {settled} brought in");
    assert!(
        seeds < 50 || (parked > seeds && settled > seeds),
        "only {parked} batches were left in the journal by starts, {settled} brought in"
    );
}
