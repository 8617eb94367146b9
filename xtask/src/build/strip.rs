//! Removes DWARF from an object and keeps BTF: a ninth of the size, and verifier logs still have
//! source lines. Done here so that no distribution's LLVM is needed.

use anyhow::{Context, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf::SHT_STRTAB,
};

/// Returns the object without its debug sections, their relocations and their symbols.
/// # Errors  when `bytes` is no ELF object.
pub(super) fn debug_information(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut object = Builder::read(bytes).context("the object is no ELF file")?;
    let debug: Vec<_> = object
        .sections
        .iter()
        .filter(|section| section.name.starts_with(b".debug_"))
        .map(object::build::elf::Section::id)
        .collect();
    for section in &mut object.sections {
        let relocates_debug = section
            .sh_info_section
            .is_some_and(|target| debug.contains(&target));
        let is_relocation = matches!(section.data, SectionData::Relocation(_));
        if debug.contains(&section.id()) || (is_relocation && relocates_debug) {
            section.delete = true;
        }
    }
    object.delete_orphan_symbols();
    object.delete_orphan_relocations();
    name_sections_apart(&mut object);
    let mut stripped = Vec::new();
    object
        .write(&mut stripped)
        .context("cannot write the stripped object")?;
    Ok(stripped)
}

/// LLVM puts the names of sections and of symbols into one table; the writer wants two.
fn name_sections_apart(object: &mut Builder<'_>) {
    let has_own_table = object
        .sections
        .iter()
        .any(|section| matches!(section.data, SectionData::SectionString));
    if !has_own_table {
        let table = object.sections.add();
        table.name = b".shstrtab".as_slice().into();
        table.sh_type = SHT_STRTAB;
        table.sh_addralign = 1;
        table.data = SectionData::SectionString;
    }
}
