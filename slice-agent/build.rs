//! Embeds the object with the kernel programs, if `SLICE_EBPF_OBJ` names one; else an empty stub, so
//! that the agent compiles where nothing for the kernel can be built. Only the variable counts, never
//! a file that happens to lie in the target folder: what a binary holds is then known from its build.

use std::env;
use std::fs;
use std::path::PathBuf;

const OBJECT: &str = "SLICE_EBPF_OBJ";

fn main() {
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let Some(out_dir) = env::var_os("OUT_DIR") else {
        panic!("OUT_DIR is not set: run this build script by cargo");
    };
    let embedded = PathBuf::from(out_dir).join("slice-ebpf.o");
    let bytes = match env::var_os(OBJECT).filter(|name| !name.is_empty()) {
        Some(object) => {
            println!("cargo::rerun-if-changed={}", object.display());
            match fs::read(&object) {
                Ok(bytes) => bytes,
                Err(error) => panic!("{OBJECT}={}: {error}", object.display()),
            }
        }
        None => Vec::new(),
    };
    if let Err(error) = fs::write(&embedded, bytes) {
        panic!("{}: {error}", embedded.display());
    }
}
