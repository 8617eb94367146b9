//! Who packets are from and for.

use crate::fuzz::places::{self, FELLOW, HALF_ATTACHED, NOT_ENTITLED, THIN, UPSTAIRS, WIDE};
use crate::fuzz::tables::Tables;
use crate::packet::Mac;
use crate::testrun::actors::*;

/// A test run takes no more than a page with its overhead.
const TEST_RUN_BYTES_MAX: usize = 3500;

/// A pod that sends, and that is sent to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speaker {
    pub(crate) device: &'static str,
    pub(crate) mac: Mac,
    pub(crate) pod_address: [u8; 4],
    pub(crate) slice_address: [u8; 4],
    pub(crate) slice: u32,
    /// The underlay address of its node.
    pub(crate) node: [u8; 4],
}

/// A slice address behind a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distant {
    pub(crate) slice: u32,
    pub(crate) node: [u8; 4],
    pub(crate) address: [u8; 4],
}

/// Everybody. Who stands in a list more than once is chosen more often.
#[derive(Clone, Debug)]
pub(crate) struct Cast {
    pub(crate) speakers: Vec<Speaker>,
    pub(crate) distant: Vec<Distant>,
    /// Slice addresses of pods whose node is under test.
    pub(crate) near: Vec<[u8; 4]>,
    /// Nodes, and one that may not deliver what its neighbours may.
    pub(crate) peers: Vec<[u8; 4]>,
    pub(crate) not_entitled: [u8; 4],
    /// In no slice.
    pub(crate) outside: Vec<[u8; 4]>,
    /// Who sends to pods by their own address.
    pub(crate) callers: Vec<[u8; 4]>,
    /// Addresses worth sending to: of everybody, and around the edges of every block.
    pub(crate) addresses: Vec<[u8; 4]>,
    pub(crate) devices: Vec<&'static str>,
    /// Slices to name in tunnels, and one that has addresses of another.
    pub(crate) slices: Vec<u32>,
    pub(crate) overlapping: u32,
    pub(crate) frame_bytes_max: usize,
}

impl Cast {
    /// The node of the scenes with its oddities.
    pub(crate) fn of_test_runs(tables: &Tables) -> Self {
        let kafka_0 = speaker(&KAFKA_0);
        let others = [ANALYTICS_2, WEB_0, NATIVE_0, HALF_ATTACHED];
        let others = others.iter().map(speaker);
        let peers = [EAST_2, WEST_1, EDGE_1, WIDE, THIN];
        Self {
            speakers: [kafka_0; 3].into_iter().chain(others).collect(),
            distant: distant(),
            near: PODS.map(|pod| pod.slice_address).to_vec(),
            peers: peers
                .iter()
                .map(|node| node.address)
                .chain([FELLOW])
                .collect(),
            not_entitled: NOT_ENTITLED,
            outside: vec![INTERNET, STRANGER, EAST_1, NAME_SERVER, CLOCK],
            callers: vec![INTERNET, STRANGER, EAST_1, EAST_1_POD_SIDE, KAFKA_1],
            addresses: addresses(tables),
            devices: super::DEVICES.to_vec(),
            slices: vec![KAFKA.id, SHOP.id, NATIVE.id, UPSTAIRS.id, 0, 99, 0x1f_ffff],
            overlapping: UPSTAIRS.id,
            frame_bytes_max: TEST_RUN_BYTES_MAX,
        }
    }
}

fn speaker(pod: &Pod) -> Speaker {
    Speaker {
        device: pod.device,
        mac: pod.mac,
        pod_address: pod.pod_address,
        slice_address: pod.slice_address,
        slice: pod.slice.id,
        node: EAST_1,
    }
}

fn distant() -> Vec<Distant> {
    let everywhere = [
        (KAFKA, WEST_1, KAFKA_1),
        (KAFKA, WEST_1, ANALYTICS_0),
        (KAFKA, EDGE_1, KAFKA_2),
        (KAFKA, EAST_2, ANALYTICS_1),
        (KAFKA, WIDE, [10, 77, 163, 1]),
        (KAFKA, THIN, [10, 77, 165, 6]),
        (SHOP, WEST_1, WEB_2),
        (NATIVE, WEST_1, NATIVE_1),
    ];
    let distant = everywhere.map(|(slice, node, address)| Distant {
        slice: slice.id,
        node: node.address,
        address,
    });
    distant.to_vec()
}

fn addresses(tables: &Tables) -> Vec<[u8; 4]> {
    let mut addresses = places::edges(tables);
    addresses.extend(PODS.map(|pod| pod.pod_address));
    addresses.extend(PODS.map(|pod| pod.slice_address));
    addresses.extend([
        INTERNET,
        STRANGER,
        EAST_1,
        EAST_1_POD_SIDE,
        NOBODY,
        VACANT_HERE,
    ]);
    addresses.extend(NOWHERE);
    addresses
}

/// Addresses that are nobody's anywhere.
pub(crate) const NOWHERE: [[u8; 4]; 4] = [[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]];
