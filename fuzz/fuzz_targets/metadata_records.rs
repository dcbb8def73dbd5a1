//! See `ringlog_fuzz::metadata_records`.

#![no_main]

ringlog_fuzz::target!(metadata_records);
