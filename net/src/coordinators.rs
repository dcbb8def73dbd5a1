//! What the coordinators store in `__consumer_offsets` and `__transaction_state`, generated from `messages/coordinators/*.msg`.
//!
//! These are bodies alone. A record's key and value each begin with a number of two bytes, the record's type in the key and the body's version in
//! the value, which the coordinators write themselves.

include!(concat!(env!("OUT_DIR"), "/coordinators.rs"));
