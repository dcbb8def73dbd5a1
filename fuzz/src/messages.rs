//! Bodies of requests and responses of every API in every version, and of the metadata log's records.
//!
//! Any bytes: what decodes encodes again to something that decodes to the same, no proper prefix of which decodes, in memory in
//! proportion. Any value that can be made up: it survives.

use std::sync::LazyLock;

use ringlog_net::Bytes;
use ringlog_net::arbitrary::{Form, Numbers};

use crate::{Choices, memory, metadata_records};

pub(crate) static FORMS: LazyLock<Vec<Form>> = LazyLock::new(Form::all);

/// In the first two bytes of an input: the rest is what a value is made of, not its encoding.
const MADE: u16 = 0x8000;

/// See the module.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let choice = u16::from_be_bytes(choices.take());
    let form = FORMS[usize::from(choice & !MADE) % FORMS.len()];
    if choice & MADE != 0 {
        let body = form.make_up(choices.rest()).expect("a form that exists");
        let bytes = form.encode(&body).expect("what the version can carry");
        assert_eq!(form.decode(bytes).as_ref(), Ok(&body), "{form:?}");
        return;
    }
    let bytes = Bytes::copy_from_slice(choices.rest());
    if let Form::Record(..) = form {
        // What kind of record it is, and in which version, is for the bytes to say.
        metadata_records::record(bytes);
        return;
    }
    let Ok(body) = memory::within(memory::of_message(bytes.len()), || {
        form.decode(bytes.clone())
    }) else {
        return;
    };
    let once = form.encode(&body).expect("what was decoded");
    let again = form.decode(once.clone()).expect("what was encoded");
    // By their bytes: a number that is not equal to itself may be in there.
    assert_eq!(
        form.encode(&again).expect("what was decoded"),
        once,
        "{form:?}"
    );
    let cut = usize::from(choice) * 31 % once.len().max(1);
    if cut < once.len() {
        assert!(
            form.decode(once.slice(..cut)).is_err(),
            "{form:?} from {cut} of {} bytes",
            once.len()
        );
    }
}

/// Every form's encoding of some value, and what that was made of.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(1);
    let mut seeds = Vec::new();
    for (number, form) in FORMS.iter().enumerate() {
        let length = 40 + numbers.below(200);
        let seed = numbers.bytes(length);
        let body = form.make_up(&seed).expect("a form that exists");
        let encoded = form.encode(&body).expect("what the version can carry");
        let number = number as u16;
        seeds.push([&number.to_be_bytes(), &encoded[..]].concat());
        if number.is_multiple_of(8) {
            seeds.push([&(number | MADE).to_be_bytes(), &seed[..]].concat());
        }
    }
    seeds
}
