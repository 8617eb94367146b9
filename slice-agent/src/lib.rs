//! The node agent as a library.
