//! See `ringlog_fuzz::messages`.

#![no_main]

ringlog_fuzz::target!(messages);
