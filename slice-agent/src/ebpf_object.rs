//! The object file with the kernel programs: embedded at build time or given by `--ebpf-object`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/slice-ebpf.o"));

/// Reads the object from `file`, or returns the embedded one.
pub fn read(file: Option<&Path>) -> Result<Vec<u8>> {
    let bytes = match file {
        Some(file) => fs::read(file).with_context(|| {
            format!(
                "cannot read the kernel programs from {} (--ebpf-object)",
                file.display()
            )
        })?,
        None => EMBEDDED.to_vec(),
    };
    check(&bytes, file)?;
    Ok(bytes)
}

fn check(bytes: &[u8], file: Option<&Path>) -> Result<()> {
    if bytes.starts_with(b"\x7fELF") {
        return Ok(());
    }
    match file {
        Some(file) => bail!(
            "{} is not an ELF object; `cargo xtask build` writes the right one to \
             target/bpf/slice-ebpf.o",
            file.display()
        ),
        None => bail!(
            "this slice-agent was built without the kernel programs; give their object with \
             --ebpf-object FILE, or build both together with `cargo xtask build`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_names_both_ways_out() {
        let message = check(&[], None).unwrap_err().to_string();
        assert!(message.contains("--ebpf-object"), "{message}");
        assert!(message.contains("cargo xtask build"), "{message}");
    }

    #[test]
    fn a_file_that_is_no_object_is_named() {
        let message = check(b"hello", Some(Path::new("notes.txt")))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("notes.txt is not an ELF object"),
            "{message}"
        );
        assert!(check(b"\x7fELF...", Some(Path::new("programs.o"))).is_ok());
    }
}
