//! The answers a group coordinator gives, one variant for each kind of request.

use ringlog_net::messages::{
    consumer_group_describe, consumer_group_heartbeat, delete_groups, describe_groups, heartbeat,
    join_group, leave_group, offset_commit, offset_delete, offset_fetch, sync_group,
    txn_offset_commit,
};

/// The answer to one request; fit for the version of that request.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupReply {
    /// To JoinGroup.
    JoinGroup(join_group::JoinGroupResponse),
    /// To SyncGroup.
    SyncGroup(sync_group::SyncGroupResponse),
    /// To Heartbeat.
    Heartbeat(heartbeat::HeartbeatResponse),
    /// To LeaveGroup.
    LeaveGroup(leave_group::LeaveGroupResponse),
    /// To ConsumerGroupHeartbeat.
    ConsumerGroupHeartbeat(consumer_group_heartbeat::ConsumerGroupHeartbeatResponse),
    /// To OffsetCommit.
    OffsetCommit(offset_commit::OffsetCommitResponse),
    /// To TxnOffsetCommit.
    TxnOffsetCommit(txn_offset_commit::TxnOffsetCommitResponse),
    /// To OffsetDelete.
    OffsetDelete(offset_delete::OffsetDeleteResponse),
    /// To one group of an OffsetFetch.
    OffsetFetchGroup(offset_fetch::OffsetFetchResponseGroup),
    /// To one group of a DescribeGroups.
    DescribedGroup(describe_groups::DescribedGroup),
    /// To one group of a ConsumerGroupDescribe.
    DescribedConsumerGroup(consumer_group_describe::DescribedGroup),
    /// To one group of a DeleteGroups.
    DeletedGroup(delete_groups::DeletableGroupResult),
}

macro_rules! from {
    ($($variant:ident $body:path;)*) => {
        $(
            impl From<$body> for GroupReply {
                fn from(body: $body) -> Self {
                    GroupReply::$variant(body)
                }
            }
        )*
    };
}

from! {
    JoinGroup join_group::JoinGroupResponse;
    SyncGroup sync_group::SyncGroupResponse;
    Heartbeat heartbeat::HeartbeatResponse;
    LeaveGroup leave_group::LeaveGroupResponse;
    ConsumerGroupHeartbeat consumer_group_heartbeat::ConsumerGroupHeartbeatResponse;
    OffsetCommit offset_commit::OffsetCommitResponse;
    TxnOffsetCommit txn_offset_commit::TxnOffsetCommitResponse;
    OffsetDelete offset_delete::OffsetDeleteResponse;
    OffsetFetchGroup offset_fetch::OffsetFetchResponseGroup;
    DescribedGroup describe_groups::DescribedGroup;
    DescribedConsumerGroup consumer_group_describe::DescribedGroup;
    DeletedGroup delete_groups::DeletableGroupResult;
}
