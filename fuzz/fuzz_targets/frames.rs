//! See `ringlog_fuzz::frames`.

#![no_main]

ringlog_fuzz::target!(frames);
