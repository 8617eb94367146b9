//! What slices may send becomes the terms that programs judge packets by.

use std::collections::BTreeMap;

use slice_common::id::TrafficClass;
use slice_common::layout::{ShaperBackend, ShaperKey, ShaperPlace, ShaperTerms};
use slice_common::shaper::{
    Assured, ClassTerms, LINK_BYTES, Patience, SliceTerms, UplinkTerms, WireBytes,
};

use super::classes::DEFAULT_NAME;
use super::clocks;
use super::queues;
use crate::image::{HostFacts, Prefixed};
use crate::model::{self, ConfigError, Shaper, Share, Validated, ValidatedSlice, ValidatedUplink};

/// The terms of one slice on one uplink of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceShaping {
    pub uplink: UplinkTerms,
    pub slice: SliceTerms,
    /// By class number; the first is of packets of no class.
    pub classes: Vec<ClassTerms>,
}

/// Round trips of links between clouds are rarely longer, and with more patience than needed a queue is
/// longer, but no link idles.
const ROUND_TRIP_NS: u64 = 20_000_000;

/// The table of terms. Clocks stay where `facts` knows them.
pub(super) fn rates(
    configuration: &Validated,
    facts: &HostFacts,
) -> Result<BTreeMap<Prefixed<ShaperKey>, ShaperTerms>, Vec<ConfigError>> {
    let shaping = shaping(configuration, facts)?;
    let places = clocks::places(&shaping.keys().copied().collect(), &facts.clocks);
    let uplinks = configuration.node().uplinks.iter();
    let backends: BTreeMap<u32, ShaperBackend> = uplinks
        .filter_map(|uplink| {
            let interface = facts.interfaces.get(&uplink.interface)?;
            let choice = queues::choose(uplink, interface, facts);
            Some((interface.ifindex, choice.backend))
        })
        .collect();
    let terms = |key: ShaperKey, shaping: &SliceShaping| {
        let backend = *backends.get(&key.ifindex)?;
        let terms = packed(backend, *places.get(&key)?, shaping);
        Some(with_vacated(terms, key, facts))
    };
    let table = shaping.iter().filter_map(|(key, shaping)| {
        let prefix_bits = ShaperKey::BITS;
        let key = *key;
        Some((Prefixed { key, prefix_bits }, terms(key, shaping)?))
    });
    Ok(table.collect())
}

fn packed(backend: ShaperBackend, place: ShaperPlace, shaping: &SliceShaping) -> ShaperTerms {
    let SliceShaping {
        uplink,
        slice,
        classes,
    } = shaping;
    let numbered = classes.iter().zip((0..).map(TrafficClass::from_low_bits));
    let terms = ShaperTerms::new(backend, place, uplink, slice, &classes[0]);
    numbered.fold(terms, |terms, (class, number)| {
        terms.with_class(number, class)
    })
}

/// With the classes that are configured no more and at whose back packets wait.
fn with_vacated(terms: ShaperTerms, key: ShaperKey, facts: &HostFacts) -> ShaperTerms {
    if terms.backend != ShaperBackend::Htb.number() {
        return terms;
    }
    let of_slice = facts.backs.range((key, TrafficClass::DEFAULT)..);
    of_slice
        .take_while(|((at, _), _)| *at == key)
        .fold(terms, |terms, ((_, class), room)| {
            if terms.has_class(*class) {
                terms
            } else {
                terms.with_vacated(*class, *room)
            }
        })
}

/// The terms of every slice with a ceiling.
///
/// # Errors
/// What [`model::validate`] refuses as well.
pub fn shaping(
    configuration: &Validated,
    facts: &HostFacts,
) -> Result<BTreeMap<ShaperKey, SliceShaping>, Vec<ConfigError>> {
    let mut wanted = BTreeMap::new();
    for uplink in &configuration.node().uplinks {
        let Some(interface) = facts.interfaces.get(&uplink.interface) else {
            continue;
        };
        let frame = WireBytes::new(u64::from(interface.mtu_bytes) + u64::from(LINK_BYTES));
        let patience = patience(queues::choose(uplink, interface, facts).backend);
        let shares = shares(configuration, uplink)?;
        let sold_bps: u64 = shares.iter().map(|(_, share)| share.ceiling.bps()).sum();
        for (slice, share) in &shares {
            let is_tight = sold_bps > share.contract.bps();
            let key = ShaperKey {
                ifindex: interface.ifindex,
                slice: slice.id.number(),
            };
            wanted.insert(key, terms(slice, share, is_tight, (frame, patience)));
        }
    }
    Ok(wanted)
}

/// What slices can count on, by an uplink of this node.
///
/// # Errors
/// What [`model::validate`] refuses as well.
pub fn shares<'a>(
    configuration: &'a Validated,
    uplink: &ValidatedUplink,
) -> Result<Vec<(&'a ValidatedSlice, Share)>, Vec<ConfigError>> {
    let cluster = &configuration.node().cluster;
    let shaped = configuration.slices().iter();
    let shaped = shaped.filter_map(|slice| Some((slice, slice.profile.as_ref()?)));
    shaped
        .map(|(slice, profile)| {
            let share = model::share(uplink, cluster, profile, &slice.classes);
            let place = || slice.place.field("spec.qos");
            let share = share.map_err(|problem| vec![place().error(problem.into())])?;
            Ok((slice, share))
        })
        .collect()
}

/// What all nodes of an uplink may send of a slice together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedCeiling {
    pub bps: u64,
    /// How many nodes that is.
    pub nodes: u32,
}

/// The ceilings of which this node has a part.
pub fn shared_ceilings(
    configuration: &Validated,
    facts: &HostFacts,
) -> BTreeMap<ShaperKey, SharedCeiling> {
    let mut shared = BTreeMap::new();
    let uplinks = configuration.node().uplinks.iter();
    for uplink in uplinks.filter(|uplink| uplink.nodes > 1) {
        let Some(interface) = facts.interfaces.get(&uplink.interface) else {
            continue;
        };
        // What cannot be shared is not in force.
        for (slice, share) in shares(configuration, uplink).unwrap_or_default() {
            let key = ShaperKey {
                ifindex: interface.ifindex,
                slice: slice.id.number(),
            };
            let (bps, nodes) = (share.whole_ceiling.bps(), uplink.nodes);
            shared.insert(key, SharedCeiling { bps, nodes });
        }
    }
    shared
}

/// What a slice can count on, for a person.
pub fn in_words(uplink: &ValidatedUplink, slice: &ValidatedSlice, share: &Share) -> String {
    let names = slice.classes.iter().map(|class| class.name.as_str());
    let names = std::iter::once(DEFAULT_NAME).chain(names);
    let classes = names
        .zip(&share.entitlements)
        .map(|(name, rate)| format!("{name} {}", model::shown_rate(rate.bps())));
    let lane = Assured::new(share.ceiling, Some(share.guarantee)).lane_bps();
    format!(
        "uplink {}: slice {} sends {} at most and is guaranteed {}; when everybody sends: {}, thin flows {}{}",
        uplink.name,
        slice.name,
        model::shown_rate(share.ceiling.bps()),
        model::shown_rate(share.guarantee.bps()),
        classes.collect::<Vec<_>>().join(", "),
        model::shown_rate(lane),
        match uplink.nodes {
            1 => String::new(),
            nodes => format!("; this node's part, one of {nodes}"),
        }
    )
}

/// What an uplink of a gateway carries at the worst, for a person. Its own configuration does not show whom members
/// choose.
pub fn beside_fellows(configuration: &Validated, uplink: &ValidatedUplink) -> Option<String> {
    let node = configuration.node();
    let fellows = node.peers.iter().filter(|peer| peer.is_fellow);
    let fellows: Vec<String> = fellows.map(|peer| peer.name.clone()).collect();
    let senders = 1 + fellows.len();
    let is_shaped = configuration
        .slices()
        .iter()
        .any(|slice| slice.profile.is_some());
    (is_shaped && senders as u64 > u64::from(uplink.nodes)).then(|| {
        format!(
            "uplink {}: fellow gateways ({}) send as much beside this one where members do not all name the same gateway \
             first, up to {senders} times these ceilings if they have one link; name them in one order on every node, or \
             write `nodes: {senders}`",
            uplink.name,
            model::listed(fellows.into_iter()),
        )
    })
}

/// With whom a node lends parts of that, for a person.
pub fn lending_in_words(uplink: &ValidatedUplink) -> Option<String> {
    let lending = uplink.lending.as_ref()?;
    let partners = lending.partners.iter().map(ToString::to_string);
    Some(format!(
        "uplink {}: lends what it does not use of that to {partners}, {}; the token is expected in {}",
        uplink.name,
        match uplink.shaper {
            Shaper::Htb => "and borrows nothing, because classes of htb keep their rates",
            _ => "and borrows from there where packets do not wait in classes of htb",
        },
        lending.token_file.display(),
        partners = partners.collect::<Vec<_>>().join(", "),
    ))
}

fn patience(backend: ShaperBackend) -> Patience {
    match backend {
        ShaperBackend::Edt | ShaperBackend::Htb => Patience::for_round_trip(ROUND_TRIP_NS),
        ShaperBackend::Vq => Patience::WITHOUT_QUEUE,
    }
}

/// Where all ceilings fit into the uplink together, nobody needs to watch it.
fn terms(
    slice: &ValidatedSlice,
    share: &Share,
    is_tight: bool,
    (frame, patience): (WireBytes, Patience),
) -> SliceShaping {
    let assured = Assured::new(share.ceiling, Some(share.guarantee));
    let favours = slice.classes.iter().map(|class| class.favour_interactive);
    let classes = std::iter::once(true)
        .chain(favours)
        .zip(&share.entitlements);
    SliceShaping {
        uplink: match is_tight {
            true => UplinkTerms::new(share.contract, share.guarantee, patience, frame),
            false => UplinkTerms::NONE,
        },
        slice: SliceTerms::new(share.ceiling, assured, frame),
        classes: classes
            .map(|(favour_interactive, entitlement)| ClassTerms {
                favour_interactive,
                ..ClassTerms::new(*entitlement, patience, frame)
            })
            .collect(),
    }
}
