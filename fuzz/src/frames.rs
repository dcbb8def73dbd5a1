//! What a broker does with what its sockets give: cut it into frames, read a request's header, then its body.
//!
//! Frames are the same however the bytes arrive in pieces, never larger than the limit, and account for every byte; header and
//! request survive being encoded and read again.

use ringlog_net::arbitrary::{Body, Form, Numbers};
use ringlog_net::codec::{Reader, Writer};
use ringlog_net::frame::{FrameError, FrameSplitter};
use ringlog_net::header::{decode_request_header, encode_request_header};
use ringlog_net::request::Request;
use ringlog_net::{Bytes, Str};

use crate::messages::FORMS;
use crate::{Choices, memory};

const LIMIT: usize = 1 << 16;

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let piece = usize::from(choices.byte()) + 1;
    let stream = choices.rest();
    let (frames, end) = split(stream, stream.len().max(1));
    let (again, end_again) = split(stream, piece);
    assert_eq!(frames, again, "in pieces of {piece} bytes");
    assert_eq!(end, end_again, "in pieces of {piece} bytes");
    for frame in frames {
        request(frame);
    }
}

/// The frames of a stream that arrives in pieces, and what ended it.
fn split(stream: &[u8], piece: usize) -> (Vec<Bytes>, Option<FrameError>) {
    let mut splitter = FrameSplitter::new(LIMIT);
    let (mut frames, mut taken, mut arrived) = (Vec::new(), 0, 0);
    for part in stream.chunks(piece) {
        splitter.buffer().extend_from_slice(part);
        arrived += part.len();
        loop {
            match splitter.next_frame() {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= LIMIT);
                    taken += 4 + frame.len();
                    frames.push(frame);
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert_eq!(taken + splitter.buffered(), arrived);
        assert!(splitter.missing().expect("a size that was fine") > 0);
    }
    (frames, None)
}

fn request(frame: Bytes) {
    let limit = memory::of_message(frame.len());
    let mut reader = Reader::new(frame);
    let Ok(header) = memory::within(limit, || decode_request_header(&mut reader)) else {
        return;
    };
    let mut writer = Writer::new();
    encode_request_header(&mut writer, &header).expect("what was decoded");
    let again = decode_request_header(&mut Reader::new(writer.into_bytes()));
    assert_eq!(again.as_ref(), Ok(&header));
    let decoded = memory::within(limit, || {
        Request::decode(header.api_key, header.api_version, &mut reader)
    });
    let Ok(request) = decoded else {
        return;
    };
    let once = request
        .encode(
            header.api_version,
            header.correlation_id,
            header.client_id.as_ref(),
        )
        .expect("what was decoded")
        .concat();
    let mut reader = Reader::new(once[4..].to_vec());
    assert_eq!(decode_request_header(&mut reader), Ok(header.clone()));
    let again =
        Request::decode(header.api_key, header.api_version, &mut reader).expect("what was encoded");
    assert_eq!(reader.finish(), Ok(()));
    let twice = again
        .encode(
            header.api_version,
            header.correlation_id,
            header.client_id.as_ref(),
        )
        .expect("what was decoded");
    assert_eq!(twice.concat(), once);
}

/// One request of every API and version, and some in a row.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(2);
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for form in FORMS.iter() {
        let Form::Request(_, version) = *form else {
            continue;
        };
        let length = numbers.below(150);
        let Some(Body::Request(request)) = form.make_up(&numbers.bytes(length)) else {
            continue;
        };
        let frame = request.encode(version, 7, Some(&Str::from("fuzz")));
        let mut seed = vec![numbers.below(64) as u8];
        seed.extend(frame.expect("what the version can carry").concat());
        if let Some(before) = seeds.last().filter(|_| version == 0) {
            let both = [&seed[..], &before[1..]].concat();
            seeds.push(both);
        }
        seeds.push(seed);
    }
    seeds
}
