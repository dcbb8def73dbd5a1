//! What becomes of the journal when one of its tasks panics: it fails, so that nobody waits for a task that is no more.

use std::rc::Rc;

use super::Journal;
use crate::environment::Environment;

/// Held by a task of the journal for as long as it runs.
pub(super) struct Supervised<E: Environment>(pub Rc<Journal<E>>);

impl<E: Environment> Drop for Supervised<E> {
    fn drop(&mut self) {
        // A task that is dropped with its runtime has nobody left to tell.
        if std::thread::panicking() {
            self.0.fail(
                "a task of the journal has panicked, the log says where; the partitions of this shard are offline until the broker is restarted".into(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    //! Whoever waits for the journal, or comes later, is told that it has failed.
    use std::panic::AssertUnwindSafe;
    use std::path::PathBuf;

    use futures_util::FutureExt;

    use super::super::space::ChainStart;
    use super::*;
    use crate::config::EngineConfig;
    use crate::disk::Disk;
    use crate::journal::entry::{Identity, Item};
    use crate::memory::MemoryPool;
    use crate::sim::Executor;
    use crate::wait::Signal;

    #[test]
    fn a_panic_fails_the_journal() {
        let executor = Executor::new(1);
        let life = executor.run_until(Default::default(), |env| async move {
            let config = EngineConfig::new(vec![PathBuf::from("/data")]);
            let made = env.disk().create_dir_all(&config.journal_path()).await;
            made.expect("made");
            let identity = Identity {
                journal: 1,
                shard: 0,
            };
            let chain = ChainStart {
                live: Vec::new(),
                free: Vec::new(),
                next_file_number: 0,
                previous_sequence: 0,
                previous_checksum: 0,
                next_sequence: 1,
            };
            let keeper = Rc::new(Signal::default());
            let pool = MemoryPool::new(0);
            let journal = Journal::start(&env, &config, identity, pool, keeper, chain);
            let journal = journal.await.expect("started");
            let held = journal.clone();
            let waiting = journal.completed(u64::MAX);
            let panicking = AssertUnwindSafe(async move {
                let _held = Supervised(held);
                panic!("on purpose");
            })
            .catch_unwind();
            let (waited, _) = futures_util::join!(waiting, panicking);
            assert!(waited.is_err_and(|reason| reason.contains("panicked")));
            assert!(journal.write_item(&Item::Checkpoint).await.is_err());
        });
        life.finished();
    }
}
