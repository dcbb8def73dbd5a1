//! Keeping what offline logs need of the journal without letting them hold it up.
//!
//! A log that went offline may have acknowledged records in the journal only. Its repair needs them, but files are recycled in order, so the oldest
//! of them would soon block all others. When such a file stands in the way, everything the journal says of the offline logs is said again in new
//! entries; then the old files can go. The bytes do not count against the configured limit.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use super::recovery::{JournalView, resolve};
use super::shard::{LogKey, Shard};
use crate::environment::Environment;
use crate::journal::entry::{ITEM_BYTES, Item, cut};
use crate::journal::found::FoundItem;
use crate::journal::scan::read_live;
use crate::journal::window::Window;
use crate::journal::{FileMark, Journal, JournalFile};
use crate::log::{Log, LogError};
use crate::memory::AlignedBuffer;

impl<E: Environment> Shard<E> {
    /// Says again what offline logs need, if one of them alone holds the oldest file.
    pub(super) async fn restate_offline(&self) -> io::Result<()> {
        let journal = self.journal();
        let (files, completed) = journal.live_files();
        let Some(front) = files.first().filter(|_| files.len() > 1) else {
            return Ok(());
        };
        let holders: Vec<Rc<Log<E>>> = self
            .all_logs()
            .into_iter()
            .filter(|log| {
                log.first_mark()
                    .is_some_and(|mark| Rc::ptr_eq(&mark, &front.mark))
            })
            .collect();
        let offline = |log: &Rc<Log<E>>| matches!(log.failure(), Some(LogError::Offline { .. }));
        if holders.is_empty() || !holders.iter().all(offline) {
            return Ok(());
        }
        // All offline logs at once: the whole chain has to be read for any of them.
        let logs: Vec<Rc<Log<E>>> = self.all_logs().into_iter().filter(offline).collect();
        let keys: BTreeSet<LogKey> = logs.iter().map(|log| key(log)).collect();
        let items = read_live(&files, completed, journal.identity(), |item| {
            matches!(item, Item::LifeStart { .. })
                || of_log(item).is_some_and(|key| keys.contains(&key))
        })
        .await?;
        let mut views = resolve(&items);
        journal.restating(None);
        let mut bytes = 0;
        let mut done = Ok(());
        for log in &logs {
            let view = views.remove(&key(log)).unwrap_or_default();
            match restate(&journal, log, &files, &items, &view).await {
                Ok(restated) => bytes += restated.unwrap_or(0),
                Err(error) => done = Err(error),
            }
        }
        journal.restating(Some(bytes));
        done
    }
}

fn key<E: Environment>(log: &Log<E>) -> LogKey {
    (log.topic_id(), log.topic_partition().partition)
}

fn of_log(item: &Item) -> Option<LogKey> {
    match *item {
        Item::Append {
            topic_id,
            partition,
            ..
        }
        | Item::Truncate {
            topic_id,
            partition,
            ..
        }
        | Item::Delete {
            topic_id,
            partition,
        }
        | Item::SetAside {
            topic_id,
            partition,
        }
        | Item::Restate {
            topic_id,
            partition,
            ..
        } => Some((topic_id, partition)),
        Item::LifeStart { .. } | Item::Checkpoint => None,
    }
}

/// Says everything again that counts for one log, then lets go of where it was said before. Returns its bytes, or nothing when the log leaves meanwhile: behind the news of
/// that the journal must not speak of it.
async fn restate<E: Environment>(
    journal: &Journal<E>,
    log: &Log<E>,
    files: &[JournalFile<E>],
    items: &[FoundItem],
    view: &JournalView,
) -> io::Result<Option<u64>> {
    let (topic_id, partition) = key(log);
    let marker = |complete| Item::Restate {
        topic_id,
        partition,
        truncated_to: view.truncated_to.unwrap_or(-1),
        complete,
    };
    let recovery_point = log
        .state
        .borrow()
        .recovery_point
        .min(view.truncated_to.unwrap_or(i64::MAX));
    let mut marks: Vec<Rc<FileMark>> = Vec::new();
    let Some((_, mut bytes)) = push(journal, log, &marker(false), &[], &mut marks).await? else {
        return Ok(None);
    };
    let mut window = Window::default();
    let mut window_file = usize::MAX;
    for index in &view.appends {
        let found = &items[*index];
        let Item::Append { last_offset, .. } = found.read.item else {
            continue;
        };
        if last_offset < recovery_point {
            continue;
        }
        if window_file != found.file() {
            window = Window::default();
            window_file = found.file();
        }
        let entry = window.entry_bytes(&files[found.file()], found).await?;
        let body: Vec<u8> = found
            .read
            .body()
            .iter()
            .flat_map(|range| &entry[range.clone()])
            .copied()
            .collect();
        match push(journal, log, &found.read.item, &body, &mut marks).await? {
            Some((_, pushed)) => bytes += pushed,
            None => return Ok(None),
        }
    }
    let Some((sequence, last)) = push(journal, log, &marker(true), &[], &mut marks).await? else {
        return Ok(None);
    };
    journal
        .completed(sequence)
        .await
        .map_err(|reason| io::Error::other(&*reason))?;
    if log.is_retiring() {
        return Ok(None);
    }
    log.hold_instead(&marks);
    Ok(Some(bytes + last))
}

/// Gathers one item unless the log leaves; returns its entry's sequence and the item's bytes.
async fn push<E: Environment>(
    journal: &Journal<E>,
    log: &Log<E>,
    item: &Item,
    body: &[u8],
    marks: &mut Vec<Rc<FileMark>>,
) -> io::Result<Option<(u64, u64)>> {
    let blocks = match *item {
        Item::Append { position, .. } => {
            let (_, whole, _) = cut(position, body.len());
            if whole.is_empty() {
                Vec::new()
            } else {
                vec![AlignedBuffer::copied_from(&body[whole]).into_aligned_slice()]
            }
        }
        _ => Vec::new(),
    };
    journal
        .wait_for_room(body.len(), 1)
        .await
        .map_err(|reason| io::Error::other(&*reason))?;
    if log.is_retiring() {
        return Ok(None);
    }
    let (sequence, mark) = journal.push(item, &[body], blocks, None);
    if !marks.last().is_some_and(|last| Rc::ptr_eq(last, &mark)) {
        marks.push(mark);
    }
    Ok(Some((sequence, (ITEM_BYTES + body.len()) as u64)))
}
