//! DescribeCluster (60), versions 0 to 2: the brokers, on the listener that the client came in by.

use ringlog_net::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use ringlog_net::{ErrorCode, Str};

use super::RequestContext;
use super::metadata::{cluster_operations, live_endpoint};

/// Endpoint types (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// See the module.
pub async fn handle(
    context: &RequestContext,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let refuse = |error_code, reason: &'static str| DescribeClusterResponse {
        error_code,
        error_message: Some(Str::from_static(reason)),
        endpoint_type: request.endpoint_type,
        ..DescribeClusterResponse::default()
    };
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            return refuse(
                ErrorCode::MISMATCHED_ENDPOINT_TYPE,
                "this is a broker's listener; ask it for brokers (endpoint type 1)",
            );
        }
        _ => {
            return refuse(
                ErrorCode::UNSUPPORTED_ENDPOINT_TYPE,
                "endpoint types are 1 (brokers) and 2 (controllers)",
            );
        }
    }
    let image = context.shard.image();
    let listener = context.connection.listener.as_ref();
    let shown = image
        .brokers()
        .filter(|broker| !broker.fenced || request.include_fenced_brokers);
    let brokers = shown.filter_map(|broker| {
        let endpoint = if broker.fenced {
            broker.endpoint(listener)
        } else {
            live_endpoint(broker, listener)
        }?;
        Some(DescribeClusterBroker {
            broker_id: broker.id,
            host: endpoint.host.clone(),
            port: i32::from(endpoint.port),
            rack: broker.rack.clone(),
            is_fenced: broker.fenced,
        })
    });
    let mut response = DescribeClusterResponse {
        endpoint_type: request.endpoint_type,
        cluster_id: Str::from(context.shard.cluster_id()),
        controller_id: context.shard.node_id(),
        brokers: brokers.collect(),
        ..DescribeClusterResponse::default()
    };
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = cluster_operations(context);
    }
    response
}
