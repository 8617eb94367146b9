//! What a function of an object uses: stack and callees, read from its instructions alone.

use std::collections::BTreeMap;

/// Bytes of one instruction slot; a 64-bit immediate takes two.
pub(super) const SLOT_BYTES: usize = 8;
const FRAME_POINTER: u8 = 10;

const CLASS_MASK: u8 = 0x07;
const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const CLASS_ALU64: u8 = 0x07;
const CLASS_ALU32: u8 = 0x04;
const MOV64_REGISTER: u8 = 0xbf;
const ADD64_IMMEDIATE: u8 = 0x07;
const CALL: u8 = 0x85;
const LOAD_IMMEDIATE_64: u8 = 0x18;
/// `src` of a call to a function of the object rather than to a helper.
const PSEUDO_CALL: u8 = 1;
/// `src` of a 64-bit load of a function's address (callbacks of timers and loops).
const PSEUDO_FUNCTION: u8 = 4;

/// One decoded instruction slot.
#[derive(Clone, Copy)]
struct Instruction {
    opcode: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

/// A place where a function refers to another function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reference {
    /// The slot, counted from the function's begin.
    pub(super) slot: usize,
    pub(super) immediate: i32,
    /// A 64-bit load may also be of a map; only its relocation tells.
    pub(super) is_call: bool,
}

/// Returns the deepest byte below the frame pointer that the code touches.
///
/// Follows copies of the frame pointer (`r2 = r10; r2 += -56`) in program order. That is what
/// compilers emit; the verifier's own figure on a real kernel is compared as well.
pub(super) fn depth_bytes(code: &[u8]) -> u32 {
    let mut deepest = 0_i64;
    // Registers that hold the frame pointer plus a constant.
    let mut frame_offsets = BTreeMap::from([(FRAME_POINTER, 0_i64)]);
    for instruction in instructions(code) {
        let class = instruction.opcode & CLASS_MASK;
        let base = match class {
            CLASS_LDX => frame_offsets.get(&instruction.source),
            CLASS_ST | CLASS_STX => frame_offsets.get(&instruction.destination),
            _ => None,
        };
        if let Some(base) = base {
            deepest = deepest.min(base + i64::from(instruction.offset));
        }
        let written = match (instruction.opcode, class) {
            (MOV64_REGISTER, _) => frame_offsets.get(&instruction.source).copied(),
            (ADD64_IMMEDIATE, _) => frame_offsets
                .get(&instruction.destination)
                .map(|offset| offset + i64::from(instruction.immediate)),
            (_, CLASS_ALU64 | CLASS_ALU32 | CLASS_LDX) => None,
            _ => continue,
        };
        if instruction.destination == FRAME_POINTER {
            continue;
        }
        match written {
            Some(offset) => {
                deepest = deepest.min(offset);
                frame_offsets.insert(instruction.destination, offset);
            }
            None => {
                frame_offsets.remove(&instruction.destination);
            }
        }
    }
    u32::try_from(-deepest).unwrap_or(u32::MAX)
}

/// Returns where the code refers to other functions.
pub(super) fn references(code: &[u8]) -> Vec<Reference> {
    instructions(code)
        .enumerate()
        .filter_map(|(slot, instruction)| {
            let is_call = instruction.opcode == CALL && instruction.source == PSEUDO_CALL;
            let is_address = instruction.opcode == LOAD_IMMEDIATE_64
                && (instruction.source == PSEUDO_FUNCTION || instruction.source == 0);
            (is_call || is_address).then_some(Reference {
                slot,
                immediate: instruction.immediate,
                is_call,
            })
        })
        .collect()
}

fn instructions(code: &[u8]) -> impl Iterator<Item = Instruction> + '_ {
    let mut second_half = false;
    code.chunks_exact(SLOT_BYTES).map(move |slot| {
        // The second half of a 64-bit immediate is data, with an opcode of 0.
        let opcode = if second_half { 0 } else { slot[0] };
        second_half = !second_half && opcode == LOAD_IMMEDIATE_64;
        Instruction {
            opcode,
            destination: slot[1] & 0x0f,
            source: slot[1] >> 4,
            offset: i16::from_le_bytes([slot[2], slot[3]]),
            immediate: i32::from_le_bytes([slot[4], slot[5], slot[6], slot[7]]),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(slots: &[[u8; 8]]) -> Vec<u8> {
        slots.concat()
    }

    /// `*(u64 *)(r10 - 24) = r1`
    const STORE_AT_24: [u8; 8] = [0x7b, 0x1a, 0xe8, 0xff, 0, 0, 0, 0];
    /// `r2 = r10`
    const COPY_FRAME_POINTER: [u8; 8] = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0];
    /// `r2 += -56`
    const ADD_MINUS_56: [u8; 8] = [0x07, 0x02, 0, 0, 0xc8, 0xff, 0xff, 0xff];
    /// `*(u32 *)(r2 - 8) = 0`
    const STORE_BELOW_COPY: [u8; 8] = [0x62, 0x02, 0xf8, 0xff, 0, 0, 0, 0];
    /// `r2 = *(u64 *)(r1 + 0)`
    const OVERWRITE_COPY: [u8; 8] = [0x79, 0x12, 0, 0, 0, 0, 0, 0];
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_function_without_stack_has_depth_0() {
        assert_eq!(depth_bytes(&code(&[EXIT])), 0);
    }

    #[test]
    fn a_store_below_the_frame_pointer_counts() {
        assert_eq!(depth_bytes(&code(&[STORE_AT_24, EXIT])), 24);
    }

    #[test]
    fn an_address_below_the_frame_pointer_counts_as_helpers_write_there() {
        let program = code(&[STORE_AT_24, COPY_FRAME_POINTER, ADD_MINUS_56, EXIT]);

        assert_eq!(depth_bytes(&program), 56);
    }

    #[test]
    fn an_access_by_a_copy_adds_both_offsets() {
        let program = code(&[COPY_FRAME_POINTER, ADD_MINUS_56, STORE_BELOW_COPY, EXIT]);

        assert_eq!(depth_bytes(&program), 64);
    }

    #[test]
    fn an_overwritten_copy_is_no_stack_address_any_more() {
        let program = code(&[
            COPY_FRAME_POINTER,
            OVERWRITE_COPY,
            ADD_MINUS_56,
            STORE_BELOW_COPY,
            EXIT,
        ]);

        assert_eq!(depth_bytes(&program), 0);
    }

    #[test]
    fn helpers_are_no_references_and_data_is_no_code() {
        let helper = [CALL, 0, 0, 0, 5, 0, 0, 0];
        let function = [CALL, PSEUDO_CALL << 4, 0, 0, 0xff, 0xff, 0xff, 0xff];
        let wide_load = [LOAD_IMMEDIATE_64, 0x01, 0, 0, 7, 0, 0, 0];
        let wide_data = [CALL, PSEUDO_CALL << 4, 0, 0, 9, 0, 0, 0];

        let found = references(&code(&[helper, function, wide_load, wide_data, EXIT]));

        assert_eq!(
            found,
            [
                Reference {
                    slot: 1,
                    immediate: -1,
                    is_call: true
                },
                Reference {
                    slot: 2,
                    immediate: 7,
                    is_call: false
                },
            ]
        );
    }
}
