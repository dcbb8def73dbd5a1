//! See `ringlog_fuzz::journal`.

#![no_main]

ringlog_fuzz::target!(journal);
