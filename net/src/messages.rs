//! The requests and responses of the Kafka protocol, one module per API, generated from `messages/*.msg`.
//!
//! Every field is public and `Default` is what the protocol says of an absent field. A field that a version does not
//! have is left at its default by the decoder and must be so for the encoder, unless the protocol lets it be ignored.

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
