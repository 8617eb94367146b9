//! Objects made by hand, each with one fault.

use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope, elf,
    write::{Object, Relocation, StandardSegment, Symbol, SymbolSection},
};

use super::*;

const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
/// `*(u64 *)(r10 - 40) = r1`
const STORE_AT_40: [u8; 8] = [0x7b, 0x1a, 0xd8, 0xff, 0, 0, 0, 0];
/// `call` of another function, by relocation.
const CALL_BY_RELOCATION: [u8; 8] = [0x85, 0x10, 0, 0, 0xff, 0xff, 0xff, 0xff];

/// An object with the program `pod_egress` (three slots, 40 bytes of stack) that calls the function
/// `helper` (two slots, 40 bytes of stack).
fn sound_object() -> Object<'static> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let helper = function(&mut object, ".text", "helper", &[STORE_AT_40, EXIT]);
    let program = function(
        &mut object,
        "classifier",
        "pod_egress",
        &[STORE_AT_40, CALL_BY_RELOCATION, EXIT],
    );
    let section = object.symbol(program).section.id().unwrap();
    let relocation = Relocation {
        offset: 8,
        symbol: helper,
        addend: 0,
        flags: RelocationFlags::Elf {
            r_type: elf::R_BPF_64_32,
        },
    };
    object.add_relocation(section, relocation).unwrap();
    data(&mut object, "license", b"GPL\0");
    data(&mut object, ".BTF", b"types");
    data(&mut object, ".BTF.ext", b"lines");
    object
}

fn function(
    object: &mut Object<'static>,
    section: &str,
    name: &str,
    slots: &[[u8; 8]],
) -> object::write::SymbolId {
    let segment = object.segment_name(StandardSegment::Text).to_vec();
    let section = object.add_section(segment, section.into(), SectionKind::Text);
    let code = slots.concat();
    object.append_section_data(section, &code, 8);
    symbol(
        object,
        name,
        code.len() as u64,
        SymbolSection::Section(section),
    )
}

fn data(object: &mut Object<'static>, section: &str, content: &[u8]) {
    let section = object.add_section(Vec::new(), section.into(), SectionKind::ReadOnlyData);
    object.append_section_data(section, content, 1);
}

fn symbol(
    object: &mut Object<'static>,
    name: &str,
    size: u64,
    section: SymbolSection,
) -> object::write::SymbolId {
    object.add_symbol(Symbol {
        name: name.into(),
        value: 0,
        size,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section,
        flags: SymbolFlags::None,
    })
}

fn refusal(object: &Object<'static>) -> String {
    format!("{:#}", check(&object.write().unwrap()).unwrap_err())
}

#[test]
fn a_program_counts_with_the_functions_it_calls() {
    let report = check(&sound_object().write().unwrap()).unwrap();

    let figures = ProgramFigures {
        object_instructions: 5,
        stack_bytes: 128,
    };
    assert_eq!(
        report.programs,
        BTreeMap::from([("pod_egress".to_owned(), figures)])
    );
}

#[test]
fn an_undefined_symbol_is_named() {
    let mut object = sound_object();
    symbol(
        &mut object,
        "slice_ebpf_panic_reached",
        0,
        SymbolSection::Undefined,
    );

    assert!(refusal(&object).contains("slice_ebpf_panic_reached is undefined"));
}

#[test]
fn an_object_without_btf_and_without_licence_gets_all_findings_at_once() {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    function(&mut object, "classifier", "pod_egress", &[EXIT]);
    let found = refusal(&object);

    for expected in ["no .BTF:", "no .BTF.ext:", "licence is None"] {
        assert!(found.contains(expected), "{expected} is not in: {found}");
    }
}

#[test]
fn a_licence_that_the_kernel_does_not_take_for_gpl_is_refused() {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    function(&mut object, "classifier", "pod_egress", &[EXIT]);
    data(&mut object, "license", b"Apache-2.0\0");

    assert!(refusal(&object).contains("licence is Some(\"Apache-2.0\")"));
}

#[test]
fn more_stack_than_the_kernel_has_is_refused() {
    let mut object = sound_object();
    // *(u64 *)(r10 - 520) = r1
    let deep = [0x7b, 0x1a, 0xf8, 0xfd, 0, 0, 0, 0];
    function(&mut object, "classifier/deep", "deep", &[deep, EXIT]);

    assert!(refusal(&object).contains("program deep uses 544 bytes of stack"));
}

#[test]
fn an_object_without_a_program_is_refused() {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    data(&mut object, "license", b"GPL\0");

    assert!(refusal(&object).contains("it has no program"));
}
