//! The file that `--json FILE` names: known to be writable before anything starts, and never half
//! written.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

/// A file for figures that can be written.
#[derive(Clone, Debug)]
pub struct JsonFile {
    path: PathBuf,
    /// A device or pipe: nothing may take its place.
    is_special: bool,
}

impl JsonFile {
    /// Makes sure that the file can be written, and leaves what is in it.
    /// # Errors  when it cannot; the sentence names the file.
    pub fn checked(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = match fs::metadata(path) {
            Ok(found) if found.is_dir() => {
                bail!("--json {shown}: that is a folder; name a file in it")
            }
            Ok(found) => Self {
                path: fs::canonicalize(path)?,
                is_special: !found.is_file(),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Self {
                path: std::path::absolute(path)?,
                is_special: false,
            },
            Err(error) => return Err(error).with_context(|| format!("--json {shown}")),
        };
        file.check().with_context(|| {
            format!(
                "--json {shown}: cannot write there; name a file in a folder that you can write"
            )
        })?;
        Ok(file)
    }

    /// Writes the whole value, or leaves what there was: aside first, then renamed.
    pub fn write(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)? + "\n";
        let write = || match self.is_special {
            true => fs::File::options()
                .write(true)
                .open(&self.path)?
                .write_all(text.as_bytes()),
            false => {
                fs::write(self.aside(), &text).and_then(|()| fs::rename(self.aside(), &self.path))
            }
        };
        write().with_context(|| format!("cannot write the figures to {}", self.path.display()))
    }

    /// The name of a file beside it, with another extension; none beside a device or pipe.
    pub fn beside(&self, extension: &str) -> Option<PathBuf> {
        (!self.is_special).then(|| self.path.with_extension(extension))
    }

    fn check(&self) -> std::io::Result<()> {
        if self.is_special {
            return Ok(());
        }
        fs::write(self.aside(), "")?;
        fs::remove_file(self.aside())
    }

    fn aside(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_named_before_anything_starts() {
        let folder = tempfile::tempdir().unwrap();
        let said = |path: &Path| format!("{:#}", JsonFile::checked(path).unwrap_err());

        let missing = said(&folder.path().join("no/such/folder.json"));
        assert!(missing.contains("no/such/folder.json"), "{missing}");
        assert!(missing.contains("No such file"), "{missing}");
        assert!(said(folder.path()).contains("that is a folder"));
    }

    #[test]
    fn what_is_there_stays_until_it_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("figures.json");
        fs::write(&path, "old").unwrap();

        let file = JsonFile::checked(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        file.write(&[1, 2]).unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "[\n  1,\n  2\n]\n");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing aside");
        let picture = file.beside("qos.svg").unwrap();
        assert_eq!(picture.file_name().unwrap(), "figures.qos.svg");
    }

    #[test]
    fn a_device_is_written_to_and_stays_a_device() {
        let file = JsonFile::checked(Path::new("/dev/null")).unwrap();
        file.write(&0).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        assert_eq!(file.beside("svg"), None);
    }
}
