//! See `ringlog_fuzz::checkpoints`.

#![no_main]

ringlog_fuzz::target!(checkpoints);
