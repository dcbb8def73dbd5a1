//! ApiVersions (versions 0 to 4): what this broker serves, so that a client can choose.
//!
//! A client that asks in a version we do not know is answered in version 0 with UNSUPPORTED_VERSION and the range of this one API (KIP-511). Below
//! version 4, features whose lowest level is 0 are left out: older clients reject them.

use ringlog_net::ApiKey;
use ringlog_net::ErrorCode;
use ringlog_net::messages::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use ringlog_net::request::Response;

use super::{RequestContext, SERVED};
use crate::controller::FEATURES;

/// The first version whose clients accept features with a lowest level of 0.
const LEVEL_0_FROM: i16 = 4;

/// Answers with the table of what is served.
pub async fn handle(context: &RequestContext, request: ApiVersionsRequest) -> ApiVersionsResponse {
    let named = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if context.version >= 3 && !named {
        return ApiVersionsResponse {
            error_code: ErrorCode::INVALID_REQUEST,
            ..Default::default()
        };
    }
    let image = context.shard.local_image();
    let supported = FEATURES
        .iter()
        .filter(|feature| feature.min > 0 || context.version >= LEVEL_0_FROM)
        .map(|feature| SupportedFeatureKey {
            name: feature.name.into(),
            min_version: feature.min,
            max_version: feature.max,
        });
    let finalized = image
        .finalized_features()
        .iter()
        .map(|(name, level)| FinalizedFeatureKey {
            name: name.clone(),
            max_version_level: *level,
            min_version_level: *level,
        });
    ApiVersionsResponse {
        error_code: ErrorCode::NONE,
        api_keys: SERVED.api_versions(),
        supported_features: supported.collect(),
        finalized_features_epoch: image.features_epoch(),
        finalized_features: finalized.collect(),
        ..Default::default()
    }
}

/// The answer, in version 0, to a version that is not served.
pub fn unsupported_version() -> Response {
    let spec = ApiKey::ApiVersions.spec();
    let own = ApiVersion {
        api_key: ApiKey::ApiVersions as i16,
        min_version: spec.advertised.low,
        max_version: spec.advertised.high,
    };
    Response::ApiVersions(Box::new(ApiVersionsResponse {
        error_code: ErrorCode::UNSUPPORTED_VERSION,
        api_keys: vec![own],
        ..Default::default()
    }))
}

/// Letters and digits, with `-` and `.` inside (KIP-511).
fn is_software_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    let outer = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    outer(bytes.first()) && outer(bytes.last()) && bytes.iter().all(|b| inner(*b))
}

#[cfg(test)]
mod tests {
    //! Names as the protocol allows them.
    use super::is_software_name;

    #[test]
    fn names() {
        for name in ["a", "apache-kafka-java", "4.3.0", "X.1-b"] {
            assert!(is_software_name(name), "{name}");
        }
        for name in ["", "-a", "a.", "a b", "ü"] {
            assert!(!is_software_name(name), "{name}");
        }
    }
}
