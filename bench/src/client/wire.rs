//! Requests to frames and responses from frames, and the versions this client speaks.
//!
//! Topics go by name, so the ranges end before the versions that require topic ids (KIP-516); and a coordinator is asked about one group or
//! transactional id at a time.

use bytes::Bytes;
use ringlog_net::api::ApiKey;
use ringlog_net::codec::{DecodeError, EncodeError, Message, Reader, Writer};
use ringlog_net::header::{RequestHeader, decode_response_header, encode_request_header};

/// What this client calls itself.
pub const CLIENT_ID: &str = "ringlog-bench";

/// Versions of an API that this client speaks, both ends included.
pub fn spoken(key: ApiKey) -> (i16, i16) {
    match key {
        ApiKey::Produce => (3, 12),
        ApiKey::Fetch => (4, 12),
        ApiKey::ListOffsets => (1, 7),
        ApiKey::Metadata => (1, 12),
        ApiKey::CreateTopics => (2, 7),
        ApiKey::DeleteTopics => (1, 5),
        ApiKey::InitProducerId => (0, 4),
        ApiKey::ApiVersions => (0, 3),
        ApiKey::FindCoordinator => (1, 3),
        ApiKey::OffsetCommit => (6, 9),
        ApiKey::OffsetFetch => (5, 7),
        ApiKey::JoinGroup => (5, 9),
        ApiKey::SyncGroup => (3, 5),
        ApiKey::Heartbeat => (3, 4),
        ApiKey::LeaveGroup => (3, 5),
        ApiKey::AddPartitionsToTxn => (0, 3),
        ApiKey::EndTxn => (0, 5),
        _ => (0, 0),
    }
}

/// Encodes a whole frame: size, request header and body.
pub fn encode<M: Message>(
    key: ApiKey,
    version: i16,
    correlation_id: i32,
    body: &M,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut writer = Writer::frame();
    let client_id = Some(CLIENT_ID.into());
    let header = RequestHeader {
        api_key: key,
        api_version: version,
        correlation_id,
        client_id,
    };
    encode_request_header(&mut writer, &header)?;
    body.encode(&mut writer, version)?;
    writer.finish_frame()
}

/// Decodes a response's header and body; `frame` comes without its size.
pub fn decode<M: Message>(key: ApiKey, version: i16, frame: Bytes) -> Result<M, DecodeError> {
    let mut reader = Reader::new(frame);
    decode_response_header(&mut reader, key.spec(), version)?;
    M::decode(&mut reader, version)
}
