//! `slice-agent`.
fn main() {}
