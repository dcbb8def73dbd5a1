//! See `ringlog_fuzz::batches`.

#![no_main]

ringlog_fuzz::target!(batches);
