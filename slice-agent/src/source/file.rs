//! A YAML file, or a folder of them.

use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::budget::Budget;
pub use super::budget::{DEPTH_MAX, VALUES_MAX};
use super::yaml;
use crate::model::unchecked::Document;
use crate::model::{ConfigError, Place, Problem};

/// The most that is read, of one file and of a folder in all.
pub const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The most files that are read of a folder.
pub const FILES_MAX: usize = 1000;

/// A file, or a folder of `*.yaml` and `*.yml` files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
}

/// The bytes of a configuration. Equal bytes mean that nothing needs to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Source {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Reads everything, files of a folder in the order of their names; hidden files are left out,
    /// because editors and Kubernetes keep half-written ones beside the real.
    ///
    /// # Errors
    /// Whatever cannot be read, is too large or no regular file, or is a folder without YAML or with
    /// too many files.
    pub fn read(&self) -> Result<Texts, Vec<ConfigError>> {
        let paths = self.paths()?;
        let mut files = Vec::new();
        let mut errors = Vec::new();
        let mut left = BYTES_MAX;
        for path in paths {
            match read_file(&path, left) {
                Ok(bytes) => {
                    left = left.saturating_sub(bytes.len() as u64);
                    files.push((path, bytes));
                }
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(Texts { files })
        } else {
            Err(errors)
        }
    }

    fn paths(&self) -> Result<Vec<PathBuf>, Vec<ConfigError>> {
        let unreadable = |error| vec![unreadable(&self.path, &error)];
        if !fs::metadata(&self.path).map_err(unreadable)?.is_dir() {
            return Ok(vec![self.path.clone()]);
        }
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            if is_yaml(&path) {
                paths.push(path);
            }
            if paths.len() > FILES_MAX {
                let problem = Problem::TooManyFiles { limit: FILES_MAX };
                return Err(vec![place_of(&self.path).error(problem)]);
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(vec![place_of(&self.path).error(Problem::NoFiles)]);
        }
        Ok(paths)
    }
}

impl Texts {
    /// Turns the bytes into documents.
    ///
    /// # Errors
    /// Every document that is no YAML or has not the shape of its kind, and files without any.
    pub fn parse(&self) -> Result<Vec<Document>, Vec<ConfigError>> {
        let mut documents = Vec::new();
        let mut errors = Vec::new();
        let mut budget = Budget::new();
        for (path, bytes) in &self.files {
            yaml::parse(
                &path.display().to_string(),
                bytes,
                &mut budget,
                &mut documents,
                &mut errors,
            );
        }
        if errors.is_empty() {
            Ok(documents)
        } else {
            Err(errors)
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml"))
}

fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, ConfigError> {
    let unreadable = |error| unreadable(path, &error);
    // Asked before the file is opened, because opening alone does something to some devices.
    regular(path, fs::metadata(path).map_err(unreadable)?.file_type())?;
    let file = open(path).map_err(unreadable)?;
    // Asked again of what was opened: it may have taken the place of the first.
    regular(path, file.metadata().map_err(unreadable)?.file_type())?;
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    let read = bytes.len() as u64;
    if read > limit {
        let problem = Problem::TooLarge {
            bytes: BYTES_MAX - limit + read,
            limit: BYTES_MAX,
        };
        return Err(place_of(path).error(problem));
    }
    Ok(bytes)
}

/// Opening a FIFO waits for a writer, reading some devices waits for ever: not with `O_NONBLOCK`.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
}

fn regular(path: &Path, file_type: FileType) -> Result<(), ConfigError> {
    let kind = match file_type {
        regular if regular.is_file() => return Ok(()),
        folder if folder.is_dir() => "a folder",
        fifo if fifo.is_fifo() => "a FIFO",
        socket if socket.is_socket() => "a socket",
        _ => "a device",
    };
    Err(place_of(path).error(Problem::NotAFile(kind)))
}

fn unreadable(path: &Path, error: &io::Error) -> ConfigError {
    place_of(path).error(Problem::Unreadable(error.to_string()))
}

fn place_of(path: &Path) -> Place {
    Place::of_file(&path.display().to_string())
}
