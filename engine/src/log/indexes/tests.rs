//! Indexes that are made anew while the cleaner puts another segment in the place of theirs are not put over that one's, neither in memory nor in its files.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join;

use crate::config::LogConfig;
use crate::environment::Environment;
use crate::log::testing::{busy, fill, with_log};
use crate::segment::{EncodedIndexes, file_name, index_settings};

#[test]
fn what_is_made_anew_of_a_segment_that_is_gone_is_thrown_away() {
    let log_config = LogConfig {
        segment_bytes: 8 << 10,
        // An entry for every batch: those of the old segment do not fit the new one.
        index_interval_bytes: 1,
        compact: true,
        delete: false,
        ..LogConfig::default()
    };
    for delay in 0..40 {
        let log_config = log_config.clone();
        with_log(delay, busy(), log_config, move |env, log| async move {
            fill(&log, 60, 300).await;
            env.sleep(Duration::from_millis(500)).await;
            let range = log.dirty_range(None, 0).await.expect("found");
            let before = log.size_bytes();
            let layout = log.layout();
            let rebuilding = async {
                env.sleep(Duration::from_micros(delay * 50)).await;
                // The last one is under way while the other segment takes the place.
                while log.layout() == layout {
                    log.rebuild_indexes(0).await.expect("made anew");
                }
            };
            let (cleaned, ()) = join(log.clean(&range, 0), rebuilding).await;
            cleaned.expect("cleaned");
            assert!(log.size_bytes() < before / 2, "{delay}");
            let settings = index_settings(&log.config());
            let (mut right, _) = log.indexes_of_batches(0, settings).await.expect("read");
            right.seal().expect("sealed");
            let right = EncodedIndexes::of(&right, false);
            let state = log.state.borrow();
            let held = state.segments.get(&0).and_then(|it| it.indexes.as_ref());
            if let Some(held) = held {
                let held = EncodedIndexes::of(held, false);
                assert_eq!(held.all(), right.all(), "in memory, {delay}");
            }
            for (kind, right) in ["index", "timeindex"].into_iter().zip(right.all()) {
                let path = Path::new("data/log-0").join(file_name(0, kind));
                let mut files = env.disk().files().into_iter();
                let file = files.find(|(name, _)| *name == path);
                let file = file.map(|(_, bytes)| bytes);
                assert_eq!(file.as_deref(), right, "{kind}, {delay}");
            }
        });
    }
}
