//! Requests by API: one file each, and the one list of what is served.
//!
//! A handler takes the decoded request and answers with a response; errors are codes in it. It may use everything in the broker, but partitions
//! only through their shard and metadata only through the controller's. It never touches the socket.

pub mod add_offsets_to_txn;
pub mod add_partitions_to_txn;
pub mod alter_configs;
pub mod api_versions;
pub mod asked;
pub mod consumer_group_describe;
pub mod consumer_group_heartbeat;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_groups;
pub mod delete_records;
pub mod delete_topics;
pub mod describe_cluster;
pub mod describe_configs;
pub mod describe_groups;
pub mod describe_log_dirs;
pub mod describe_producers;
pub mod describe_topic_partitions;
pub mod describe_transactions;
pub mod end_txn;
pub mod fetch;
pub mod find_coordinator;
mod groups;
pub mod heartbeat;
pub mod incremental_alter_configs;
pub mod init_producer_id;
pub mod join_group;
pub mod leave_group;
pub mod list_config_resources;
pub mod list_groups;
pub mod list_offsets;
pub mod list_transactions;
pub mod metadata;
pub mod offset_commit;
pub mod offset_delete;
pub mod offset_fetch;
pub mod offset_for_leader_epoch;
pub mod partition;
pub mod produce;
pub mod sync_group;
pub mod transactional_produce;
mod transactions;
pub mod txn_offset_commit;
pub mod write_txn_markers;

use std::cell::RefCell;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;
use ringlog_net::api::Served;
use ringlog_net::request::{Request, Response};
use ringlog_net::{ApiKey, Str};

use crate::connection::ConnectionContext;
use crate::connection::budget::Permit;
use crate::shard::Shard;

/// What a handler may know of its request besides the body.
#[derive(Clone)]
pub struct RequestContext {
    /// The shard that serves the connection.
    pub shard: Rc<Shard>,
    /// The connection.
    pub connection: Rc<ConnectionContext>,
    /// The API asked for.
    pub api_key: ApiKey,
    /// Its version.
    pub version: i16,
    /// What the client calls itself.
    pub client_id: Option<Str>,
    /// Memory that is held until the response is sent.
    pub held: Rc<RefCell<Vec<Permit>>>,
}

/// Declares the APIs that are served, and the `match` that finds their handlers.
macro_rules! serve {
    ($($api:ident => $handler:ident),* $(,)?) => {
        /// What this broker serves; ApiVersions tells exactly this.
        pub const SERVED: Served = Served::new(&[ApiKey::Produce, $(ApiKey::$api),*]);

        /// Answers a request of any served API but Produce, which the connection starts by itself to pipeline it.
        ///
        /// Each handler's future is as large as that API needs, not as the largest of all: it is moved with every request.
        pub fn handle(context: &RequestContext, request: Request) -> LocalBoxFuture<'_, Response> {
            match request {
                $(Request::$api(request) => Box::pin(async move {
                    Response::$api(Box::new($handler::handle(context, *request).await))
                }),)*
                Request::Produce(request) => Box::pin(async move {
                    let in_flight = produce::begin(context, *request).await;
                    Response::Produce(Box::new(in_flight.finish().await))
                }),
                // The connection checks `SERVED` before it decodes a request.
                other => unreachable!("{} is not served", other.api_key()),
            }
        }
    };
}

serve! {
    Fetch => fetch,
    ListOffsets => list_offsets,
    Metadata => metadata,
    ApiVersions => api_versions,
    CreateTopics => create_topics,
    DeleteTopics => delete_topics,
    DeleteRecords => delete_records,
    OffsetCommit => offset_commit,
    OffsetFetch => offset_fetch,
    FindCoordinator => find_coordinator,
    JoinGroup => join_group,
    Heartbeat => heartbeat,
    LeaveGroup => leave_group,
    SyncGroup => sync_group,
    DescribeGroups => describe_groups,
    ListGroups => list_groups,
    DeleteGroups => delete_groups,
    OffsetDelete => offset_delete,
    InitProducerId => init_producer_id,
    OffsetForLeaderEpoch => offset_for_leader_epoch,
    AddPartitionsToTxn => add_partitions_to_txn,
    AddOffsetsToTxn => add_offsets_to_txn,
    EndTxn => end_txn,
    TxnOffsetCommit => txn_offset_commit,
    DescribeConfigs => describe_configs,
    AlterConfigs => alter_configs,
    DescribeLogDirs => describe_log_dirs,
    CreatePartitions => create_partitions,
    IncrementalAlterConfigs => incremental_alter_configs,
    DescribeCluster => describe_cluster,
    WriteTxnMarkers => write_txn_markers,
    DescribeTransactions => describe_transactions,
    ListTransactions => list_transactions,
    DescribeProducers => describe_producers,
    ConsumerGroupHeartbeat => consumer_group_heartbeat,
    ConsumerGroupDescribe => consumer_group_describe,
    ListConfigResources => list_config_resources,
    DescribeTopicPartitions => describe_topic_partitions,
}
