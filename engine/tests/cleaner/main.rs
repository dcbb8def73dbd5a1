//! What a pass of the cleaner does to one log, and what it leaves alone: damage, a full disk, a stop or a deletion in the middle, large batches, limits, and producers whose records are all gone.

mod limits;
mod support;
mod truncations;

use std::cell::Cell;
use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{join, join_all};
use ringlog_engine::batch::{BatchBuilder, Compression};
use ringlog_engine::config::{CleanerMemory, EngineConfig, LogConfig};
use ringlog_engine::disk::Disk;
use ringlog_engine::disk::sim::{Fault, FaultKind, Operation, SimDisk};
use ringlog_engine::environment::Environment;
use ringlog_engine::log::{AppendError, ReadLimit, TopicId, TopicPartition};

use crate::support::*;

#[test]
fn the_last_of_each_key_stays_and_segments_become_one() {
    let ((), disk) = live(&SimDisk::new(1), |env| async move {
        let (engine, log) = open(&env, config()).await;
        fill(&env, &log, 200).await;
        let before = (records(&log).await, log.size_bytes());
        let segments = names(&env)
            .await
            .iter()
            .filter(|name| name.ends_with(".log"))
            .count();
        assert!(segments > 5);
        engine.clean_now(NOW).await;
        let counters = engine.metrics().cleaner;
        assert_eq!((counters.passes, counters.uncleanable), (1, 0));
        assert!(
            counters.kept_bytes < counters.replaced_bytes / 2,
            "{counters:?}"
        );
        let after = records(&log).await;
        assert!(log.size_bytes() < before.1 / 2);
        assert_eq!(log.log_end_offset(), 200);
        for key in 0..10 {
            let key = format!("key-{key}");
            let last = |all: &[(i64, String, Option<Vec<u8>>)]| {
                all.iter().rfind(|(_, found, _)| *found == key).cloned()
            };
            assert_eq!(last(&after), last(&before.0));
        }
        let names = names(&env).await;
        assert!(!unfinished(&names), "{names:?}");
        // Nothing is due until something is dirty again.
        engine.clean_now(NOW).await;
        assert_eq!(engine.metrics().cleaner.passes, 1);
        let checkpoint = env
            .disk()
            .read_small(Path::new("/data/cleaner-offset-checkpoint.0"));
        let checkpoint = String::from_utf8(checkpoint.await.expect("it is there")).expect("text");
        let offset = checkpoint
            .strip_prefix("0\n1\ncompacted 0 ")
            .expect("Kafka's format");
        assert!(
            offset
                .trim()
                .parse::<i64>()
                .is_ok_and(|offset| (100..200).contains(&offset))
        );
        engine.shutdown_clean().await.expect("stopped");
    });
    live(&disk, |env| async move {
        let (engine, log) = open(&env, config()).await;
        let before = records(&log).await;
        fill(&env, &log, 100).await;
        let segments = names(&env).await.len();
        engine.clean_now(NOW).await;
        assert_eq!(engine.metrics().cleaner.passes, 1);
        assert!(before.len() < 100 && records(&log).await.len() < 100);
        // What the first pass has made small becomes one.
        assert!(names(&env).await.len() < segments);
    });
}

#[test]
fn a_tombstone_stays_for_its_time_and_then_goes_for_good() {
    live(&SimDisk::new(2), |env| async move {
        let (engine, log) = open(&env, config()).await;
        append(&log, record("gone", Some(b"value")))
            .await
            .expect("appended");
        append(&log, record("gone", None)).await.expect("appended");
        let has = |found: Vec<(i64, String, Option<Vec<u8>>)>| {
            found.iter().any(|(_, key, _)| key == "gone")
        };
        for (time, there) in [(NOW, true), (NOW + 999, true), (NOW + 1000, false)] {
            fill(&env, &log, 60).await;
            engine.clean_now(time).await;
            let found = records(&log).await;
            assert!(
                found
                    .iter()
                    .all(|(_, key, value)| key != "gone" || value.is_none())
            );
            assert_eq!(has(found), there, "{}", time - NOW);
        }
        assert_eq!(engine.metrics().cleaner.passes, 3);
    });
}

#[test]
fn a_producers_sequence_outlives_its_records() {
    let producer = |sequence| {
        BatchBuilder::new()
            .producer(77, 4, sequence)
            .record(NOW, Some(b"key-1"), Some(b"mine"))
    };
    live(&SimDisk::new(3), |env| async move {
        let (engine, log) = open(&env, config()).await;
        for sequence in 0..5 {
            append(&log, producer(sequence)).await.expect("appended");
        }
        fill(&env, &log, 100).await;
        engine.clean_now(NOW).await;
        let mine = |value: &Option<Vec<u8>>| value.as_deref() == Some(b"mine");
        assert!(!records(&log).await.iter().any(|(_, _, value)| mine(value)));
        // Without snapshots the batches alone tell what producers did; a truncation has them read again.
        for name in names(&env).await {
            if name.ends_with(".snapshot") {
                let path = Path::new(DIRECTORY).join(name);
                env.disk().remove_file(&path).await.expect("removed");
            }
        }
        assert_eq!(log.truncate_to(104).await, Ok(104));
        let view = log.producer_states();
        let view = view.iter().find(|view| view.producer_id == 77);
        let view = view.expect("known");
        assert_eq!((view.producer_epoch, view.last_sequence), (4, 4));
        let gap = append(&log, producer(9)).await;
        assert!(matches!(gap, Err(AppendError::Sequence(_))), "{gap:?}");
        let again = append(&log, producer(4)).await.expect("a duplicate");
        assert_eq!(again, 4, "the original's offset");
        append(&log, producer(5)).await.expect("the next one");
    });
}

#[test]
fn damage_is_left_alone_and_told() {
    let ((), disk) = live(&SimDisk::new(4), |env| async move {
        let (engine, log) = open(&env, config()).await;
        fill(&env, &log, 100).await;
        engine.shutdown_clean().await.expect("stopped");
    });
    let path = Path::new(DIRECTORY).join("00000000000000000000.log");
    disk.flip_bit(&path, 1000, 3).expect("flipped");
    live(&disk, |env| async move {
        let (engine, log) = open(&env, config()).await;
        let before = log.size_bytes();
        engine.clean_now(NOW).await;
        let counters = engine.metrics().cleaner;
        assert_eq!((counters.passes, counters.uncleanable), (0, 1));
        assert_eq!((log.size_bytes(), log.failure()), (before, None));
        assert!(!unfinished(&names(&env).await));
        // It is not tried again and again, and goes from the count with the log.
        engine.clean_now(NOW).await;
        assert_eq!(engine.metrics().cleaner.uncleanable, 1);
        engine
            .delete_log(&TopicId([1; 16]), 0)
            .await
            .expect("deleted");
        engine.clean_now(NOW).await;
        assert_eq!(engine.metrics().cleaner.uncleanable, 0);
    });
}

#[test]
fn a_full_disk_ends_a_pass_and_space_begins_another() {
    let disk = SimDisk::new(5);
    let full = disk.clone();
    live(&disk, |env| async move {
        let (engine, log) = open(&env, config()).await;
        fill(&env, &log, 200).await;
        let before = records(&log).await;
        full.set_capacity_bytes(0);
        engine.clean_now(NOW).await;
        let counters = engine.metrics().cleaner;
        assert_eq!((counters.passes, counters.uncleanable), (0, 0));
        assert_eq!(log.failure(), None);
        assert_eq!(records(&log).await, before);
        assert!(!unfinished(&names(&env).await));
        full.set_capacity_bytes(1 << 40);
        engine.clean_now(NOW).await;
        assert_eq!(engine.metrics().cleaner.passes, 1);
        assert!(records(&log).await.len() < before.len());
    });
}

#[test]
fn batches_larger_than_the_buffers_are_cleaned() {
    live(&SimDisk::new(6), |env| async move {
        let (engine, log) = open(&env, config()).await;
        let large: Vec<u8> = (0..700_000u32)
            .map(|at| (at.wrapping_mul(at) >> 3) as u8)
            .collect();
        for codec in [Compression::None, Compression::Zstd] {
            let builder = record("large", Some(&large)).record(NOW, Some(b"other"), Some(&large));
            append(&log, builder.compression(codec))
                .await
                .expect("appended");
        }
        append(&log, record("large", Some(b"small")))
            .await
            .expect("appended");
        fill(&env, &log, 100).await;
        engine.clean_now(NOW).await;
        assert_eq!(engine.metrics().cleaner.passes, 1);
        let found = records(&log).await;
        let large: Vec<_> = found.iter().filter(|(_, key, _)| key == "large").collect();
        assert_eq!(large, [&(4, "large".to_string(), Some(b"small".to_vec()))]);
        let other: Vec<i64> = found
            .iter()
            .filter(|(_, key, _)| key == "other")
            .map(|(offset, ..)| *offset)
            .collect();
        assert_eq!(other, [3]);
    });
}

#[test]
fn the_limit_of_bytes_a_second_is_kept() {
    live(&SimDisk::new(7), |env| async move {
        let (engine, log) = open(&env, slow()).await;
        fill(&env, &log, 200).await;
        let (size, began) = (log.size_bytes(), env.now());
        engine.clean_now(NOW).await;
        assert_eq!(engine.metrics().cleaner.passes, 1);
        let seconds = (env.now() - began) / 1_000_000;
        // The log is read twice, and some of it written.
        assert!(
            (size * 2 / 20_000 - 1..size * 3 / 20_000 + 2).contains(&seconds),
            "{seconds} s for {size}"
        );
    });
}

#[test]
fn a_stop_or_a_deletion_does_not_wait_for_a_pass() {
    for deletes in [false, true] {
        let ((), disk) = live(&SimDisk::new(8), move |env| async move {
            let (engine, log) = open(&env, slow()).await;
            fill(&env, &log, 300).await;
            let began = env.now();
            let pass = engine.clean_now(NOW);
            let end = async {
                // In the middle of writing the first segment.
                env.sleep(Duration::from_secs(7)).await;
                assert!(unfinished(&names(&env).await), "a pass is under way");
                if deletes {
                    engine
                        .delete_log(&TopicId([1; 16]), 0)
                        .await
                        .expect("deleted");
                } else {
                    engine.shutdown_clean().await.expect("stopped");
                }
            };
            join(pass, end).await;
            assert!(env.now() - began < 8_000_000, "{}", env.now() - began);
            assert_eq!(engine.metrics().cleaner.passes, 0);
        });
        live(&disk, move |env| async move {
            let (_engine, log) = open(&env, config()).await;
            assert_eq!(log.failure(), None);
            assert_eq!(log.log_end_offset(), if deletes { 0 } else { 300 });
            if !deletes {
                assert!(!unfinished(&names(&env).await));
                let found = records(&log).await;
                let last = found.last().map(|(offset, ..)| *offset);
                assert!(found.len() <= 300 && last == Some(299));
            }
        });
    }
}

#[test]
fn appends_and_reads_go_on_during_a_pass() {
    live(&SimDisk::new(9), |env| async move {
        let (engine, log) = open(&env, slow()).await;
        fill(&env, &log, 200).await;
        let pass = engine.clean_now(NOW);
        let others = async {
            for number in 0..300 {
                let began = env.now();
                append(&log, record("meanwhile", Some(b"x")))
                    .await
                    .expect("appended");
                let last = log.log_end_offset() - 1;
                for offset in [0, number % 190, last] {
                    let read = log.read(offset, 2000, true, ReadLimit::HighWatermark).await;
                    assert!(read.expect("readable").next_offset > offset);
                }
                assert!(env.now() - began < 1_000_000, "nothing waits for the pass");
                env.sleep(Duration::from_millis(50)).await;
            }
        };
        join(pass, others).await;
        // What was appended meanwhile made more than one due.
        assert!(engine.metrics().cleaner.passes >= 1);
        assert_eq!(engine.metrics().cleaner.uncleanable, 0);
    });
}

#[test]
fn a_batch_with_more_keys_than_the_map_takes_is_told() {
    live(&SimDisk::new(10), |env| async move {
        let config = EngineConfig {
            cleaner_memory: CleanerMemory::new(240, 1),
            ..config()
        };
        let (engine, log) = open(&env, config).await;
        let mut builder = BatchBuilder::new();
        for key in 0..50 {
            builder = builder.record(NOW, Some(format!("{key}").as_bytes()), Some(b"v"));
        }
        append(&log, builder).await.expect("appended");
        fill(&env, &log, 100).await;
        engine.clean_now(NOW).await;
        let counters = engine.metrics().cleaner;
        assert_eq!((counters.passes, counters.uncleanable), (0, 1));
        assert_eq!(records(&log).await.len(), 150);
    });
}

#[test]
fn times_are_those_of_records_that_are_there() {
    live(&SimDisk::new(11), |env| async move {
        let (engine, log) = open(&env, config()).await;
        let newest =
            BatchBuilder::new()
                .producer(5, 0, 0)
                .record(NOW + 5, Some(b"key-3"), Some(b"old"));
        append(&log, newest).await.expect("appended");
        fill(&env, &log, 100).await;
        let found = log.max_timestamp_offset().await.expect("known");
        assert_eq!(
            found.map(|found| (found.timestamp, found.offset)),
            Some((NOW + 5, 0))
        );
        engine.clean_now(NOW).await;
        // The producer's last batch is there, without its record.
        let there: Vec<i64> = records(&log)
            .await
            .iter()
            .map(|(offset, ..)| *offset)
            .collect();
        assert!(!there.contains(&0));
        assert_eq!(
            log.offset_for_timestamp(NOW + 5).await.expect("known"),
            None
        );
        for found in [
            log.max_timestamp_offset().await.expect("known"),
            log.offset_for_timestamp(NOW - 5).await.expect("known"),
        ] {
            let found = found.expect("a record");
            assert_eq!((found.timestamp, found.offset), (NOW, there[0]));
        }
    });
}

#[test]
fn what_may_pass_makes_no_log_uncleanable() {
    let ((), disk) = live(&SimDisk::new(12), |env| async move {
        let (engine, log) = open(&env, config()).await;
        fill(&env, &log, 150).await;
        engine.shutdown_clean().await.expect("stopped");
    });
    live(&disk, |env| async move {
        let (engine, _) = open(&env, config()).await;
        // Indexes are read from their files, which is refused for a time.
        let fault = Fault::always(FaultKind::OutOfSpace, Operation::Open, "index");
        env.disk().inject(fault);
        engine.clean_now(NOW).await;
        let counters = engine.metrics().cleaner;
        assert_eq!((counters.passes, counters.uncleanable), (0, 0));
        env.disk().clear_faults();
        engine.clean_now(NOW).await;
        assert_eq!(engine.metrics().cleaner.passes, 1);
    });
}

#[test]
fn times_are_found_while_segments_are_joined() {
    const COUNT: i64 = 400;
    let time_of = |offset: i64| NOW + offset;
    let ((), disk) = live(&SimDisk::new(13), |env| async move {
        let (engine, log) = open(&env, config()).await;
        for offset in 0..COUNT {
            let key = format!("key-{offset}");
            let record =
                BatchBuilder::new().record(time_of(offset), Some(key.as_bytes()), Some(&[0; 300]));
            append(&log, record).await.expect("appended");
        }
        settle(&env).await;
        engine.shutdown_clean().await.expect("stopped");
    });
    for attempt in 0..40 {
        live(&disk.kill(attempt), |env| async move {
            // So that times are looked up in the files.
            let config = EngineConfig {
                loaded_index_bytes_max: 0,
                ..config()
            };
            let (engine, log) = open(&env, config).await;
            log.set_config(LogConfig {
                segment_bytes: 40 << 10,
                ..log_config()
            });
            let lookups = async {
                env.sleep(Duration::from_micros(1000 * attempt)).await;
                let found = (0..COUNT).step_by(9).map(|offset| {
                    let log = log.clone();
                    async move { (offset, log.offset_for_timestamp(time_of(offset)).await) }
                });
                for (offset, found) in join_all(found).await {
                    let found = found.expect("known").map(|found| found.offset);
                    assert_eq!(found, Some(offset), "attempt {attempt}");
                }
            };
            join(engine.clean_now(NOW), lookups).await;
            assert_eq!(engine.metrics().cleaner.passes, 1);
        });
    }
}

#[test]
fn looking_at_many_logs_leaves_turns_to_others() {
    live(&SimDisk::new(14), |env| async move {
        let (engine, _) = open(&env, config()).await;
        for partition in 1..200 {
            let name = TopicPartition::new("compacted", partition);
            let made = engine.create_log(name, TopicId([1; 16]), log_config(), None);
            made.await.expect("made");
        }
        let (looked, turns) = (Cell::new(false), Cell::new(0));
        let look = async {
            engine.clean_now(NOW).await;
            looked.set(true);
        };
        let others = poll_fn(|context| {
            if looked.get() {
                return Poll::Ready(());
            }
            turns.set(turns.get() + 1);
            context.waker().wake_by_ref();
            Poll::Pending
        });
        join(look, others).await;
        assert!(turns.get() > 2, "{} turns", turns.get());
    });
}
