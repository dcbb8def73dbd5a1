//! Whole response frames, header included, as the benchmark's client reads them.
//!
//! What decodes encodes again to a frame that decodes to the same, in memory in proportion.

use ringlog_net::Bytes;
use ringlog_net::arbitrary::{Body, Form, Numbers};
use ringlog_net::request::Response;

use crate::messages::FORMS;
use crate::{Choices, memory};

fn forms() -> impl Iterator<Item = (ringlog_net::ApiKey, i16)> {
    FORMS.iter().filter_map(|form| match form {
        Form::Response(key, version) => Some((*key, *version)),
        _ => None,
    })
}

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let number = choices.below(forms().count());
    let Some((key, version)) = forms().nth(number) else {
        return;
    };
    let frame = Bytes::copy_from_slice(choices.rest());
    let limit = memory::of_message(frame.len());
    let Ok((correlation_id, response)) =
        memory::within(limit, || Response::decode_frame(key, version, frame))
    else {
        return;
    };
    let encode = |response: &Response| {
        let pieces = response
            .encode(version, correlation_id)
            .expect("what was decoded");
        Bytes::from(pieces.concat())
    };
    let once = encode(&response);
    assert_eq!(once[..4], (once.len() as i32 - 4).to_be_bytes());
    let (id, again) =
        Response::decode_frame(key, version, once.slice(4..)).expect("what was encoded");
    assert_eq!(id, correlation_id);
    assert_eq!(encode(&again), once, "{key:?} version {version}");
}

/// One response of every API and version.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(3);
    let mut seeds = Vec::new();
    for (number, (key, version)) in forms().enumerate() {
        let length = numbers.below(200);
        let Some(Body::Response(response)) =
            Form::Response(key, version).make_up(&numbers.bytes(length))
        else {
            continue;
        };
        let frame = response
            .encode(version, 9)
            .expect("what the version can carry")
            .concat();
        seeds.push([&(number as u16).to_be_bytes(), &frame[4..]].concat());
    }
    seeds
}
