//! `cargo xtask tidy`: house rules that no compiler checks.

mod reasons;
mod source;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::shell;

/// A file of the repository.
pub(crate) struct SourceFile {
    /// Relative to the root.
    path: PathBuf,
    text: String,
}

/// One departure from the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    place: String,
    message: String,
    is_error: bool,
}

/// Reads every file of the repository, prints warnings, and returns the errors.
/// # Errors  when git does not list the files.
pub(crate) fn run() -> Result<Vec<String>> {
    let files = files()?;
    let mut findings: Vec<_> = files.iter().flat_map(source::check).collect();
    findings.extend(source::crowded_folders(&files));
    findings.extend(reasons::without_test(&files));
    let (errors, warnings): (Vec<_>, Vec<_>) = findings.into_iter().partition(|f| f.is_error);
    for warning in &warnings {
        eprintln!("warning: {}: {}", warning.place, warning.message);
    }
    eprintln!(
        "tidy: {} files, {} errors, {} warnings",
        files.len(),
        errors.len(),
        warnings.len()
    );
    Ok(errors
        .into_iter()
        .map(|error| format!("{}: {}", error.place, error.message))
        .collect())
}

/// Returns the text files that are in the repository or would be added to it.
fn files() -> Result<Vec<SourceFile>> {
    let root = shell::repo_root();
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root);
    let listed = shell::output(&mut git).context("tidy needs git to know which files are ours")?;
    // A file that was removed but not yet committed is still listed; binary files are not ours.
    let read = |path: &str| {
        let text = fs::read_to_string(root.join(path)).ok()?;
        Some(SourceFile {
            path: PathBuf::from(path),
            text,
        })
    };
    Ok(listed.lines().filter_map(read).collect())
}

impl SourceFile {
    fn is_rust(&self) -> bool {
        self.path
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    /// Tells whether the whole file is tests.
    fn is_test(&self) -> bool {
        self.path.starts_with("tests/tests")
            || self
                .path
                .components()
                .any(|part| part.as_os_str() == "tests.rs")
    }

    fn is_below(&self, folder: impl AsRef<Path>) -> bool {
        self.path.starts_with(folder)
    }

    fn error(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            place: self.place(line),
            message: message.into(),
            is_error: true,
        }
    }

    fn warning(&self, line: usize, message: impl Into<String>) -> Finding {
        Finding {
            place: self.place(line),
            message: message.into(),
            is_error: false,
        }
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}
