//! How logs leave: nothing is appended any more, the journal says that they are gone, their directories are renamed, and what they held is given back.
//!
//! The order matters. A batch that got into the journal behind the news of its log's end would have no place to go at the next start; a file made after the
//! directory was renamed would turn up in the next log of the same name.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use super::maintain::name_of;
use super::shard::LogKey;
use super::{Engine, EngineError};
use crate::disk::Disk;
use crate::environment::Environment;
use crate::journal::FileMark;
use crate::journal::entry::Item;
use crate::log::{Log, TopicId};

/// How a log leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Its files are removed.
    Deleted,
    /// Its directory stays under another name.
    SetAside,
}

/// Logs that refuse appends because they are about to leave; those whose leaving the journal has not been told take appends again when this is dropped.
struct Refusing<E: Environment>(Vec<Rc<Log<E>>>);

impl<E: Environment> Drop for Refusing<E> {
    fn drop(&mut self) {
        for log in &self.0 {
            log.stay();
        }
    }
}

impl<E: Environment> Engine<E> {
    /// Deletes a log: durable in the journal when this returns; its files go in the background after `file.delete.delay.ms`.
    ///
    /// # Errors
    /// When the journal or the directory refuses. Deleting what is not there is fine.
    pub async fn delete_log(&self, topic_id: &TopicId, partition: i32) -> Result<(), EngineError> {
        self.delete_logs(&[(*topic_id, partition)]).await
    }

    /// Deletes many logs, with one wait for the disk where [`Engine::delete_log`] has one for each.
    ///
    /// # Errors
    /// As for one; the others are deleted all the same, unless the journal has failed.
    pub async fn delete_logs(&self, logs: &[(TopicId, i32)]) -> Result<(), EngineError> {
        self.retire(logs, Leaving::Deleted).await
    }

    /// Sets a log aside that the cluster does not know: its directory is renamed to `…-stray` and kept.
    ///
    /// # Errors
    /// When the journal or the directory refuses.
    pub async fn set_aside(&self, topic_id: &TopicId, partition: i32) -> Result<(), EngineError> {
        self.retire(&[(*topic_id, partition)], Leaving::SetAside)
            .await
    }

    async fn retire(&self, keys: &[LogKey], leaving: Leaving) -> Result<(), EngineError> {
        let shard = &self.shard;
        let _turn = shard.registry.retirements.enter().await;
        let mut refusing = Refusing(Vec::with_capacity(keys.len()));
        for key in keys {
            let log = shard.logs.borrow().get(key).cloned();
            if let Some(log) = log {
                log.refuse_appends();
                refusing.0.push(log);
            }
        }
        if leaving == Leaving::SetAside {
            // It should be whole: its last records are in the journal only.
            for log in &refusing.0 {
                if log.checkpoint(true).await.is_none() {
                    tracing::warn!(log = %log.topic_partition(), "set aside without its last records, which cannot be written");
                }
            }
        }
        // The logs stay where checkpoints find them until the journal has taken the items: they may hold what makes room.
        let journal = shard.journal();
        let mut said: Vec<(Rc<Log<E>>, Rc<FileMark>)> = Vec::with_capacity(refusing.0.len());
        let mut refused = None;
        let mut last = 0;
        for log in &refusing.0 {
            match journal.say(&item(log, leaving)).await {
                Ok((sequence, mark)) => {
                    log.leave();
                    said.push((log.clone(), mark));
                    last = sequence;
                }
                Err(reason) => {
                    refused = Some(reason);
                    break;
                }
            }
        }
        drop(refusing);
        let told = match said.is_empty() {
            true => Ok(()),
            false => journal.completed(last).await,
        };
        let left = match &told {
            Ok(()) => self.leave_directories(&said, leaving).await,
            // The journal has failed, and every log of the shard is offline with it.
            Err(_) => Ok(()),
        };
        for (_, mark) in said {
            mark.unpin();
        }
        if let Some(reason) = refused.or(told.err()) {
            return Err(io::Error::other(&*reason).into());
        }
        Ok(left?)
    }

    /// Renames the directories of logs that the journal calls gone, and gives back everything they held. An error stops none of it.
    async fn leave_directories(
        &self,
        said: &[(Rc<Log<E>>, Rc<FileMark>)],
        leaving: Leaving,
    ) -> io::Result<()> {
        let shard = &self.shard;
        let suffix = match leaving {
            Leaving::Deleted => "delete",
            Leaving::SetAside => "stray",
        };
        for (log, _) in said {
            log.close_deleted();
        }
        let mut done = Ok(());
        let mut touched = BTreeSet::new();
        let mut crowded = false;
        for (log, _) in said {
            let renamed = log.rename_directory(suffix).await;
            log.let_go();
            shard.dismiss(log);
            crowded |= shard
                .registry
                .forget(log.directory_index(), &name_of(log.topic_partition()));
            match renamed {
                Ok(None) => {}
                Ok(Some(renamed)) => {
                    touched.insert(log.directory_index());
                    if leaving == Leaving::Deleted {
                        shard.remove_later(renamed);
                    }
                }
                Err(error) => done = Err(error),
            }
        }
        for directory in touched {
            let path = &shard.config.log_dirs[directory];
            done = done.and(shard.env.disk().sync_dir(path).await);
        }
        if crowded && let Err(error) = shard.take_out_forgotten().await {
            tracing::warn!("checkpoint files keep naming deleted logs for now: {error}");
        }
        done
    }
}

fn item<E: Environment>(log: &Log<E>, leaving: Leaving) -> Item {
    let (topic_id, partition) = (log.topic_id(), log.topic_partition().partition);
    match leaving {
        Leaving::Deleted => Item::Delete {
            topic_id,
            partition,
        },
        Leaving::SetAside => Item::SetAside {
            topic_id,
            partition,
        },
    }
}
