//! See `ringlog_fuzz::metadata_log`.

#![no_main]

ringlog_fuzz::target!(metadata_log);
