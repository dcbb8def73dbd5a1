//! Proves, on the simulated disk, that compaction loses nothing: whatever moment the power goes, the last acknowledged value of every key is there afterwards, at its offset; what a tombstone
//! deleted does not come back once the tombstone is gone; offsets ascend; what is served was written; and a producer's sequence is still checked after its records were cleaned away.
//!
//! `RINGLOG_SEEDS` says how many seeds to run (default 40), `RINGLOG_SEED` replays a single one.

mod model;
mod workload;

use std::cell::RefCell;
use std::rc::Rc;

use model::Model;
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::sim::{Executor, Outcome, StopAt};

/// Far more polls than a life takes; a life that spins ends here.
const STEPS_MAX: u64 = 4_000_000;

/// A sequence of numbers that follows from a seed.
fn mix(seed: u64, salt: u64) -> u64 {
    let mut word = seed
        .wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

fn stop_at(operations: Option<u64>) -> StopAt {
    StopAt {
        disk_operations: operations,
        steps: Some(STEPS_MAX),
        ..StopAt::default()
    }
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
            0 => mix(world, 2) % 80,
            1 => mix(world, 2) % 1000,
            _ => mix(world, 2) % 5000,
        };
        let shared = model.clone();
        let stop = stop_at(Some(operations));
        let outcome = executor.run_until(stop, move |env| workload::live(env, shared, 400));
        disk = match (outcome, mix(world, 3) % 4) {
            (Outcome::Stopped, 0) => executor.disk().kill(mix(world, 4)),
            _ => executor.disk().crash(mix(world, 4)),
        };
    }
    let executor = Executor::with_disk(mix(seed, 3), disk);
    let shared = model.clone();
    let outcome = executor.run_until(stop_at(None), move |env| workload::live(env, shared, 60));
    assert_eq!(outcome, Outcome::Finished(()), "the last life spins");
    let disk = executor.disk().crash(mix(seed, 5));
    let executor = Executor::with_disk(mix(seed, 4), disk);
    executor
        .run_until(stop_at(None), move |env| workload::verify_only(env, model))
        .finished();
}

#[test]
fn the_last_value_of_every_key_survives_every_crash() {
    if let Ok(seed) = std::env::var("RINGLOG_SEED") {
        run_seed(seed.parse().expect("RINGLOG_SEED is a number"));
        return;
    }
    let number = |name: &str, default| {
        let text = std::env::var(name).ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let first: u64 = number("RINGLOG_SEED_FIRST", 0);
    for seed in first..first + number("RINGLOG_SEEDS", 40) {
        let result = std::panic::catch_unwind(|| run_seed(seed));
        if let Err(panic) = result {
            eprintln!(
                "seed {seed} fails; replay it with RINGLOG_SEED={seed} cargo test -p ringlog-engine --test cleaner_simulation"
            );
            std::panic::resume_unwind(panic);
        }
    }
    assert!(workload::passes() > 0, "nothing was ever cleaned");
}

/// One log filled, sealed and cleaned, the power going at each single operation of the disk from the start of the cleaning on; and again during the recovery from that.
#[test]
fn a_crash_at_any_operation_of_a_pass_leaves_the_old_or_the_new_log() {
    let seed = 11;
    let filled = {
        let model = Rc::new(RefCell::new(Model::new(seed)));
        let executor = Executor::with_disk(seed, SimDisk::new(seed));
        let shared = model.clone();
        executor
            .run_until(stop_at(None), move |env| workload::fill(env, shared))
            .finished();
        (executor.disk().kill(1), model.borrow().clone())
    };
    let mut ended = false;
    for operations in 1..4000 {
        let model = Rc::new(RefCell::new(filled.1.clone()));
        let executor = Executor::with_disk(seed, filled.0.kill(2));
        let shared = model.clone();
        let outcome = executor.run_until(stop_at(Some(operations)), move |env| {
            workload::clean_once(env, shared)
        });
        ended = outcome == Outcome::Finished(());
        let disk = executor.disk().crash(operations);
        let executor = Executor::with_disk(seed, disk);
        if operations % 3 == 0 {
            let shared = model.clone();
            let stop = stop_at(Some(mix(operations, 1) % 60));
            let _ = executor.run_until(stop, move |env| workload::verify_only(env, shared));
        }
        let executor = Executor::with_disk(seed, executor.disk().crash(operations));
        executor
            .run_until(stop_at(None), move |env| workload::verify_only(env, model))
            .finished();
        if ended {
            break;
        }
    }
    assert!(ended, "the pass came to its end");
}
