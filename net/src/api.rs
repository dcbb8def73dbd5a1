//! The one table of APIs and their versions.
//!
//! It follows from `messages/*.msg`: what is described there can be decoded and encoded, and stands in [`TABLE`]. What a
//! broker offers of it is for the broker to say, with a [`Served`].

use std::fmt;

use crate::messages::api_versions::ApiVersion;

include!(concat!(env!("OUT_DIR"), "/api.rs"));

/// An inclusive range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The lowest version.
    pub low: i16,
    /// The highest version.
    pub high: i16,
}

impl VersionRange {
    /// Whether a version is within the range.
    pub const fn contains(self, version: i16) -> bool {
        self.low <= version && version <= self.high
    }

    /// The versions, ascending.
    pub fn iter(self) -> impl Iterator<Item = i16> {
        self.low..=self.high
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} to {}", self.low, self.high)
    }
}

/// What the table says of one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiSpec {
    /// The API.
    pub key: ApiKey,
    /// Kafka's name of it.
    pub name: &'static str,
    /// The versions that ApiVersions answers with.
    pub advertised: VersionRange,
    /// The versions that are understood. They differ from the advertised ones only for Produce, whose versions 0 to 2
    /// must be advertised lest old librdkafka stops compressing.
    pub accepted: VersionRange,
    /// The first version with compact lengths and tagged fields (KIP-482), if any.
    pub flexible_from: Option<i16>,
}

impl ApiSpec {
    /// Whether a version, be it supported or not, is flexible.
    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible_from.is_some_and(|from| version >= from)
    }

    /// 2, with tagged fields, or 1.
    pub fn request_header_version(&self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// 1, with tagged fields, or 0. Always 0 for ApiVersions, whose client does not know yet what the broker
    /// understands (KIP-511).
    pub fn response_header_version(&self, version: i16) -> i16 {
        i16::from(self.is_flexible(version) && self.key != ApiKey::ApiVersions)
    }
}

/// The APIs that a broker serves.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    keys: u128,
}

impl Served {
    /// Exactly these APIs.
    pub const fn new(keys: &[ApiKey]) -> Served {
        let mut bits = 0;
        let mut index = 0;
        while index < keys.len() {
            bits |= 1 << (keys[index] as i16);
            index += 1;
        }
        Served { keys: bits }
    }

    /// Whether an API is served.
    pub const fn contains(self, key: ApiKey) -> bool {
        self.keys & (1 << (key as i16)) != 0
    }

    /// The rows of the table that are served, by ascending key.
    pub fn specs(self) -> impl Iterator<Item = &'static ApiSpec> {
        TABLE.iter().filter(move |spec| self.contains(spec.key))
    }

    /// Whether a request of this version can be served.
    pub fn accepts(self, key: ApiKey, version: i16) -> bool {
        self.contains(key) && key.spec().accepted.contains(version)
    }

    /// The list for an ApiVersions response.
    pub fn api_versions(self) -> Vec<ApiVersion> {
        self.specs()
            .map(|spec| ApiVersion {
                api_key: spec.key as i16,
                min_version: spec.advertised.low,
                max_version: spec.advertised.high,
            })
            .collect()
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.spec().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ascends_and_finds_itself() {
        assert!(TABLE.is_sorted_by_key(|spec| spec.key as i16));
        for spec in TABLE {
            assert_eq!(ApiKey::from_i16(spec.key as i16), Some(spec.key));
            assert_eq!(spec.key.spec(), spec);
            assert!(spec.advertised.low <= spec.accepted.low, "{}", spec.name);
            assert_eq!(spec.advertised.high, spec.accepted.high, "{}", spec.name);
        }
    }

    #[test]
    fn only_produce_is_advertised_wider_than_accepted() {
        let wider: Vec<&str> = TABLE
            .iter()
            .filter(|spec| spec.advertised != spec.accepted)
            .map(|spec| spec.name)
            .collect();
        assert_eq!(wider, ["Produce"]);
        let produce = ApiKey::Produce.spec();
        assert_eq!(produce.advertised, VersionRange { low: 0, high: 13 });
        assert_eq!(produce.accepted, VersionRange { low: 3, high: 13 });
    }

    #[test]
    fn nothing_is_served_but_what_was_said() {
        const SERVED: Served = Served::new(&[
            ApiKey::Fetch,
            ApiKey::Produce,
            ApiKey::DeleteShareGroupOffsets,
        ]);
        let keys: Vec<i16> = SERVED
            .api_versions()
            .iter()
            .map(|api| api.api_key)
            .collect();
        assert_eq!(keys, [0, 1, 92]);
        assert!(SERVED.accepts(ApiKey::Produce, 3));
        assert!(!SERVED.accepts(ApiKey::Produce, 2), "advertised only");
        assert!(!SERVED.accepts(ApiKey::Metadata, 1), "not served");
    }

    #[test]
    fn the_response_to_api_versions_has_no_flexible_header() {
        for spec in TABLE {
            for version in spec.accepted.iter() {
                let flexible = spec.is_flexible(version) && spec.key != ApiKey::ApiVersions;
                assert_eq!(spec.response_header_version(version) == 1, flexible);
            }
        }
    }
}
