//! See `ringlog_fuzz::producers`.

#![no_main]

ringlog_fuzz::target!(producers);
