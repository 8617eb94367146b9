//! What tests found beside passing or failing: numbers that `cargo xtask test --json` adds up.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

/// The folder that `cargo xtask test` reads findings from.
pub const FOLDER_VARIABLE: &str = "SLICE_TESTS_FINDINGS";

/// What a test has looked for; `None`: it did not look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Packets that were sent, not received, and that no counter knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_unaccounted: Option<u64>,
    /// Packets that arrived where they should not, or not as they should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrong_deliveries: Option<u64>,
    /// Packets under a name that is not their sender's, and yet delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forged_accepted: Option<u64>,
}

impl Findings {
    /// Leaves them for `cargo xtask test`, if that has started the test. To be called before anything is
    /// asserted: what failed must be told too.
    /// # Errors  when the file cannot be written.
    pub fn report(&self, test: &str) -> Result<()> {
        let folder = std::env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty());
        let Some(folder) = folder.map(PathBuf::from) else {
            return Ok(());
        };
        let file = folder.join(format!("{test}.json"));
        fs::write(&file, serde_json::to_vec(self)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}
