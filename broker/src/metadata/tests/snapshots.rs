//! What a start reads: snapshots and what follows them, whole or damaged.

use super::*;

/// A history with enough in it for several snapshots; the committed image at its end.
async fn eventful(log: MemoryLog) -> (MemoryLog, Arc<Image>) {
    log.0.bytes_between.set(Some(600));
    let node = Node::start(log, false).await;
    for round in 0..12 {
        let (stays, goes) = (format!("stays-{round}"), format!("goes-{round}"));
        assert_eq!(node.create(&stays).await, Ok(ErrorCode::NONE));
        assert_eq!(node.create(&goes).await, Ok(ErrorCode::NONE));
        let request = DeleteTopicsRequest {
            topic_names: vec![Str::from(goes)],
            ..Default::default()
        };
        let removed = node
            .keeper
            .submit(|controller| controller.delete_topics(&request));
        removed.await.unwrap();
        let ids = node
            .keeper
            .submit(|controller| controller.allocate_producer_ids(1, 10).unwrap());
        ids.await.unwrap();
        settle().await;
    }
    let image = node.keeper.image();
    (node.kill(), image)
}

#[test]
fn snapshots_bound_the_log_and_lose_nothing() {
    run(async {
        let (log, image) = eventful(MemoryLog::default()).await;
        assert_eq!(log.0.snapshots.borrow().len(), 1, "older ones go");
        let kept: usize = log
            .0
            .batches
            .borrow()
            .iter()
            .map(|(_, _, batch)| batch.len())
            .sum();
        assert!(
            log.start_offset() > 0 && kept < 1500,
            "{kept} bytes of log are left"
        );
        assert_eq!(whole_replay(&log).await.unwrap(), *image);
        // The next life goes on from there.
        let node = Node::start(log, true).await;
        assert_eq!(node.keeper.image().topic_count(), 12);
        assert_eq!(node.keeper.image().next_producer_id(), 120);
        assert_eq!(
            node.create("stays-3").await,
            Ok(ErrorCode::TOPIC_ALREADY_EXISTS)
        );
        assert_eq!(node.create("goes-3").await, Ok(ErrorCode::NONE));
        let image = node.keeper.image();
        assert_eq!(whole_replay(&node.kill()).await.unwrap(), *image);
    });
}

#[test]
fn snapshots_that_are_refused_or_left_half_done_harm_nothing() {
    run(async {
        let log = MemoryLog::default();
        let hows = [
            Keep::Refused,
            Keep::Untrimmed,
            Keep::Untrimmed,
            Keep::Refused,
        ];
        log.0
            .keep
            .borrow_mut()
            .extend(hows.iter().cycle().take(100));
        let (log, image) = eventful(log).await;
        assert!(log.0.snapshots.borrow().len() > 1 && log.start_offset() == 0);
        assert_eq!(whole_replay(&log).await.unwrap(), *image);
        // The newest is damaged: an older one does, and in the end the log alone.
        while !log.0.snapshots.borrow().is_empty() {
            log.0.snapshots.borrow_mut().values_mut().last().unwrap()[200] ^= 1;
            assert_eq!(whole_replay(&log).await.unwrap(), *image);
            log.0.snapshots.borrow_mut().pop_last();
        }
        assert_eq!(whole_replay(&log).await.unwrap(), *image);
        // Without the log before it, a damaged one is an end with a reason.
        let (log, _) = eventful(MemoryLog::default()).await;
        log.0.snapshots.borrow_mut().values_mut().last().unwrap()[200] ^= 1;
        assert!(matches!(
            whole_replay(&log).await,
            Err(MetadataError::Batch(_))
        ));
    });
}

#[test]
fn damage_and_gaps_end_the_replay() {
    run(async {
        let node = Node::start(MemoryLog::default(), false).await;
        for name in ["a", "b"] {
            assert_eq!(node.create(name).await, Ok(ErrorCode::NONE));
        }
        let log = node.kill();
        let whole = log.0.batches.borrow().clone();
        let mut damaged = whole[2].2.to_vec();
        let last = damaged.len() - 1;
        damaged[last] ^= 0x40;
        log.0.batches.borrow_mut()[2].2 = Bytes::from(damaged);
        assert!(matches!(
            replay(&log, &Image::empty()).await,
            Err(MetadataError::Batch(_))
        ));
        *log.0.batches.borrow_mut() = whole.clone();
        log.0.batches.borrow_mut().remove(2);
        assert!(matches!(
            replay(&log, &Image::empty()).await,
            Err(MetadataError::Gap { .. })
        ));
        *log.0.batches.borrow_mut() = whole;
        log.0.batches.borrow_mut().remove(0);
        assert!(matches!(
            replay(&log, &Image::empty()).await,
            Err(MetadataError::Gap { .. })
        ));
    });
}
