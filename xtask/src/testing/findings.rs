//! Numbers that tests report beside passing or failing, one file each, added up.

use std::{fs, io::ErrorKind, path::PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::shell;

/// How tests learn where to leave their files.
pub(super) const FOLDER_VARIABLE: &str = "SLICE_TESTS_FINDINGS";

/// Each absent until a test has looked for it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Findings {
    packets_unaccounted: Option<u64>,
    wrong_deliveries: Option<u64>,
    forged_accepted: Option<u64>,
}

impl Findings {
    fn add(&mut self, other: Self) {
        add(&mut self.packets_unaccounted, other.packets_unaccounted);
        add(&mut self.wrong_deliveries, other.wrong_deliveries);
        add(&mut self.forged_accepted, other.forged_accepted);
    }
}

/// Nothing found is a number too; not looked for is none.
fn add(sum: &mut Option<u64>, more: Option<u64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0) + more);
    }
}

/// Where tests leave their files.
pub(super) fn folder() -> PathBuf {
    shell::repo_root().join("target/findings")
}

/// Empties the folder: what an earlier run found is not found by this one.
/// # Errors  when it cannot be emptied or made.
pub(super) fn forget() -> Result<()> {
    let folder = folder();
    let context = || folder.display().to_string();
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(context);
        }
        _ => {}
    }
    fs::create_dir_all(&folder).with_context(context)
}

/// Adds up what all tests have reported.
/// # Errors  when a file is not such a report: a number that is missing must not look like 0.
pub(super) fn collect() -> Result<Findings> {
    let mut findings = Findings::default();
    let folder = folder();
    let files = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(findings),
        files => files.with_context(|| folder.display().to_string())?,
    };
    for file in files {
        let path = file?.path();
        let text = fs::read(&path).with_context(|| path.display().to_string())?;
        let found = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        findings.add(found);
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_looked_for_is_absent_and_what_was_not_found_is_zero() {
        let of = |text: &str| -> Findings { serde_json::from_str(text).unwrap() };
        let mut sum = Findings::default();
        sum.add(of(r#"{"packets_unaccounted":0,"wrong_deliveries":2}"#));
        sum.add(of(r#"{"packets_unaccounted":3}"#));

        let json = serde_json::to_value(sum).unwrap();

        assert_eq!(
            json,
            serde_json::json!({
                "packets_unaccounted": 3, "wrong_deliveries": 2, "forged_accepted": null,
            })
        );
    }
}
