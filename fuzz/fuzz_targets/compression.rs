//! See `ringlog_fuzz::compression`.

#![no_main]

ringlog_fuzz::target!(compression);
