//! See `ringlog_fuzz::workload`.

#![no_main]

ringlog_fuzz::target!(workload);
