//! Request and response headers.
//!
//! A request header is: API key, API version, correlation id, client id, and in flexible versions tagged fields. The
//! client id keeps its old two-byte length even there. A response header is the correlation id, and in flexible versions
//! tagged fields; the response to ApiVersions never has those, since its client may not know yet which versions the
//! broker speaks. For the same reason an ApiVersions request of an unknown version is not an error here: its header is
//! read as that of the highest version, and the broker answers in version 0 with UNSUPPORTED_VERSION.

use thiserror::Error;

use crate::api::ApiSpec;
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::{ApiKey, Str};

/// What precedes a request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API asked for.
    pub api_key: ApiKey,
    /// The version of the body, supported or not: ask [`crate::api::Served::accepts`].
    pub api_version: i16,
    /// Chosen by the client, returned with the response.
    pub correlation_id: i32,
    /// The name the client gives itself. It holds the request's frame: see [`Str::detached`].
    pub client_id: Option<Str>,
}

/// Why a request cannot even be told apart. No answer is possible: close the connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// The API is unknown, so nothing is known of the rest of the header.
    #[error(
        "request for unknown API {api_key} in version {api_version}; is the peer a Kafka client?"
    )]
    UnknownApi {
        /// The API's number on the wire.
        api_key: i16,
        /// The version asked for.
        api_version: i16,
    },
    /// The header's bytes are not a header.
    #[error("malformed request header: {0}")]
    Malformed(#[from] DecodeError),
}

/// Reads a request's header and leaves the reader at the body.
///
/// # Errors
/// [`HeaderError`]; a version that is not supported is none.
pub fn decode_request_header(reader: &mut Reader) -> Result<RequestHeader, HeaderError> {
    let api_key = reader.i16()?;
    let api_version = reader.i16()?;
    let correlation_id = reader.i32()?;
    let Some(api_key) = ApiKey::from_i16(api_key) else {
        return Err(HeaderError::UnknownApi {
            api_key,
            api_version,
        });
    };
    let client_id = reader.nullable_string(false, true)?;
    if api_key.spec().request_header_version(api_version) >= 2 {
        reader.skip_tagged_fields()?;
    }
    Ok(RequestHeader {
        api_key,
        api_version,
        correlation_id,
        client_id,
    })
}

/// Writes a request's header.
///
/// # Errors
/// [`EncodeError::TooLong`] for a client id of more than 32767 bytes.
pub fn encode_request_header(
    writer: &mut Writer,
    header: &RequestHeader,
) -> Result<(), EncodeError> {
    writer.i16(header.api_key as i16);
    writer.i16(header.api_version);
    writer.i32(header.correlation_id);
    writer.nullable_string(false, header.client_id.as_ref())?;
    let spec = header.api_key.spec();
    if spec.request_header_version(header.api_version) >= 2 {
        writer.uvarint(0);
    }
    Ok(())
}

/// Writes the header of a response to a request of this version.
pub fn encode_response_header(
    writer: &mut Writer,
    spec: &ApiSpec,
    version: i16,
    correlation_id: i32,
) {
    writer.i32(correlation_id);
    if spec.response_header_version(version) >= 1 {
        writer.uvarint(0);
    }
}

/// Reads the header of a response to a request of this version: the correlation id.
///
/// # Errors
/// [`DecodeError`] when the bytes are not a header.
pub fn decode_response_header(
    reader: &mut Reader,
    spec: &ApiSpec,
    version: i16,
) -> Result<i32, DecodeError> {
    let correlation_id = reader.i32()?;
    if spec.response_header_version(version) >= 1 {
        reader.skip_tagged_fields()?;
    }
    Ok(correlation_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_of_a_version_to_come_can_be_answered() {
        // Key 18, version 99, correlation id 5, client id "x", no tagged fields; then a body that nobody here knows.
        let mut reader = Reader::new(vec![0, 18, 0, 99, 0, 0, 0, 5, 0, 1, b'x', 0, 0xff, 0xff]);
        let header = decode_request_header(&mut reader).expect("a header that can be read");
        assert_eq!(header.api_key, ApiKey::ApiVersions);
        assert_eq!((header.api_version, header.correlation_id), (99, 5));
        assert_eq!(reader.remaining(), 2);
        let mut writer = Writer::new();
        encode_response_header(&mut writer, header.api_key.spec(), 99, 5);
        assert_eq!(writer.into_bytes()[..], [0, 0, 0, 5]);
    }

    #[test]
    fn an_unknown_api_ends_the_connection() {
        let mut reader = Reader::new(vec![0x47, 0x45, 0x54, 0x20, 0, 0, 0, 5, 0xff, 0xff]);
        assert_eq!(
            decode_request_header(&mut reader),
            Err(HeaderError::UnknownApi {
                api_key: 0x4745,
                api_version: 0x5420
            })
        );
    }

    #[test]
    fn unknown_tagged_fields_are_skipped() {
        // Metadata version 9 with a null client id and one tagged field, number 200, of two bytes.
        let bytes = vec![0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 1, 0xc8, 1, 2, 9, 9];
        let mut reader = Reader::new(bytes);
        let header = decode_request_header(&mut reader).expect("a header");
        assert_eq!((header.client_id, reader.remaining()), (None, 0));
    }
}
