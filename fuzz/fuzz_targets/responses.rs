//! See `ringlog_fuzz::responses`.

#![no_main]

ringlog_fuzz::target!(responses);
