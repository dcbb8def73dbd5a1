//! ListGroups (versions 0 to 5): the groups that this broker coordinates, filtered by state (KIP-518) and type (KIP-848).

use std::rc::Rc;

use futures_util::future::join_all;
use ringlog_coordinator::groups::ListFilter;
use ringlog_net::ErrorCode;
use ringlog_net::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};

use super::RequestContext;
use super::groups::may;
use super::metadata::CLUSTER;
use crate::authorizer::{Operation, ResourceType};
use crate::shard::Shard;

/// See the module.
pub async fn handle(context: &RequestContext, request: ListGroupsRequest) -> ListGroupsResponse {
    let filter = ListFilter {
        states: request.states_filter,
        types: request.types_filter,
    };
    let shard = &context.shard;
    let each = (0..shard.shards).map(|index| {
        let filter = filter.clone();
        shard.on_shard(index, move |shard| async move { list(&shard, &filter) })
    });
    let mut response = ListGroupsResponse::default();
    for listed in join_all(each).await {
        match listed.unwrap_or(Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)) {
            Ok(groups) => response.groups.extend(groups),
            Err(error) => response.error_code = error,
        }
    }
    if !response.error_code.is_none() {
        // Some of the groups would look like all of them.
        response.groups.clear();
    }
    let sees_all = context.authorize(Operation::Describe, ResourceType::Cluster, CLUSTER);
    response
        .groups
        .retain(|group| sees_all || may(context, Operation::Describe, &group.group_id).is_ok());
    response
}

fn list(shard: &Rc<Shard>, filter: &ListFilter) -> Result<Vec<ListedGroup>, ErrorCode> {
    let mut groups = Vec::new();
    for host in shard.coordinators.groups() {
        match host.look(|machine| machine.list_groups(filter)) {
            Ok(listed) => groups.extend(listed),
            // Somebody else lists them.
            Err(ErrorCode::NOT_COORDINATOR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(groups)
}
