//! One number that changes when any layout does, or the meaning of a number in one.

use super::*;

/// Numbers that both sides write into the maps or read from them. Drop reasons are not among them: a
/// new one changes nothing for those who do not know it, and old ones are never reused.
const NUMBERS: &[u32] = &[
    Endpoint::ISOLATED,
    Endpoint::CONFINED,
    LocalEndpoint::BY_STACK as u32,
    OutsideWay::In.number() as u32,
    OutsideWay::Out.number() as u32,
    OutsideKey::BITS_BEFORE_ADDRESS,
    OutsideKey::BITS,
    Settings::GATEWAY as u32,
    CalledProgram::UnderlayTransit.number(),
    CalledProgram::UnderlayProbe.number(),
    CalledProgram::WanEgress.number(),
    Settings::SHAPES as u32,
    ShaperBackend::Vq.number(),
    ShaperBackend::Edt.number(),
    ShaperBackend::Htb.number(),
    QueueClass::TREE as u32,
    QueueClass::Slice(0).minor() as u32,
    QueueClass::Class(0).minor() as u32,
    QueueClass::Front(0).minor() as u32,
    QueueClass::Back(0).minor() as u32,
    ShaperKey::BITS,
    Peer::WATCHED,
    Peer::FELLOW,
    Peer::SAME_CLUSTER,
    ReplyKey::OUTSIDE,
    RouteKind::Local.number() as u32,
    RouteKind::Via.number() as u32,
    RouteKind::Unreachable.number() as u32,
    Encapsulation::Vxlan.number(),
    Direction::Out.number() as u32,
    Direction::In.number() as u32,
    Direction::Local.number() as u32,
    Direction::Transit.number() as u32,
    PolicyVerdict::Allow.number(),
    PolicyVerdict::Deny.number(),
    PolicyKey::BITS_SLICE,
    PolicyKey::BITS_NAMESPACES,
    PolicyKey::BITS_PROTOCOL,
    PolicyKey::BITS_BEFORE_PORT,
    PolicyKey::BITS,
    ClassKey::BITS_SLICE,
    ClassKey::BITS_PROTOCOL,
    ClassKey::BITS_BEFORE_PORT,
    ClassKey::BITS,
];

/// FNV-1a (64 bits) over every layout's fields, every map, and every number with a meaning.
pub(super) const fn of_all_layouts() -> u64 {
    let shapes = [
        Endpoint::SHAPE,
        LocalKey::SHAPE,
        LocalEndpoint::SHAPE,
        RouteKey::SHAPE,
        Route::SHAPE,
        Slice::SHAPE,
        Settings::SHAPE,
        ReplyKey::SHAPE,
        NewExchangesKey::SHAPE,
        Peer::SHAPE,
        PathGroup::SHAPE,
        Path::SHAPE,
        PathEnds::SHAPE,
        LearntMtu::SHAPE,
        PathHealth::SHAPE,
        SentProbe::SHAPE,
        Probes::SHAPE,
        PolicyKey::SHAPE,
        PolicyEntry::SHAPE,
        ClassKey::SHAPE,
        OutsideKey::SHAPE,
        OutsideEntry::SHAPE,
        Class::SHAPE,
        FragmentKey::SHAPE,
        FirstFragment::SHAPE,
        FlowKey::SHAPE,
        Flow::SHAPE,
        CounterKey::SHAPE,
        Counter::SHAPE,
        DropKey::SHAPE,
        ShaperKey::SHAPE,
        ShaperClass::SHAPE,
        ShaperTerms::SHAPE,
        ShaperLoan::SHAPE,
        UplinkClocks::SHAPE,
        SliceClocks::SHAPE,
        ClassClocks::SHAPE,
        FlowClocks::SHAPE,
        ShaperCounts::SHAPE,
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < shapes.len() {
        hash = shape(hash, &shapes[i]);
        i += 1;
    }
    let mut i = 0;
    while i < NUMBERS.len() {
        hash = numbers(hash, &[NUMBERS[i] as usize]);
        i += 1;
    }
    let mut i = 0;
    while i < MAPS.len() {
        let map = &MAPS[i];
        hash = bytes(hash, map.name.as_bytes());
        hash = numbers(
            hash,
            &[
                map.kind as usize,
                map.key_bytes,
                map.value_bytes,
                map.capacity,
            ],
        );
        i += 1;
    }
    hash
}

const fn shape(mut hash: u64, shape: &Shape) -> u64 {
    hash = numbers(hash, &[shape.bytes]);
    let mut i = 0;
    while i < shape.fields.len() {
        let (name, offset, size) = shape.fields[i];
        hash = bytes(hash, name.as_bytes());
        hash = numbers(hash, &[offset, size]);
        i += 1;
    }
    hash
}

const fn numbers(mut hash: u64, numbers: &[usize]) -> u64 {
    let mut i = 0;
    while i < numbers.len() {
        hash = bytes(hash, &(numbers[i] as u64).to_le_bytes());
        i += 1;
    }
    hash
}

const fn bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    hash
}
