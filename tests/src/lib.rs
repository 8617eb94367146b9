//! The lab library.
