//! Traffic classes become a table of prefixes of ports, and what pods and blocks say of themselves.

use std::collections::BTreeMap;

use slice_common::address::Port;
use slice_common::layout::{Class, ClassKey};

use super::ports::prefixes;
use crate::image::{Names, Prefixed};
use crate::model::{self, Labels, ValidatedSlice};

pub(super) const DEFAULT_NAME: &str = "default";

/// Adds the entries of one slice; validation made sure that matches do not overlap.
pub(super) fn add_slice(
    slice: &ValidatedSlice,
    names: &mut Names,
    classes: &mut BTreeMap<Prefixed<ClassKey>, Class>,
) {
    let number = slice.id.number();
    names.classes.insert((number, 0), DEFAULT_NAME.to_owned());
    for (class_number, class) in (1u8..).zip(&slice.classes) {
        names
            .classes
            .insert((number, class_number), class.name.clone());
        let value = numbered(slice, class_number);
        for traffic in &class.traffic {
            for prefix in prefixes(traffic.first_port, traffic.last_port) {
                let prefix_bits = match prefix.bits {
                    0 => ClassKey::BITS_PROTOCOL,
                    bits => ClassKey::BITS_BEFORE_PORT + bits,
                };
                let key = ClassKey {
                    slice: number,
                    protocol: traffic.protocol.number(),
                    reserved: 0,
                    port: Port::new(prefix.port).network_word(),
                };
                classes.insert(Prefixed { key, prefix_bits }, value);
            }
        }
    }
}

/// Of a pod, by its labels or its namespace.
pub(super) fn of_pod(slice: &ValidatedSlice, namespace: &str, labels: &Labels) -> Class {
    numbered(slice, model::class_of(slice, namespace, labels))
}

/// Of whatever pod a block's addresses belong to.
pub(super) fn of_block(slice: &ValidatedSlice, namespace: &str) -> Class {
    of_pod(slice, namespace, &Labels::new())
}

fn numbered(slice: &ValidatedSlice, number: u8) -> Class {
    let listed = number.checked_sub(1);
    match listed.and_then(|at| slice.classes.get(usize::from(at))) {
        Some(class) => Class {
            class: number,
            dscp: class.dscp,
            reserved: 0,
        },
        None => Class::DEFAULT,
    }
}
