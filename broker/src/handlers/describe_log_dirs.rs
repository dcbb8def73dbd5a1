//! DescribeLogDirs (versions 1 to 5): the data directories, their space, and the logs in them (KIP-113, KIP-827).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use ringlog_net::messages::describe_log_dirs::{
    DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic,
};
use ringlog_net::{ErrorCode, Str, Uuid};

use super::RequestContext;
use crate::authorizer::{Operation, ResourceType};
use crate::shard::Shard;

/// A log's directory, topic, partition and size in bytes.
type Placed = (usize, String, i32, i64);

/// Answers for each directory.
pub async fn handle(
    context: &RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    if !context.authorize(Operation::Describe, ResourceType::Cluster, "kafka-cluster") {
        let error_code = ErrorCode::CLUSTER_AUTHORIZATION_FAILED;
        return DescribeLogDirsResponse {
            error_code,
            ..Default::default()
        };
    }
    let asked: Option<BTreeSet<(Str, i32)>> = request.topics.map(|topics| {
        let pairs = |topic: ringlog_net::messages::describe_log_dirs::DescribableLogDirTopic| {
            topic
                .partitions
                .into_iter()
                .map(move |partition| (topic.topic.clone(), partition))
        };
        topics.into_iter().flat_map(pairs).collect()
    });
    let mut placed: Vec<Placed> = Vec::new();
    for shard in 0..context.shard.shards {
        placed.extend(
            context
                .shard
                .on_shard(shard, logs_of)
                .await
                .unwrap_or_default(),
        );
    }
    placed.retain(|(_, topic, partition, _)| match &asked {
        Some(asked) => asked.contains(&(Str::from(topic), *partition)),
        None => true,
    });
    let mut by_directory: BTreeMap<usize, BTreeMap<String, Vec<DescribeLogDirsPartition>>> =
        BTreeMap::new();
    for (directory, topic, partition_index, partition_size) in placed {
        let partition = DescribeLogDirsPartition {
            partition_index,
            partition_size,
            ..Default::default()
        };
        by_directory
            .entry(directory)
            .or_default()
            .entry(topic)
            .or_default()
            .push(partition);
    }
    let directories = context.shard.log_dirs().iter().enumerate();
    let results = directories.map(|(index, directory)| {
        let topics = by_directory.remove(&index).unwrap_or_default();
        let (total_bytes, usable_bytes) = space_of(&directory.path);
        let error_code = match std::fs::read_dir(&directory.path) {
            Ok(_) => ErrorCode::NONE,
            Err(_) => ErrorCode::KAFKA_STORAGE_ERROR,
        };
        DescribeLogDirsResult {
            error_code,
            log_dir: Str::from(directory.path.to_string_lossy().as_ref()),
            topics: topics
                .into_iter()
                .map(|(name, partitions)| DescribeLogDirsTopic {
                    name: Str::from(name),
                    partitions,
                })
                .collect(),
            total_bytes,
            usable_bytes,
            ..Default::default()
        }
    });
    DescribeLogDirsResponse {
        results: results.collect(),
        ..Default::default()
    }
}

async fn logs_of(shard: Rc<Shard>) -> Vec<Placed> {
    let logs = shard.engine.logs().into_iter();
    // As Kafka: the metadata log is no partition of a broker's.
    let logs = logs.filter(|log| Uuid(log.topic_id().0) != Uuid::METADATA_TOPIC);
    logs.map(|log| {
        let name = log.topic_partition();
        (
            log.directory_index(),
            name.topic.to_string(),
            name.partition,
            log.size_bytes() as i64,
        )
    })
    .collect()
}

/// Total and usable bytes of the file system of a directory; -1 when it does not say.
fn space_of(path: &Path) -> (i64, i64) {
    match nix::sys::statvfs::statvfs(path) {
        Ok(stat) => {
            let blocks = |count: u64| {
                count
                    .saturating_mul(stat.fragment_size())
                    .min(i64::MAX as u64) as i64
            };
            (blocks(stat.blocks()), blocks(stat.blocks_available()))
        }
        Err(_) => (-1, -1),
    }
}
