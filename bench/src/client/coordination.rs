//! What is asked once about groups and transactional ids: where their coordinator is, which features are finalised, what was committed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ringlog_net::api::ApiKey;
use ringlog_net::error_code::ErrorCode;
use ringlog_net::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use ringlog_net::messages::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use ringlog_net::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ringlog_net::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestTopic, OffsetFetchResponse,
};

use super::admin::{Admin, AdminError, refused, resolve};
use super::wire::CLIENT_ID;

/// How long a coordinator may take to be there: its internal topic is made when it is first asked for.
const COORDINATOR_TIMEOUT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(20);

/// What a coordinator is sought for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// A group.
    Group,
    /// A transactional id.
    Transaction,
}

impl Admin {
    /// Where the coordinator of `key` listens, asked until there is one.
    pub fn coordinator(&mut self, key: &str, kind: KeyType) -> Result<SocketAddr, AdminError> {
        let request = FindCoordinatorRequest {
            key: key.into(),
            key_type: i8::from(kind == KeyType::Transaction),
            ..Default::default()
        };
        let begun = Instant::now();
        loop {
            let response: FindCoordinatorResponse =
                self.call(ApiKey::FindCoordinator, "FindCoordinator", &request)?;
            if response.error_code.is_none() {
                return resolve(&format!("{}:{}", response.host, response.port));
            }
            if !response.error_code.is_retriable() || begun.elapsed() > COORDINATOR_TIMEOUT {
                refused("to find a coordinator", response.error_code, None)?;
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// The level at which a feature is finalised; 0 where it is not.
    pub fn finalised(&mut self, feature: &str) -> Result<i16, AdminError> {
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        let response: ApiVersionsResponse =
            self.call(ApiKey::ApiVersions, "ApiVersions", &request)?;
        refused("ApiVersions", response.error_code, None)?;
        let found = response
            .finalized_features
            .iter()
            .find(|known| &*known.name == feature);
        Ok(found.map_or(0, |known| known.max_version_level))
    }

    /// The producer id and epoch of a transactional id, whose earlier owner is fenced; asked until its coordinator is ready.
    pub fn transactional_producer_id(
        &mut self,
        transactional_id: &str,
    ) -> Result<(i64, i16), AdminError> {
        let request = InitProducerIdRequest {
            transactional_id: Some(transactional_id.into()),
            transaction_timeout_ms: 60_000,
            ..Default::default()
        };
        let begun = Instant::now();
        loop {
            let response: InitProducerIdResponse =
                self.call(ApiKey::InitProducerId, "InitProducerId", &request)?;
            if response.error_code.is_none() {
                return Ok((response.producer_id, response.producer_epoch));
            }
            if !response.error_code.is_retriable() || begun.elapsed() > COORDINATOR_TIMEOUT {
                refused(
                    "a transactional id's producer id",
                    response.error_code,
                    None,
                )?;
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// The offset that `group` has committed for a partition, −1 for none; or the error that stands in the way.
    pub fn committed(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Result<Result<i64, ErrorCode>, AdminError> {
        let request = OffsetFetchRequest {
            group_id: group.into(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: topic.into(),
                partition_indexes: vec![partition],
            }]),
            ..Default::default()
        };
        let response: OffsetFetchResponse =
            self.call(ApiKey::OffsetFetch, "OffsetFetch", &request)?;
        if response.error_code.is_error() {
            return Ok(Err(response.error_code));
        }
        let found = response.topics.first().and_then(|t| t.partitions.first());
        Ok(match found {
            Some(found) if found.error_code.is_error() => Err(found.error_code),
            Some(found) => Ok(found.committed_offset),
            None => Ok(-1),
        })
    }
}
