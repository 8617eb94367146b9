//! What an object must be before it leaves the build, and the figures of each of its programs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use anyhow::{Context, Result, bail, ensure};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex,
    SectionKind, SymbolKind, read::elf::ElfFile64,
};

use super::stack::{self, SLOT_BYTES};

/// The kernel's limit for a program and all functions below it (`MAX_BPF_STACK`).
const STACK_LIMIT_BYTES: u32 = 512;
/// The verifier counts each frame in steps of this size.
const STACK_FRAME_STEP_BYTES: u32 = 32;
/// Licences that the kernel takes for GPL-compatible (`license_is_gpl_compatible`).
const GPL_LICENCES: &[&str] = &[
    "GPL",
    "GPL v2",
    "Dual BSD/GPL",
    "Dual MIT/GPL",
    "Dual MPL/GPL",
];
/// Functions of other programs live here; everything in other code sections is a program.
const FUNCTIONS_SECTION: &str = ".text";

type Elf<'data> = ElfFile64<'data>;

/// The figures of one program, functions that it calls included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProgramFigures {
    /// Instruction slots of 8 bytes in the object.
    pub(crate) object_instructions: u32,
    /// Along the deepest chain of calls, each frame in the verifier's steps.
    pub(crate) stack_bytes: u32,
}

/// The figures of all programs by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectReport {
    pub(crate) programs: BTreeMap<String, ProgramFigures>,
}

impl fmt::Display for ObjectReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, figures) in &self.programs {
            let ProgramFigures {
                object_instructions,
                stack_bytes,
            } = figures;
            writeln!(
                out,
                "object: {name:<24} {object_instructions:>6} instructions \
                 {stack_bytes:>4} bytes of stack"
            )?;
        }
        Ok(())
    }
}

/// Checks an object and returns the figures of its programs.
/// # Errors  for an undefined symbol, missing BTF, another licence than the kernel wants, no
/// program, or a stack that no kernel accepts. All findings are in one error.
pub(crate) fn check(bytes: &[u8]) -> Result<ObjectReport> {
    let elf = Elf::parse(bytes).context("it is no 64-bit ELF file")?;
    let mut findings = Vec::new();
    findings.extend(undefined_symbols(&elf));
    for section in [".BTF", ".BTF.ext"] {
        if elf
            .section_by_name(section)
            .is_none_or(|found| found.size() == 0)
        {
            findings.push(format!(
                "it has no {section}: maps and timers need it (`--btf`)"
            ));
        }
    }
    findings.extend(licence_finding(&elf));
    let functions = functions(&elf)?;
    let programs = figures_of_programs(&functions)?;
    if programs.is_empty() {
        findings.push("it has no program".to_owned());
    }
    for (name, figures) in &programs {
        if figures.stack_bytes > STACK_LIMIT_BYTES {
            findings.push(format!(
                "program {name} uses {} bytes of stack, the kernel allows {STACK_LIMIT_BYTES}",
                figures.stack_bytes
            ));
        }
    }
    ensure!(findings.is_empty(), "{}", findings.join("; "));
    Ok(ObjectReport { programs })
}

fn undefined_symbols(elf: &Elf<'_>) -> Vec<String> {
    elf.symbols()
        .filter(|symbol| symbol.is_undefined())
        .filter_map(|symbol| symbol.name().ok().filter(|name| !name.is_empty()))
        .map(|name| {
            format!("symbol {name} is undefined (a reachable panic, or a function without a body)")
        })
        .collect()
}

fn licence_finding(elf: &Elf<'_>) -> Option<String> {
    let text = elf
        .section_by_name("license")
        .and_then(|section| section.data().ok())
        .map(|data| String::from_utf8_lossy(data).replace('\0', ""));
    match text {
        Some(text) if GPL_LICENCES.contains(&text.as_str()) => None,
        other => Some(format!(
            "its licence is {other:?}, the helpers that it calls want GPL"
        )),
    }
}

/// One function of the object; callees by their index in the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Function {
    name: String,
    is_program: bool,
    slots: u32,
    stack_bytes: u32,
    callees: BTreeSet<usize>,
}

/// Where a function's code is.
struct Place {
    section: SectionIndex,
    begin: u64,
    end: u64,
}

fn functions(elf: &Elf<'_>) -> Result<Vec<Function>> {
    let mut places = Vec::new();
    let mut found = Vec::new();
    for symbol in elf
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text)
    {
        let Some(section) = symbol.section_index() else {
            continue;
        };
        if symbol.size() == 0 || elf.section_by_index(section)?.kind() != SectionKind::Text {
            continue;
        }
        let end = symbol.address() + symbol.size();
        places.push(Place {
            section,
            begin: symbol.address(),
            end,
        });
        found.push(symbol.name()?.to_owned());
    }
    let mut functions = Vec::new();
    for (name, place) in found.into_iter().zip(&places) {
        let section = elf.section_by_index(place.section)?;
        let range = usize::try_from(place.begin)?..usize::try_from(place.end)?;
        let code = section
            .data()?
            .get(range)
            .with_context(|| format!("function {name} lies outside its section"))?;
        functions.push(Function {
            name,
            is_program: section.name()? != FUNCTIONS_SECTION,
            slots: u32::try_from(code.len() / SLOT_BYTES)?,
            stack_bytes: stack::depth_bytes(code),
            callees: callees(elf, place, code, &places)?,
        });
    }
    Ok(functions)
}

fn callees(
    elf: &Elf<'_>,
    caller: &Place,
    code: &[u8],
    places: &[Place],
) -> Result<BTreeSet<usize>> {
    let relocations: BTreeMap<u64, RelocationTarget> = elf
        .section_by_index(caller.section)?
        .relocations()
        .map(|(offset, relocation)| (offset, relocation.target()))
        .collect();
    let mut callees = BTreeSet::new();
    for reference in stack::references(code) {
        let at = caller.begin + (reference.slot * SLOT_BYTES) as u64;
        // Calls count instruction slots from the next slot, addresses count bytes.
        let (unit, next) = if reference.is_call { (8, 1) } else { (1, 0) };
        let displacement = (i64::from(reference.immediate) + next) * unit;
        let (section, base) = match relocations.get(&at) {
            Some(RelocationTarget::Symbol(index)) => {
                let symbol = elf.symbol_by_index(*index)?;
                let Some(section) = symbol.section_index() else {
                    continue;
                };
                (section, symbol.address())
            }
            // A map, or a constant that is no address at all.
            _ if !reference.is_call => continue,
            _ => (caller.section, at),
        };
        let target = base
            .checked_add_signed(displacement)
            .context("a call leads nowhere")?;
        let callee = places
            .iter()
            .position(|place| place.section == section && place.begin == target);
        match callee {
            Some(callee) => drop(callees.insert(callee)),
            None if reference.is_call => {
                bail!("the call at byte {at} of its section leads to no known function")
            }
            None => {}
        }
    }
    Ok(callees)
}

fn figures_of_programs(functions: &[Function]) -> Result<BTreeMap<String, ProgramFigures>> {
    let mut programs = BTreeMap::new();
    for (index, function) in functions.iter().enumerate().filter(|(_, f)| f.is_program) {
        let mut reached = BTreeSet::new();
        let mut chain = Vec::new();
        let stack_bytes = deepest_chain(functions, index, &mut reached, &mut chain)?;
        let object_instructions = reached.iter().map(|&index| functions[index].slots).sum();
        let figures = ProgramFigures {
            object_instructions,
            stack_bytes,
        };
        programs.insert(function.name.clone(), figures);
    }
    Ok(programs)
}

fn deepest_chain(
    functions: &[Function],
    index: usize,
    reached: &mut BTreeSet<usize>,
    chain: &mut Vec<usize>,
) -> Result<u32> {
    let function = &functions[index];
    ensure!(
        !chain.contains(&index),
        "function {} calls itself",
        function.name
    );
    reached.insert(index);
    chain.push(index);
    let mut below = 0;
    for &callee in &function.callees {
        below = below.max(deepest_chain(functions, callee, reached, chain)?);
    }
    chain.pop();
    // A frame without any stack still counts as one step.
    Ok(below
        + function
            .stack_bytes
            .max(1)
            .next_multiple_of(STACK_FRAME_STEP_BYTES))
}

#[cfg(test)]
mod tests;
