//! The maps: names, keys, values and capacities. The kernel programs and the agent compile the same
//! definitions, so both refuse to build when a layout changes and its version does not.
//!
//! Rules for a layout: `repr(C)`, no implicit padding, no `bool`, no enum, no `Option`; addresses and
//! ports are in network order.

mod counters;
mod delivery;
mod fingerprint;
mod flows;
mod maps;
mod outside;
mod paths;
mod policy;
mod shaper;

pub use counters::{Counter, CounterKey, Direction, DropKey};
pub use delivery::{
    Endpoint, LocalEndpoint, LocalKey, NewExchangesKey, ReplyKey, Route, RouteKey, RouteKind,
    Settings, Slice,
};
pub use flows::{Door, FLOW_WORDS, Flow, FlowKey};
pub use maps::{CalledProgram, Capacity, MAPS, MapKind, MapSpec, Writer};
pub use outside::{OutsideEntry, OutsideKey, OutsideWay};
pub use paths::{
    Encapsulation, LearntMtu, Path, PathEnds, PathGroup, PathHealth, Peer, Probes, SentProbe,
};
pub use policy::{
    Class, ClassKey, FirstFragment, FragmentKey, PolicyEntry, PolicyKey, PolicyVerdict,
};
pub use shaper::{
    ClassClocks, FlowClocks, QueueClass, ShaperBackend, ShaperClass, ShaperCounts, ShaperKey,
    ShaperLoan, ShaperPlace, ShaperTerms, SliceClocks, UplinkClocks,
};

/// Names the pin directory. Raise it when [`FINGERPRINT`] changes: an agent of another layout then
/// starts with its own maps instead of misreading these.
pub const LAYOUT_VERSION: u32 = 10;

/// What the layouts of [`LAYOUT_VERSION`] hash to.
pub const FINGERPRINT: u64 = 151_650_081_804_353_037;

// A changed layout fails here, and the compiler's message has the new value: raise LAYOUT_VERSION and
// put it into FINGERPRINT.
const _: [(); FINGERPRINT as usize] = [(); fingerprint::of_all_layouts() as usize];

/// What the fingerprint is made of for one layout.
pub(crate) struct Shape {
    bytes: usize,
    /// Name, offset and size of each field.
    fields: &'static [(&'static str, usize, usize)],
}

/// Declares a map key or value and refuses implicit padding. Describes it for the fingerprint, and
/// marks the type as plain data for aya in user space.
macro_rules! layout {
    ($(#[$doc:meta])* pub struct $name:ident : $size:literal {
        $($(#[$field_doc:meta])* pub $field:ident : $type:ty,)*
    }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            pub(crate) const SHAPE: crate::layout::Shape = crate::layout::Shape {
                bytes: size_of::<Self>(),
                fields: &[$((
                    stringify!($field),
                    core::mem::offset_of!(Self, $field),
                    size_of::<$type>(),
                ),)*],
            };
        }

        const _: () = assert!(size_of::<$name>() == $size, "size differs from the declared one");
        const _: () = assert!(0 $(+ size_of::<$type>())* == $size, "the layout has padding");

        // SAFETY: `repr(C)`, no padding (asserted above), every field is an integer, an array of
        // integers or a transparent wrapper of one, so every bit pattern is a value.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $name {}
    };
}
pub(crate) use layout;
