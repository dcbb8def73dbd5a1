//! The codec agrees, byte for byte, with the independent `kafka-protocol` crate, for every version that crate has.
//!
//! What we encode, it decodes to the last byte and encodes to the same bytes; and what it encoded, we decode to the value
//! that we began with. A version the crate lacks is named in `ONLY_HERE`, so that none is left out unnoticed.

use bytes::BytesMut;
use kafka_protocol::messages::{
    ApiKey as TheirKey, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
};
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;
use ringlog_net::api::TABLE;
use ringlog_net::arbitrary::Form;
use ringlog_net::codec::{Reader, Writer};
use ringlog_net::header::{
    RequestHeader as OurRequestHeader, decode_request_header, encode_request_header,
    encode_response_header,
};
use ringlog_net::{ApiKey, Bytes, Str};

/// What the crate, made for Kafka 4.1, does not have yet.
const ONLY_HERE: &[Form] = &[
    Form::Request(ApiKey::ListOffsets, 11),
    Form::Response(ApiKey::ListOffsets, 11),
    Form::Request(ApiKey::OffsetCommit, 10),
    Form::Request(ApiKey::OffsetFetch, 10),
    Form::Request(ApiKey::WriteTxnMarkers, 2),
    Form::Response(ApiKey::WriteTxnMarkers, 2),
    Form::Request(ApiKey::DescribeLogDirs, 5),
    Form::Response(ApiKey::DescribeLogDirs, 5),
    Form::Request(ApiKey::ShareFetch, 2),
    Form::Response(ApiKey::ShareFetch, 2),
    Form::Request(ApiKey::ShareAcknowledge, 2),
    Form::Response(ApiKey::ShareAcknowledge, 2),
    Form::Request(ApiKey::AddRaftVoter, 1),
    Form::Response(ApiKey::AddRaftVoter, 1),
    Form::Request(ApiKey::DescribeShareGroupOffsets, 1),
    Form::Response(ApiKey::DescribeShareGroupOffsets, 1),
];

fn their_key(key: ApiKey) -> Result<TheirKey, String> {
    TheirKey::try_from(key as i16).map_err(|()| format!("no API {key}"))
}

/// What the crate makes of bytes: it decodes them and encodes what it found.
fn through_them(form: Form, bytes: &Bytes) -> Result<Bytes, String> {
    let mut rest = bytes.clone();
    let mut out = BytesMut::new();
    match form {
        Form::Request(key, version) => RequestKind::decode(their_key(key)?, &mut rest, version)
            .and_then(|request| request.encode(&mut out, version)),
        Form::Response(key, version) => ResponseKind::decode(their_key(key)?, &mut rest, version)
            .and_then(|response| response.encode(&mut out, version)),
        Form::Record(..) => return Err("it has no metadata records".into()),
    }
    .map_err(|error| format!("{error:#}"))?;
    if rest.is_empty() {
        Ok(out.freeze())
    } else {
        Err(format!("{} bytes not understood", rest.len()))
    }
}

/// The requests and responses that both have.
fn common() -> impl Iterator<Item = Form> {
    Form::all()
        .into_iter()
        .filter(|form| !matches!(form, Form::Record(..)) && !ONLY_HERE.contains(form))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn bodies(seed in prop::collection::vec(any::<u8>(), 0..800)) {
        for form in common() {
            let body = form.make_up(&seed).expect("a form that exists");
            let ours = form.encode(&body).expect("what the version can carry");
            let theirs = through_them(form, &ours)
                .map_err(|error| TestCaseError::fail(format!("{form:?}: {error}: {body:?}")))?;
            prop_assert_eq!(&theirs, &ours, "{:?}: {:?}", form, body);
            prop_assert_eq!(form.decode(theirs), Ok(body), "{:?}", form);
        }
    }
}

#[test]
fn what_is_not_compared_is_what_they_lack() {
    let lacking: Vec<Form> = Form::all()
        .into_iter()
        .filter(|form| !matches!(form, Form::Record(..)))
        .filter(|form| {
            let body = form.make_up(&[]).expect("a form that exists");
            let bytes = form.encode(&body).expect("what the version can carry");
            through_them(*form, &bytes).is_err()
        })
        .collect();
    assert_eq!(lacking, ONLY_HERE);
}

#[test]
fn headers() {
    for spec in TABLE {
        let key = their_key(spec.key).expect("an API they have");
        for version in spec.accepted.iter() {
            assert_eq!(
                spec.request_header_version(version),
                key.request_header_version(version)
            );
            assert_eq!(
                spec.response_header_version(version),
                key.response_header_version(version)
            );
            request_header(spec.key, version, key);
            response_header(spec.key, version, key);
        }
    }
}

fn request_header(key: ApiKey, version: i16, theirs: TheirKey) {
    for client_id in [None, Some(Str::from("a client"))] {
        let header = OurRequestHeader {
            api_key: key,
            api_version: version,
            correlation_id: 77,
            client_id,
        };
        let mut writer = Writer::new();
        encode_request_header(&mut writer, &header).expect("a short client id");
        let ours = writer.into_bytes();
        let mut rest = ours.clone();
        let header_version = theirs.request_header_version(version);
        let decoded = RequestHeader::decode(&mut rest, header_version).expect("a header");
        assert_eq!(decoded.correlation_id, 77);
        let mut out = BytesMut::new();
        decoded
            .encode(&mut out, header_version)
            .expect("the same header");
        assert_eq!(out.freeze(), ours);
        let mut reader = Reader::new(ours);
        assert_eq!(decode_request_header(&mut reader), Ok(header));
        assert_eq!(reader.finish(), Ok(()));
    }
}

fn response_header(key: ApiKey, version: i16, theirs: TheirKey) {
    let mut writer = Writer::new();
    encode_response_header(&mut writer, key.spec(), version, -5);
    let ours = writer.into_bytes();
    let mut rest = ours.clone();
    let header = ResponseHeader::decode(&mut rest, theirs.response_header_version(version))
        .expect("a header");
    assert_eq!((header.correlation_id, rest.len()), (-5, 0));
}
