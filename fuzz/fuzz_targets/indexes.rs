//! See `ringlog_fuzz::indexes`.

#![no_main]

ringlog_fuzz::target!(indexes);
