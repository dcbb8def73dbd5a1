//! Every message in every version survives being encoded and decoded, and so does every metadata record; a version that
//! cannot carry a value refuses it rather than dropping it.

use proptest::prelude::*;
use ringlog_net::arbitrary::{ArbitraryMessage, Form, Numbers, Source};
use ringlog_net::codec::{EncodeError, Message, Reader, TopLevel, Writer};
use ringlog_net::messages::create_topics::CreateTopicsResponse;
use ringlog_net::messages::fetch::{FetchRequest, ReplicaState};
use ringlog_net::messages::find_coordinator::FindCoordinatorRequest;
use ringlog_net::messages::metadata::MetadataRequest;
use ringlog_net::metadata::{
    KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord,
    VotersRecord,
};
use ringlog_net::{Bytes, Str};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_message_and_record_in_every_version(seed in prop::collection::vec(any::<u8>(), 0..800)) {
        for form in Form::all() {
            let Some(body) = form.make_up(&seed) else {
                return Err(TestCaseError::fail(format!("{form:?} cannot be made up")));
            };
            let bytes = form.encode(&body).map_err(|error| {
                TestCaseError::fail(format!("{form:?}: {error} in {body:?}"))
            })?;
            prop_assert_eq!(form.decode(bytes), Ok(body), "{:?}", form);
        }
    }
}

fn data_survives<M: TopLevel + ArbitraryMessage + PartialEq + std::fmt::Debug>() {
    let mut numbers = Numbers::new(1);
    for version in M::VERSIONS.iter() {
        for length in 0..100 {
            let message = M::arbitrary(&mut Source::new(&numbers.bytes(length)), version);
            let bytes = encode(&message, version).expect("what the version can carry");
            let mut reader = Reader::new(bytes);
            assert_eq!(M::decode(&mut reader, version), Ok(message));
            assert_eq!(reader.finish(), Ok(()));
        }
    }
}

#[test]
fn the_values_of_control_records() {
    data_survives::<LeaderChangeMessage>();
    data_survives::<SnapshotHeaderRecord>();
    data_survives::<SnapshotFooterRecord>();
    data_survives::<KRaftVersionRecord>();
    data_survives::<VotersRecord>();
}

#[test]
fn the_least_a_peer_may_send() {
    // With an empty seed everything is zero, empty or null.
    for form in Form::all() {
        let body = form.make_up(&[]).expect("a form that exists");
        let bytes = form.encode(&body).expect("what the version can carry");
        assert_eq!(form.decode(bytes), Ok(body), "{form:?}");
    }
}

fn encode(message: &impl Message, version: i16) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version)?;
    Ok(writer.into_bytes())
}

#[test]
fn a_field_that_the_version_lacks_is_refused() {
    let request = FetchRequest {
        replica_state: ReplicaState {
            replica_id: 7,
            replica_epoch: 1,
        },
        ..FetchRequest::default()
    };
    assert_eq!(
        encode(&request, 14),
        Err(EncodeError::NotRepresentable {
            message: "FetchRequest",
            field: "replica_state",
            version: 14
        })
    );
    assert!(encode(&request, 15).is_ok());
}

#[test]
fn a_field_that_may_be_ignored_is_left_out() {
    let plain = FetchRequest::default();
    let with_rack = FetchRequest {
        rack_id: Str::from("rack"),
        ..FetchRequest::default()
    };
    assert_eq!(encode(&with_rack, 10), encode(&plain, 10));
    assert_ne!(encode(&with_rack, 11), encode(&plain, 11));
}

#[test]
fn null_is_refused_where_the_version_has_none() {
    let all = MetadataRequest {
        topics: None,
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    assert!(matches!(
        encode(&all, 0),
        Err(EncodeError::NotRepresentable {
            field: "topics",
            ..
        })
    ));
    assert_eq!(
        encode(&all, 1).as_deref(),
        Ok(&[0xff_u8, 0xff, 0xff, 0xff][..])
    );
}

#[test]
fn unknown_versions_are_refused_both_ways() {
    let response = CreateTopicsResponse::default();
    assert!(matches!(
        encode(&response, 99),
        Err(EncodeError::UnsupportedVersion(_))
    ));
    let mut reader = Reader::new(vec![0; 64]);
    assert!(CreateTopicsResponse::decode(&mut reader, -1).is_err());
}

#[test]
fn a_string_longer_than_its_length_field_is_refused() {
    let request = FindCoordinatorRequest {
        key: Str::from("k".repeat(40_000)),
        ..FindCoordinatorRequest::default()
    };
    assert_eq!(
        encode(&request, 0),
        Err(EncodeError::TooLong {
            length: 40_000,
            limit: 32_767
        })
    );
    assert!(encode(&request, 3).is_ok());
}
