//! From the journal back into the logs: what the items of the chain come to, and putting it where it belongs.
//!
//! What an offline log needs is said again now and then, so that the files before can go; what was said completely replaces what was said before.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use super::EngineError;
use super::shard::{LogKey, Shard};
use crate::batch::{BatchHeader, EndTransactionMarker};
use crate::environment::Environment;
use crate::journal::entry::Item;
use crate::journal::found::{FoundItem, header_in};
use crate::journal::scan::Scan;
use crate::journal::space::ChainStart;
use crate::journal::window::Window;
use crate::journal::{FileMark, JournalFile};
use crate::log::Log;
use crate::log::flush::Place;
use crate::log::parked::Files;
use crate::log::replay::event_of;

/// What the journal says about one log.
#[derive(Default)]
pub(super) struct JournalView {
    /// Indices of the items that have to be put back.
    pub appends: Vec<usize>,
    /// While they are being said again: the items so far.
    restated: Option<Vec<usize>>,
    pub truncated_to: Option<i64>,
    /// The oldest journal file with a truncation that counts.
    pub truncated_in: usize,
    pub deleted: bool,
    /// It was deleted once, whatever came then.
    was_deleted: bool,
    /// Set aside, rather: the directory stays under another name.
    pub kept: bool,
}

pub(super) fn first_offset<E: Environment>(view: &JournalView, scan: &Scan<E>) -> Option<i64> {
    match scan.items[*view.appends.first()?].read.item {
        Item::Append { base_offset, .. } => Some(base_offset),
        _ => None,
    }
}

pub(super) fn segments_of<E: Environment>(
    view: &JournalView,
    scan: Option<&Scan<E>>,
) -> BTreeSet<i64> {
    let Some(scan) = scan else {
        return Default::default();
    };
    let bases = view
        .appends
        .iter()
        .filter_map(|index| match scan.items[*index].read.item {
            Item::Append { segment_base, .. } => Some(segment_base),
            _ => None,
        });
    bases.collect()
}

/// What the chain's items, in order, leave to be done for each log.
pub(super) fn resolve(items: &[FoundItem]) -> BTreeMap<LogKey, JournalView> {
    let mut views: BTreeMap<LogKey, JournalView> = BTreeMap::new();
    for (index, found) in items.iter().enumerate() {
        match found.read.item {
            Item::Append {
                topic_id,
                partition,
                ..
            } => {
                let view = views.entry((topic_id, partition)).or_default();
                // Made anew under its id: the directory that is there is the new one's.
                view.deleted = false;
                match &mut view.restated {
                    Some(restated) => restated.push(index),
                    None => view.appends.push(index),
                }
            }
            Item::Truncate {
                topic_id,
                partition,
                offset,
            } => {
                let view = views.entry((topic_id, partition)).or_default();
                view.appends.retain(|index| {
                    matches!(items[*index].read.item, Item::Append { last_offset, .. } if last_offset < offset)
                });
                if view.truncated_to.is_none() {
                    view.truncated_in = found.file();
                }
                view.truncated_to = Some(
                    view.truncated_to
                        .map_or(offset, |lowest| lowest.min(offset)),
                );
            }
            Item::Delete {
                topic_id,
                partition,
            }
            | Item::SetAside {
                topic_id,
                partition,
            } => {
                let view = views.entry((topic_id, partition)).or_default();
                *view = JournalView {
                    deleted: true,
                    was_deleted: true,
                    kept: matches!(found.read.item, Item::SetAside { .. }),
                    ..JournalView::default()
                };
            }
            Item::Restate {
                topic_id,
                partition,
                truncated_to,
                complete,
            } => {
                let view = views.entry((topic_id, partition)).or_default();
                match view.restated.take() {
                    Some(restated) if complete => {
                        view.appends = restated;
                        view.truncated_to = (truncated_to >= 0).then_some(truncated_to);
                        view.truncated_in = found.file();
                    }
                    _ if complete => {}
                    _ => view.restated = Some(Vec::new()),
                }
            }
            // What an earlier life did not finish saying again was not said.
            Item::LifeStart { .. } => views.values_mut().for_each(|view| view.restated = None),
            Item::Checkpoint => {}
        }
    }
    views
}

/// Whether a log's batches stay in the journal until somebody needs them: where they are so small that reading them one by one takes longer than reading all of the journal once
/// more, they do not.
fn may_park(view: &JournalView, items: &[FoundItem], average_min: u64) -> bool {
    let mut bytes = 0;
    for index in &view.appends {
        match items[*index].header() {
            Some(header) => bytes += header.size() as u64,
            None => return false,
        }
    }
    bytes >= average_min.saturating_mul(view.appends.len() as u64)
}

/// Puts back what the journal holds and says where the new life takes it up.
pub(super) async fn recover<E: Environment>(
    shard: &Rc<Shard<E>>,
    mut scan: Scan<E>,
    views: &mut BTreeMap<LogKey, JournalView>,
) -> Result<ChainStart<E>, EngineError> {
    let mut needed = vec![false; scan.items.len()];
    for index in views.values().flat_map(|view| &view.appends) {
        needed[*index] = true;
    }
    let average_min = shard.config.parked_batch_bytes_min;
    let parked: BTreeSet<LogKey> = views
        .iter()
        .filter(|(_, view)| may_park(view, &scan.items, average_min))
        .map(|(key, _)| *key)
        .collect();
    let files: Files<E> = scan.files.iter().map(|file| file.file.clone()).collect();
    let mut skipped = BTreeSet::new();
    let mut entries = Entries {
        window: Window::default(),
        file: usize::MAX,
    };
    let mut step = ReplayStep::default();
    for (index, found) in scan.items.iter().enumerate() {
        let Item::Append {
            topic_id,
            partition,
            segment_base,
            position,
            last_offset,
            ..
        } = found.read.item
        else {
            continue;
        };
        if !needed[index] {
            continue;
        }
        let log = shard.logs.borrow().get(&(topic_id, partition)).cloned();
        let key = (topic_id, partition);
        let Some(log) = log else {
            if views.get(&key).is_some_and(|view| view.was_deleted) {
                // Earlier versions let an append slip in behind the deletion; no directory was made for it.
                if skipped.insert(key) {
                    tracing::warn!(%topic_id, partition, "the journal holds records behind the deletion of their log, whose directory is gone: they go with it");
                }
                continue;
            }
            return Err(EngineError::MissingLog {
                topic_id,
                partition,
            });
        };
        let mark = &scan.files[found.file()].mark;
        if log.failure().is_some() {
            log.hold_offline(mark);
            continue;
        }
        if last_offset < log.log_end_offset() {
            continue;
        }
        let at = Place {
            segment: segment_base,
            position: u64::from(position),
        };
        if let Some(header) = found.header().filter(|_| parked.contains(&key)) {
            let entry = match EndTransactionMarker::is_possible(&header) {
                true => entries.of(&scan.files, found).await?,
                false => Bytes::new(),
            };
            if let Err(reason) = park_item(&log, at, found, &header, &entry, mark, &files).await {
                log.take_offline(&reason);
                log.hold_offline(mark);
            }
            continue;
        }
        let replay = Replay {
            log,
            at,
            last_offset,
            entry: entries.of(&scan.files, found).await?,
            found,
            mark,
        };
        if step.add(key, replay, entries.window.held()) {
            std::mem::take(&mut step).run().await;
        }
    }
    step.run().await;
    for (key, view) in views.iter() {
        // A truncation is forgotten only once the recovery point says it.
        let log = shard.logs.borrow().get(key).cloned();
        if let (Some(log), Some(_)) = (log, view.truncated_to)
            && let Some(file) = scan.files.get(view.truncated_in)
        {
            log.hold(&file.mark);
        }
    }
    if let Some(damage) = &scan.damage {
        for log in shard.all_logs() {
            log.take_offline(damage);
        }
    }
    let free = scan.files.split_off(scan.in_chain);
    Ok(ChainStart {
        live: scan.files,
        free,
        next_file_number: scan.next_file_number,
        previous_sequence: scan.last.map_or(0, |last| last.sequence),
        previous_checksum: scan.last.map_or(0, |last| last.checksum),
        next_sequence: scan.max_sequence + 1,
    })
}

/// Entries that are read once more, in order.
struct Entries {
    window: Window,
    /// Of which file.
    file: usize,
}

impl Entries {
    /// The entry that an item was found in.
    async fn of<E: Environment>(
        &mut self,
        files: &[JournalFile<E>],
        found: &FoundItem,
    ) -> io::Result<Bytes> {
        if self.file != found.file() {
            self.window.leave();
            self.file = found.file();
        }
        self.window.entry_bytes(&files[self.file], found).await
    }
}

/// Leaves a batch in the journal; of its entry only a marker's batch is needed. An error says why its log has to stay offline.
async fn park_item<E: Environment>(
    log: &Log<E>,
    at: Place,
    found: &FoundItem,
    header: &BatchHeader,
    entry: &Bytes,
    mark: &Rc<FileMark>,
    files: &Files<E>,
) -> Result<(), String> {
    let event = event_of(&parts_of(found, entry), header)?;
    log.park(at, found, header, event.as_ref(), mark, files)
        .await
}

/// Bytes read from the journal that a step of the replay holds, and items in it.
const STEP_BYTES: usize = 8 << 20;
const STEP_ITEMS: usize = 512;
/// Logs that are replayed at a time: a log's first item waits for the disk.
const STEP_LOGS: usize = 16;

/// A batch on its way from the journal back into its log.
struct Replay<'a, E: Environment> {
    log: Rc<Log<E>>,
    at: Place,
    last_offset: i64,
    entry: Bytes,
    found: &'a FoundItem,
    mark: &'a Rc<FileMark>,
}

/// A stretch of the journal, by log: the order within a log counts, that between logs does not.
struct ReplayStep<'a, E: Environment> {
    logs: BTreeMap<LogKey, Vec<Replay<'a, E>>>,
    items: usize,
    bytes: usize,
    /// The window that the last item lies in.
    window: Bytes,
}

impl<E: Environment> Default for ReplayStep<'_, E> {
    fn default() -> Self {
        Self {
            logs: BTreeMap::new(),
            items: 0,
            bytes: 0,
            window: Bytes::new(),
        }
    }
}

impl<'a, E: Environment> ReplayStep<'a, E> {
    /// Takes one in; whether that is enough for a step.
    fn add(&mut self, key: LogKey, replay: Replay<'a, E>, window: &Bytes) -> bool {
        self.items += 1;
        if self.window.as_ptr() != window.as_ptr() {
            self.window = window.clone();
            self.bytes += window.len();
        }
        self.logs.entry(key).or_default().push(replay);
        self.items >= STEP_ITEMS || self.bytes >= STEP_BYTES
    }

    /// Puts all of it back.
    async fn run(self) {
        stream::iter(self.logs.into_values())
            .for_each_concurrent(STEP_LOGS, |replays| async move {
                for replay in replays {
                    replay.run().await;
                }
            })
            .await;
    }
}

impl<E: Environment> Replay<'_, E> {
    /// Puts it back; a log that does not take it stays offline.
    async fn run(self) {
        let Self { log, mark, .. } = &self;
        if log.failure().is_none() {
            if self.last_offset < log.log_end_offset() {
                return;
            }
            match replay_item(log, self.at, &self.entry, self.found, mark).await {
                Ok(()) => return,
                Err(reason) => log.take_offline(&reason),
            }
        }
        log.hold_offline(mark);
    }
}

async fn replay_item<E: Environment>(
    log: &Log<E>,
    at: Place,
    entry: &Bytes,
    found: &FoundItem,
    mark: &Rc<FileMark>,
) -> Result<(), String> {
    let header = header_in(&found.read, entry)
        .map_err(|error| format!("the journal holds no batch where it says: {error}"))?;
    log.replay(at, &parts_of(found, entry), &header, mark).await
}

/// The parts of an item's body in its entry, as far as that is there.
fn parts_of<'a>(found: &FoundItem, entry: &'a Bytes) -> Vec<&'a [u8]> {
    let parts = found.read.body().map(|range| entry.get(range));
    let parts = parts.into_iter().flatten();
    parts.filter(|part| !part.is_empty()).collect()
}
