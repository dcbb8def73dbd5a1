//! Reading a journal back after a crash: the unbroken chain of valid entries, and what to make of anything that lies beyond its end.
//!
//! The chain starts in the file that holds the oldest entry still needed and goes on from entry to entry, each tied to the one before it. It ends at the first
//! hole. Beyond the hole there may be entries that were in flight at the crash; an entry there that was written *after* the missing one had
//! completed proves that acknowledged data is damaged ([`Scan::damage`]). A read error is an error, never a hole. Items are noted by
//! place; bodies are read in a second pass, for what is needed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::entry::{EntryError, EntryHeader, Identity, Item, ReadItem, parse_header};
use super::found::FoundItem;
use super::window::Window;
use super::{FileMark, JournalFile};
use crate::disk::{DirEntry, Disk, DiskFile, OpenOptions};
use crate::environment::Environment;
use crate::memory::{AlignedBuffer, BLOCK_BYTES, MemoryPool};
use crate::wait::Signal;

/// Files that are opened at a time.
const OPEN_CONCURRENCY: usize = 8;

/// What a journal holds.
pub(crate) struct Scan<E: Environment> {
    /// All files; those of the chain first, oldest first.
    pub files: Vec<JournalFile<E>>,
    /// How many of them belong to the chain.
    pub in_chain: usize,
    /// The chain's items in order.
    pub items: Vec<FoundItem>,
    /// The last entry of the chain.
    pub last: Option<EntryHeader>,
    /// No sequence above this was ever used.
    pub max_sequence: u64,
    /// Numbers from this one on are free for new files.
    pub next_file_number: u64,
    /// Why the chain cannot be trusted to hold everything that was acknowledged.
    pub damage: Option<String>,
}

/// A life's first entry, which says what it continues.
struct LifeStart {
    file: usize,
    previous_sequence: u64,
    previous_checksum: u32,
}

/// A file, and the header at its start if there is one.
type Opened<E> = (JournalFile<E>, Option<EntryHeader>);

/// Opens the files of a journal directory and notes the header at the start of each.
async fn open_files<E: Environment>(
    env: &E,
    directory: &Path,
    identity: Identity,
    keeper: &Rc<Signal>,
) -> io::Result<Vec<Opened<E>>> {
    let entries = env.disk().list(directory).await?;
    let opened = entries
        .into_iter()
        .map(|entry| open_file(env, directory, identity, keeper, entry));
    let opened = stream::iter(opened).buffered(OPEN_CONCURRENCY);
    let opened: Vec<Option<Opened<E>>> = opened.try_collect().await?;
    Ok(opened.into_iter().flatten().collect())
}

/// Opens a file if it is one of the journal's.
async fn open_file<E: Environment>(
    env: &E,
    directory: &Path,
    identity: Identity,
    keeper: &Rc<Signal>,
    entry: DirEntry,
) -> io::Result<Option<Opened<E>>> {
    let Some(number) = JournalFile::<E>::number_of(&entry.name) else {
        return Ok(None);
    };
    let path = directory.join(&entry.name);
    let size = entry.len / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    if size < 2 * BLOCK_BYTES as u64 {
        // Its making was cut short: nothing was ever written to it.
        env.disk().remove_file(&path).await?;
        return Ok(None);
    }
    let options = OpenOptions {
        create: false,
        ..OpenOptions::JOURNAL
    };
    let file = env.disk().open(&path, options).await?;
    // Whoever made it may have been killed before its size and its zeros were durable.
    file.sync_data().await?;
    let (block, _) = file
        .read_at(0, AlignedBuffer::with_capacity(BLOCK_BYTES), BLOCK_BYTES)
        .await?;
    let first = match parse_header(&block, identity) {
        Ok(header) => Some(header),
        Err(EntryError::Format(format)) => {
            let message = format!(
                "journal format {format} is newer than this program: start the version that wrote it"
            );
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        Err(_) => None,
    };
    let sequence = first.map_or(0, |header| header.sequence);
    let file = JournalFile {
        number,
        file,
        size,
        first_sequence: sequence,
        last_sequence: sequence,
        mark: FileMark::new(keeper.clone()),
    };
    Ok(Some((file, first)))
}

/// Opens all files without looking at what is in them: after a clean stop nothing in them is needed.
pub(crate) async fn open_clean<E: Environment>(
    env: &E,
    directory: &Path,
    identity: Identity,
    keeper: &Rc<Signal>,
) -> io::Result<Vec<JournalFile<E>>> {
    Ok(open_files(env, directory, identity, keeper)
        .await?
        .into_iter()
        .map(|(file, _)| file)
        .collect())
}

/// Reads the journal in `directory`.
pub(crate) async fn scan<E: Environment>(
    env: &E,
    directory: &Path,
    identity: Identity,
    keeper: &Rc<Signal>,
    pool: &MemoryPool,
) -> io::Result<Scan<E>> {
    let mut opened = open_files(env, directory, identity, keeper).await?;
    opened.sort_by_key(|(file, _)| (file.first_sequence, file.number));
    let next_file_number = opened
        .iter()
        .map(|(file, _)| file.number + 1)
        .max()
        .unwrap_or(0);
    let mut firsts: Vec<Option<EntryHeader>> = opened.iter().map(|(_, first)| *first).collect();
    let mut files: Vec<JournalFile<E>> = opened.into_iter().map(|(file, _)| file).collect();

    let starts = find_starts(&files, &mut firsts, identity).await?;

    // The newest entry says what is still needed, and it is found by following the chain from the newest file. An older file may be in the middle of being
    // written over: what is still valid in it is no longer part of anything.
    let newest = (0..files.len())
        .filter(|&i| firsts[i].is_some())
        .max_by_key(|&i| firsts[i].map(|header| header.sequence));
    let mut window = Window::reading_ahead(pool);
    let mut reader = Reader {
        window: &mut window,
        firsts: &firsts,
        starts: &starts,
        identity,
    };
    let end = reader.follow(&mut files, newest, false).await?;
    let first = end.last.and_then(|last| {
        let holding = (0..files.len())
            .rev()
            .find(|&i| firsts[i].is_some_and(|header| header.sequence <= last.oldest_live));
        holding.or_else(|| (0..files.len()).find(|&i| firsts[i].is_some()))
    });
    let chain = reader.follow(&mut files, first, true).await?;
    let damage;
    let mut max_sequence = chain.last.map_or(0, |last| last.sequence);
    (damage, max_sequence) =
        look_beyond(&files, &chain, identity, max_sequence, &mut window).await?;
    Ok(arrange(
        files,
        chain,
        next_file_number,
        max_sequence,
        damage,
    ))
}

/// Finds the lives that begin at the start of a file; forgets the first headers of entries that are not whole.
async fn find_starts<E: Environment>(
    files: &[JournalFile<E>],
    firsts: &mut [Option<EntryHeader>],
    identity: Identity,
) -> io::Result<Vec<LifeStart>> {
    let known: Vec<usize> = (0..files.len())
        .filter(|index| firsts[*index].is_some())
        .collect();
    let entries = known.into_iter().map(|index| async move {
        let entry = Window::default().entry(&files[index], 0, identity).await?;
        io::Result::Ok((index, entry))
    });
    let mut entries = stream::iter(entries).buffered(OPEN_CONCURRENCY);
    let mut starts = Vec::new();
    while let Some((index, entry)) = entries.try_next().await? {
        match entry {
            Some((header, items, _)) => {
                if let Some(ReadItem {
                    item: Item::LifeStart { previous_sequence },
                    ..
                }) = items.first()
                {
                    starts.push(LifeStart {
                        file: index,
                        previous_sequence: *previous_sequence,
                        previous_checksum: header.previous,
                    });
                }
            }
            // Never completed, or damaged: it is not for this entry to say what is needed.
            None => firsts[index] = None,
        }
    }
    Ok(starts)
}

/// What following the chain takes.
struct Reader<'a> {
    window: &'a mut Window,
    firsts: &'a [Option<EntryHeader>],
    starts: &'a [LifeStart],
    identity: Identity,
}

impl Reader<'_> {
    /// Follows the chain from the start of the file `first` to its end; with `gather`, notes its items.
    async fn follow<E: Environment>(
        &mut self,
        files: &mut [JournalFile<E>],
        first: Option<usize>,
        gather: bool,
    ) -> io::Result<Chain> {
        let mut chain = Chain {
            gather,
            items: Vec::new(),
            last: None,
            walked: Vec::new(),
        };
        let mut next = first;
        while let Some(index) = next {
            chain.walked.push((index, 0));
            let life_start = chain.walk(&mut files[index], index, self).await?;
            let last = chain.last;
            next = life_start.or_else(|| {
                let last = last?;
                self.firsts.iter().position(|first| {
                    first.is_some_and(|header| {
                        header.life == last.life
                            && header.sequence == last.sequence + 1
                            && header.previous == last.checksum
                    })
                })
            });
            if next.is_some_and(|next| chain.walked.iter().any(|(walked, _)| *walked == next)) {
                next = None;
            }
        }
        Ok(chain)
    }
}

struct Chain {
    /// Whether items are noted.
    gather: bool,
    items: Vec<FoundItem>,
    last: Option<EntryHeader>,
    /// Files of the chain in order, each with the position where it leaves the file.
    walked: Vec<(usize, u64)>,
}

impl Chain {
    /// Follows the chain through one file; returns the file in which a later life takes it up, if one does.
    async fn walk<E: Environment>(
        &mut self,
        file: &mut JournalFile<E>,
        index: usize,
        reader: &mut Reader<'_>,
    ) -> io::Result<Option<usize>> {
        reader.window.leave();
        let mut position = 0;
        loop {
            let taken_up = self.last.and_then(|last| {
                let start = reader.starts.iter().rev().find(|start| {
                    start.file != index
                        && start.previous_sequence == last.sequence
                        && start.previous_checksum == last.checksum
                });
                start.map(|start| start.file)
            });
            if taken_up.is_some() {
                return Ok(taken_up);
            }
            let entry = reader.window.entry(file, position, reader.identity).await?;
            let Some((header, items, bytes)) = entry else {
                return Ok(None);
            };
            let continues = match (&self.last, position) {
                (None, 0) => true,
                (None, _) => false,
                (Some(last), _) if header.life == last.life => {
                    header.sequence == last.sequence + 1 && header.previous == last.checksum
                }
                (Some(last), 0) => {
                    let ties = matches!(items.first(), Some(ReadItem { item: Item::LifeStart { previous_sequence }, .. }) if *previous_sequence == last.sequence);
                    ties && header.previous == last.checksum
                }
                _ => false,
            };
            if !continues {
                return Ok(None);
            }
            file.last_sequence = header.sequence;
            self.last = Some(header);
            let length = header.length;
            if self.gather {
                let found = |read| FoundItem::new(read, index, position, length, &bytes);
                self.items.extend(items.into_iter().map(found));
            }
            position += u64::from(length);
            if let Some((_, end)) = self.walked.last_mut() {
                *end = position;
            }
        }
    }
}

/// Reads the items that `keep` wants back from the files of the running chain, up to the entry `completed`; an error where an entry before is not whole.
pub(crate) async fn read_live<E: Environment>(
    files: &[JournalFile<E>],
    completed: u64,
    identity: Identity,
    keep: impl Fn(&Item) -> bool,
) -> io::Result<Vec<FoundItem>> {
    let mut found = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let mut window = Window::default();
        let (mut position, mut reached) = (0, None);
        while let Some((header, items, bytes)) = window.entry(file, position, identity).await? {
            let ours = (file.first_sequence..=file.last_sequence).contains(&header.sequence);
            if !ours || header.sequence > completed {
                break;
            }
            let length = header.length;
            found.extend(
                items
                    .into_iter()
                    .filter(|read| keep(&read.item))
                    .map(|read| FoundItem::new(read, index, position, length, &bytes)),
            );
            position += u64::from(length);
            reached = Some(header.sequence);
        }
        let last = file.last_sequence.min(completed);
        if file.first_sequence <= last && reached != Some(last) {
            // To go on would be to say that the rest of the file never was.
            let name = JournalFile::<E>::name(file.number);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "journal file {name} is damaged at {position}: entries up to {last} should be there; deleting the topic of the offline log lets it go"
                ),
            ));
        }
    }
    Ok(found)
}

/// Looks through everything outside the chain for entries that prove that the chain should go on; also finds the largest sequence ever used.
async fn look_beyond<E: Environment>(
    files: &[JournalFile<E>],
    chain: &Chain,
    identity: Identity,
    mut max_sequence: u64,
    window: &mut Window,
) -> io::Result<(Option<String>, u64)> {
    let end = chain.last.map_or(0, |last| last.sequence);
    let mut damage = None;
    for (index, file) in files.iter().enumerate() {
        let mut position = chain
            .walked
            .iter()
            .find(|(walked, _)| *walked == index)
            .map_or(0, |(_, end)| *end);
        window.leave();
        while position < file.size {
            let bytes = window.at(file, position, BLOCK_BYTES).await?;
            if bytes.is_empty() {
                break;
            }
            for (block, raw) in bytes.chunks(BLOCK_BYTES).enumerate() {
                let Ok(header) = parse_header(raw, identity) else {
                    continue;
                };
                max_sequence = max_sequence.max(header.sequence);
                if header.sequence > end && header.completed > end {
                    damage = damage.or_else(|| {
                        Some(format!(
                            "journal entry {} is missing or damaged, but entry {} in file {} at {} was written after it had completed; acknowledged records are damaged: restore this broker's data from another copy, or remove the journal to give up what it holds",
                            end + 1,
                            header.sequence,
                            JournalFile::<E>::name(file.number),
                            position + (block * BLOCK_BYTES) as u64,
                        ))
                    });
                }
            }
            position += bytes.len() as u64;
        }
    }
    Ok((damage, max_sequence))
}

/// Puts the files of the chain first, in order, and lets the items refer to them so.
fn arrange<E: Environment>(
    files: Vec<JournalFile<E>>,
    mut chain: Chain,
    next_file_number: u64,
    max_sequence: u64,
    damage: Option<String>,
) -> Scan<E> {
    chain.walked.retain(|(_, end)| *end > 0);
    let order: BTreeMap<usize, usize> = chain
        .walked
        .iter()
        .enumerate()
        .map(|(place, (index, _))| (*index, place))
        .collect();
    let mut placed: Vec<(usize, JournalFile<E>)> = files
        .into_iter()
        .enumerate()
        .map(|(index, file)| (order.get(&index).copied().unwrap_or(usize::MAX), file))
        .collect();
    placed.sort_by_key(|(place, _)| *place);
    for item in &mut chain.items {
        item.set_file(order[&item.file()]);
    }
    Scan {
        files: placed.into_iter().map(|(_, file)| file).collect(),
        in_chain: order.len(),
        items: chain.items,
        last: chain.last,
        max_sequence,
        next_file_number,
        damage,
    }
}
