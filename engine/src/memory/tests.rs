//! What is shown was written, stays as it was, and is counted; padding and recycled memory never show what was there before.

use proptest::prelude::*;

use super::HUGE_PAGE_BYTES;
use super::{AlignedBuffer, BLOCK_BYTES, ChunkWriter, MemoryPool, MemoryUsage};

proptest! {
    #[test]
    fn a_chunk_is_what_was_appended_and_never_changes(
        appends in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut writer = ChunkWriter::with_capacity(4 * BLOCK_BYTES);
        let chunk = writer.chunk().clone();
        let mut model: Vec<u8> = Vec::new();
        let mut earlier = Vec::new();
        for bytes in &appends {
            let range = writer.append(bytes);
            prop_assert_eq!(range.start, model.len());
            prop_assert_eq!(range.len(), bytes.len().min(4 * BLOCK_BYTES - model.len()));
            model.extend_from_slice(&bytes[..range.len()]);
            prop_assert_eq!(chunk.as_slice(), &model[..]);
            earlier.push((range.clone(), chunk.bytes(range)));
        }
        let at = cut.index(model.len() + 1);
        let tail = chunk.bytes(at..model.len());
        drop((writer, chunk));
        for (range, bytes) in earlier {
            prop_assert_eq!(&bytes[..], &model[range]);
        }
        prop_assert_eq!(&tail[..], &model[at..]);
    }

    #[test]
    fn padded_blocks_are_the_range_and_then_zeros(len in 1usize..3 * BLOCK_BYTES, from in 0usize..3) {
        let pool = MemoryPool::new(1 << 20);
        drop(dirty_chunk(&pool, 3 * BLOCK_BYTES));
        let mut writer = pool.chunk(3 * BLOCK_BYTES);
        writer.append(&vec![9; len]);
        let from = (from * BLOCK_BYTES).min(super::round_down(len));
        let pieces = writer.chunk().padded_blocks(from..len);
        // Appending behind must not change what the device reads.
        writer.append(&[5; 100]);
        let written: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
        let mut expected = vec![9; len - from];
        expected.resize(super::round_up(len) - from, 0);
        prop_assert_eq!(written, expected);
        for piece in &pieces {
            prop_assert!((piece.as_slice().as_ptr() as usize).is_multiple_of(BLOCK_BYTES));
            prop_assert!(piece.len().is_multiple_of(BLOCK_BYTES));
        }
    }

    #[test]
    fn a_buffer_is_what_was_put_in(steps in prop::collection::vec((0u8..4, 0usize..3000), 0..30)) {
        let pool = MemoryPool::new(1 << 20);
        drop(dirty_chunk(&pool, 4 * BLOCK_BYTES));
        let mut buffer = pool.buffer(4 * BLOCK_BYTES);
        let mut model: Vec<u8> = Vec::new();
        for (kind, count) in steps {
            match kind {
                0 => {
                    let count = count.min(buffer.remaining());
                    buffer.extend_from_slice(&vec![count as u8; count]);
                    model.resize(model.len() + count, count as u8);
                }
                1 => {
                    let count = count.min(buffer.remaining());
                    buffer.extend_zeros(count);
                    model.resize(model.len() + count, 0);
                }
                2 => {
                    buffer.truncate(count);
                    model.truncate(count);
                }
                _ => {
                    buffer.pad_to_block();
                    model.resize(super::round_up(model.len()), 0);
                }
            }
            prop_assert_eq!(buffer.as_slice(), &model[..]);
        }
        prop_assert_eq!(&buffer.into_bytes()[..], &model[..]);
    }
}

fn dirty_chunk(pool: &MemoryPool, len: usize) -> ChunkWriter {
    let mut writer = pool.chunk(len);
    writer.append(&vec![0xaa; len]);
    writer
}

#[test]
fn recycled_memory_starts_empty_and_pads_with_zeros() {
    let pool = MemoryPool::new(1 << 20);
    let address = dirty_chunk(&pool, BLOCK_BYTES).chunk().as_slice().as_ptr();
    let mut buffer = pool.buffer(1);
    assert!(buffer.is_empty());
    buffer.extend_from_slice(&[1]);
    assert_eq!(
        buffer.as_slice().as_ptr(),
        address,
        "the block was recycled"
    );
    let slice = buffer.into_aligned_slice();
    assert_eq!(slice[0], 1);
    assert!(slice[1..].iter().all(|byte| *byte == 0));
}

#[test]
fn only_touched_memory_counts_as_resident() {
    let pool = MemoryPool::new(BLOCK_BYTES * 2);
    let mut large = pool.chunk(64 << 20);
    assert_eq!(
        pool.usage(),
        MemoryUsage {
            leased_bytes: 64 << 20,
            resident_bytes: 0,
            idle_bytes: 0
        }
    );
    large.append(&[1; 5000]);
    assert_eq!(pool.usage().resident_bytes, 2 * BLOCK_BYTES);
    let shown = large.chunk().bytes(10..20);
    drop(large);
    assert_eq!(
        pool.usage().leased_bytes,
        64 << 20,
        "a reader keeps its chunk"
    );
    drop(shown);
    assert_eq!(pool.usage(), MemoryUsage::default(), "too large to keep");

    drop(dirty_chunk(&pool, BLOCK_BYTES));
    let kept = MemoryUsage {
        leased_bytes: 0,
        resident_bytes: BLOCK_BYTES,
        idle_bytes: BLOCK_BYTES,
    };
    assert_eq!(pool.usage(), kept);
    let again = dirty_chunk(&pool, BLOCK_BYTES);
    assert_eq!(
        pool.usage(),
        MemoryUsage {
            leased_bytes: BLOCK_BYTES,
            resident_bytes: BLOCK_BYTES,
            idle_bytes: 0
        }
    );
    drop(again);
    assert_eq!(pool.usage(), kept);
}

#[test]
fn small_and_large_memory_are_aligned_and_usable_to_the_last_byte() {
    for capacity in [
        1,
        BLOCK_BYTES,
        (128 << 10) - 1,
        128 << 10,
        (128 << 10) + 1,
        3 << 20,
    ] {
        let mut buffer = AlignedBuffer::with_capacity(capacity);
        assert_eq!(buffer.capacity(), super::round_up(capacity));
        buffer.extend_from_slice(&vec![1; buffer.capacity()]);
        assert!((buffer.as_slice().as_ptr() as usize).is_multiple_of(BLOCK_BYTES));
        assert!(buffer.iter().all(|byte| *byte == 1));
    }
}

#[test]
fn large_memory_is_not_taken_before_it_is_touched_and_leaves_when_dropped() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs is mounted");
        let pages = statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("statm has resident pages") * BLOCK_BYTES
    };
    let before = resident();
    let mut writer = ChunkWriter::with_capacity(128 << 20);
    assert!(resident() < before + (24 << 20));
    for _ in 0..1024 {
        writer.append(&[1; 64 << 10]);
    }
    assert!(resident() > before + (48 << 20));
    drop(writer);
    assert!(resident() < before + (24 << 20));
}

#[test]
fn other_threads_read_while_the_writer_appends() {
    const RECORDS: usize = 10_000;
    let mut writer = ChunkWriter::with_capacity(RECORDS * 8);
    let chunk = writer.chunk().clone();
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let chunk = chunk.clone();
            std::thread::spawn(move || {
                let mut seen = 0;
                while seen < RECORDS * 8 {
                    let published = chunk.len();
                    assert!(published >= seen && published.is_multiple_of(8));
                    let bytes = chunk.bytes(seen..published);
                    for (index, record) in bytes.chunks_exact(8).enumerate() {
                        assert_eq!(record, ((seen / 8 + index) as u64).to_le_bytes());
                    }
                    seen = published;
                }
            })
        })
        .collect();
    for record in 0..RECORDS as u64 {
        writer.append(&record.to_le_bytes());
    }
    for reader in readers {
        reader.join().expect("readers see whole records in order");
    }
}

#[test]
fn slices_of_slices_and_bytes_share_the_memory() {
    let mut writer = ChunkWriter::with_capacity(4 * BLOCK_BYTES);
    for block in 0..4u8 {
        writer.append(&[block; BLOCK_BYTES]);
    }
    let slice = writer
        .chunk()
        .blocks(BLOCK_BYTES..4 * BLOCK_BYTES)
        .sub_slice(BLOCK_BYTES..2 * BLOCK_BYTES);
    assert!(slice.iter().all(|byte| *byte == 2) && slice.len() == BLOCK_BYTES);
    let address = slice.as_slice().as_ptr();
    assert_eq!(slice.into_bytes().as_ptr(), address);
}

#[test]
#[should_panic(expected = "published")]
fn bytes_not_yet_published_are_refused() {
    let mut writer = ChunkWriter::with_capacity(BLOCK_BYTES);
    writer.append(&[1; 10]);
    writer.chunk().bytes(5..11);
}

#[test]
#[should_panic(expected = "whole blocks")]
fn blocks_off_their_boundary_are_refused() {
    let mut writer = ChunkWriter::with_capacity(BLOCK_BYTES);
    writer.append(&[1; BLOCK_BYTES]);
    writer.chunk().blocks(0..100);
}

#[test]
#[should_panic(expected = "does not grow")]
fn a_buffer_does_not_grow() {
    AlignedBuffer::with_capacity(BLOCK_BYTES).extend_zeros(BLOCK_BYTES + 1);
}

#[test]
fn what_holds_whole_huge_pages_begins_with_one() {
    for capacity in [HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES] {
        let mut writer = ChunkWriter::with_capacity(capacity);
        writer.append(&vec![7; capacity]);
        let bytes = writer.chunk().as_slice();
        assert!(bytes.iter().all(|byte| *byte == 7) && bytes.len() == capacity);
        assert!(bytes.as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
    }
}
