//! The executor orders time and tasks as it says, replays exactly, and stops where it is told.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::{Executor, Outcome, StopAt};
use crate::disk::{Disk, DiskFile, OpenOptions};
use crate::environment::Environment;
use crate::memory::{AlignedBuffer, BLOCK_BYTES};

fn interleaving(seed: u64) -> Vec<u32> {
    Executor::run(seed, |env| async move {
        let order: Rc<RefCell<Vec<u32>>> = Rc::default();
        for id in 0..8 {
            let (order, world) = (order.clone(), env.world().clone());
            env.spawn("worker", async move {
                for _ in 0..3 {
                    order.borrow_mut().push(id);
                    world
                        .sleep(Duration::from_micros(world.random_between(0, 50)))
                        .await;
                }
            });
        }
        env.sleep(Duration::from_secs(1)).await;
        order.take()
    })
}

#[test]
fn a_seed_replays_exactly_and_seeds_differ() {
    assert_eq!(interleaving(3).len(), 24);
    assert_eq!(interleaving(3), interleaving(3));
    assert!((0..10).any(|seed| interleaving(seed) != interleaving(3)));
}

#[test]
fn time_is_virtual_and_timers_fire_in_order() {
    let (order, now) = Executor::run(1, |env| async move {
        let order: Rc<RefCell<Vec<u64>>> = Rc::default();
        for hours in [5, 1, 3] {
            let (order, sleep) = (order.clone(), env.sleep(Duration::from_secs(hours * 3600)));
            env.spawn("timer", async move {
                sleep.await;
                order.borrow_mut().push(hours);
            });
        }
        env.sleep(Duration::from_secs(6 * 3600)).await;
        (order.take(), env.now())
    });
    assert_eq!(order, [1, 3, 5]);
    assert_eq!(now, 6 * 3600 * 1_000_000);
}

#[test]
fn a_stop_drops_all_tasks() {
    let alive = Rc::new(());
    let held = alive.clone();
    let executor = Executor::new(9);
    let stop_at = StopAt {
        micros: Some(1500),
        ..StopAt::default()
    };
    let outcome = executor.run_until(stop_at, |env| async move {
        let held_too = held.clone();
        env.spawn("forever", async move {
            let _held = held_too;
            std::future::pending::<()>().await;
        });
        loop {
            env.sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(outcome, Outcome::<()>::Stopped);
    assert_eq!(executor.world().now(), 1500);
    assert_eq!(Rc::strong_count(&alive), 1);
}

#[test]
fn the_next_process_on_the_disk_finds_what_the_last_one_left_and_nothing_open() {
    let first = Executor::new(6);
    let stop_at = StopAt {
        micros: Some(1_000_000),
        ..StopAt::default()
    };
    let outcome = first.run_until(stop_at, |env| async move {
        let file = env
            .disk()
            .open(Path::new("f"), OpenOptions::SEGMENT)
            .await
            .unwrap();
        let block = AlignedBuffer::copied_from(&[1; BLOCK_BYTES]).into_aligned_slice();
        file.write_at(0, vec![block]).await.unwrap();
        env.disk().set_capacity_bytes(BLOCK_BYTES as u64);
        env.disk().remove_file(Path::new("f")).await.unwrap();
        assert_eq!(
            env.disk().available_bytes(Path::new("/")).await.unwrap(),
            0,
            "removed, but still open"
        );
        env.disk().write_atomic(Path::new("g"), b"").await.unwrap();
        std::future::pending::<()>().await;
    });
    assert_eq!(outcome, Outcome::Stopped);
    let second = Executor::with_disk(7, first.disk().clone());
    let run = second.run_until(StopAt::default(), |env| async move {
        assert!(env.disk().exists(Path::new("g")).await.unwrap());
        env.disk().available_bytes(Path::new("/")).await.unwrap()
    });
    assert_eq!(run.finished(), BLOCK_BYTES as u64);
    assert_eq!(second.disk().open_files(), 0);
}

#[test]
fn a_run_stops_at_the_step_and_at_the_disk_operation_it_is_told() {
    let count_operations = |stop_at: StopAt| {
        let done = Rc::new(RefCell::new(0));
        let counter = done.clone();
        Executor::new(8).run_until(stop_at, |env| async move {
            for _ in 0..100 {
                env.disk().exists(Path::new("f")).await.unwrap();
                *counter.borrow_mut() += 1;
            }
        });
        done.take()
    };
    assert_eq!(count_operations(StopAt::default()), 100);
    for operations in 1..20 {
        let stop_at = StopAt {
            disk_operations: Some(operations),
            ..StopAt::default()
        };
        assert_eq!(
            count_operations(stop_at),
            operations - 1,
            "the last one is under way"
        );
    }
    assert_eq!(
        count_operations(StopAt {
            steps: Some(1),
            ..StopAt::default()
        }),
        0
    );
}

#[test]
fn the_wall_clock_follows_time_and_jumps() {
    Executor::run(1, |env| async move {
        let before = env.wall_clock_ms();
        env.sleep(Duration::from_secs(2)).await;
        assert_eq!(env.wall_clock_ms(), before + 2000);
        env.world().jump_wall_clock(-10_000);
        assert_eq!(env.wall_clock_ms(), before - 8000);
    });
}

#[test]
#[should_panic(expected = "nothing can run")]
fn waiting_for_what_cannot_happen_is_reported() {
    Executor::run(4, |_env| std::future::pending::<()>());
}
