//! Mutated messages for everything that reads from the network; `fuzz/` does more of it, guided by coverage.
//!
//! Valid messages are made up, mutated, and decoded, for as many seconds as RINGLOG_FUZZ_SECONDS says (1 by default). What is
//! decoded must survive being encoded and decoded again. RINGLOG_FUZZ_SEED chooses another sequence; a failure prints the
//! seed and the input.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use ringlog_net::arbitrary::{Form, Numbers};
use ringlog_net::codec::Reader;
use ringlog_net::frame::FrameSplitter;
use ringlog_net::header::decode_request_header;
use ringlog_net::request::Request;
use ringlog_net::{Bytes, Str};

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is `{text}`; a number is needed")),
        Err(_) => default,
    }
}

/// Runs a target on mutated inputs until the time is over; at least once for every form.
fn fuzz(name: &str, input: impl Fn(Form, &mut Numbers) -> Vec<u8>, target: impl Fn(Form, &Bytes)) {
    let seed = setting("RINGLOG_FUZZ_SEED", 1);
    let end = Instant::now() + Duration::from_secs(setting("RINGLOG_FUZZ_SECONDS", 1));
    let forms = Form::all();
    let mut numbers = Numbers::new(seed);
    let mut inputs = 0_u64;
    while inputs < forms.len() as u64 || Instant::now() < end {
        let form = forms[(inputs % forms.len() as u64) as usize];
        let mut bytes = input(form, &mut numbers);
        numbers.mutate(&mut bytes);
        let bytes = Bytes::from(bytes);
        inputs += 1;
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(form, &bytes))) {
            eprintln!("{name}: seed {seed}, input {inputs}, {form:?}: {bytes:02x?}");
            resume_unwind(panic);
        }
    }
    println!("{name}: {inputs} inputs, seed {seed}");
}

fn body(form: Form, numbers: &mut Numbers) -> Vec<u8> {
    let length = numbers.below(500);
    let body = form
        .make_up(&numbers.bytes(length))
        .expect("a form that exists");
    form.encode(&body)
        .expect("what the version can carry")
        .to_vec()
}

#[test]
fn bodies() {
    fuzz("bodies", body, |form, bytes| {
        let Ok(body) = form.decode(bytes.clone()) else {
            return;
        };
        if let (Form::Record(..), Err(_)) = (form, form.encode(&body)) {
            // A record's bytes say what kind it is; it became one that has no such version.
            return;
        }
        let once = form.encode(&body).expect("what was decoded");
        let again = form.decode(once.clone()).expect("what was encoded");
        assert_eq!(form.encode(&again).expect("what was decoded"), once);
    });
}

/// A whole frame of the request that belongs to a form, or of some other bytes behind a plausible header.
fn frame(form: Form, numbers: &mut Numbers) -> Vec<u8> {
    let length = numbers.below(300);
    let seed = numbers.bytes(length);
    if let Form::Request(key, version) = form
        && let Some(ringlog_net::arbitrary::Body::Request(request)) = form.make_up(&seed)
    {
        assert_eq!(request.api_key(), key);
        return request
            .encode(version, 1, Some(&Str::from("fuzz")))
            .expect("what the version can carry")
            .concat();
    }
    let mut bytes = (seed.len() as i32).to_be_bytes().to_vec();
    bytes.extend_from_slice(&seed);
    bytes
}

#[test]
fn streams_of_frames() {
    fuzz("frames", frame, |_, bytes| {
        let mut splitter = FrameSplitter::new(1 << 20);
        // In pieces of 1, 2, 3, … bytes, as a socket may give them.
        let mut rest = bytes.clone();
        let mut piece = 1;
        while !rest.is_empty() {
            let arrived = rest.split_to(piece.min(rest.len()));
            piece += 1;
            splitter.buffer().extend_from_slice(&arrived);
            loop {
                match splitter.next_frame() {
                    Ok(Some(frame)) => request(frame),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
        }
        assert!(splitter.buffered() <= bytes.len());
    });
}

/// What a broker does with a frame before it knows what is asked for.
fn request(frame: Bytes) {
    let mut reader = Reader::new(frame);
    if let Ok(header) = decode_request_header(&mut reader) {
        let _ = Request::decode(header.api_key, header.api_version, &mut reader);
    }
}
