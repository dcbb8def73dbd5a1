//! See `ringlog_fuzz::properties`.

#![no_main]

ringlog_fuzz::target!(properties);
