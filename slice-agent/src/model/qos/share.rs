//! What a slice can count on when its packets leave this node by an uplink. One function, for the check of
//! a configuration and for its compilation: what the one accepts the other can carry out.

use slice_common::shaper::{Assured, CLASS_MIN_BPS, ClassShare, LANE_PARTS, Rate, Refusal};

use super::problem::QosProblem;
use super::rate::{BitRate, shown};
use crate::model::validated::{QosProfile, TrafficClassRule, ValidatedUplink};

/// This node's part of what a slice may send by an uplink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of the whole uplink.
    pub contract: Rate,
    pub ceiling: Rate,
    /// What all nodes that send by the uplink may send together.
    pub whole_ceiling: Rate,
    /// What the slice has whatever other slices send: `sliceGuarantee`, else its ceiling.
    pub guarantee: Rate,
    /// What each class has whatever others send, by number; the first is of packets of no class.
    pub entitlements: Vec<Rate>,
}

/// What all nodes that send by this uplink have together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    pub(super) ceiling: BitRate,
    pub(super) guarantee: BitRate,
}

pub(super) fn whole(uplink: &ValidatedUplink, cluster: &str, profile: &QosProfile) -> Whole {
    let ceiling = profile.ceiling.on(&uplink.name, cluster);
    let guarantee = profile.guarantee.as_ref();
    let guarantee = guarantee.map_or(ceiling, |rates| rates.on(&uplink.name, cluster));
    Whole { ceiling, guarantee }
}

/// An equal part for each node, rounded down: together never more than the whole.
///
/// # Errors
/// What cannot be promised: more than there is, or too little to send at all.
pub fn share(
    uplink: &ValidatedUplink,
    cluster: &str,
    profile: &QosProfile,
    classes: &[TrafficClassRule],
) -> Result<Share, QosProblem> {
    let whole = whole(uplink, cluster, profile);
    check_whole(uplink, whole)?;
    let ceiling = part(uplink, whole.ceiling)?;
    let guarantee = part(uplink, whole.guarantee)?;
    let assured = Assured::new(ceiling, Some(guarantee));
    let shares = class_shares(ceiling, classes);
    let entitlements: Result<_, _> = (0..shares.len())
        .map(|class| {
            let given = assured.entitlement(&shares, class);
            given.map_err(|refusal| explain(refusal, uplink, assured, &shares, classes))
        })
        .collect();
    Ok(Share {
        contract: part(uplink, uplink.rate)?,
        ceiling,
        whole_ceiling: whole.ceiling.rate(),
        guarantee,
        entitlements: entitlements?,
    })
}

fn check_whole(uplink: &ValidatedUplink, whole: Whole) -> Result<(), QosProblem> {
    let name = || uplink.name.clone();
    if whole.ceiling > uplink.rate {
        return Err(QosProblem::CeilingAboveUplink {
            ceiling: whole.ceiling.to_string(),
            rate: uplink.rate.to_string(),
            uplink: name(),
        });
    }
    if whole.guarantee > whole.ceiling {
        return Err(QosProblem::GuaranteeAboveCeiling {
            guarantee: whole.guarantee.to_string(),
            ceiling: whole.ceiling.to_string(),
            uplink: name(),
        });
    }
    Ok(())
}

fn part(uplink: &ValidatedUplink, rate: BitRate) -> Result<Rate, QosProblem> {
    let bps = rate.bps() / u64::from(uplink.nodes);
    Rate::new_checked(bps).ok_or_else(|| QosProblem::PartTooSmall {
        rate: rate.to_string(),
        uplink: uplink.name.clone(),
        part: shown(bps),
        nodes: uplink.nodes,
        least: shown(Rate::MIN_BPS),
    })
}

/// By number: what is of no class comes first, with no guarantee and the usual weight.
fn class_shares(ceiling: Rate, classes: &[TrafficClassRule]) -> Vec<ClassShare> {
    let of_none = ClassShare {
        guarantee_bps: 0,
        weight: TrafficClassRule::WEIGHT,
    };
    let of_classes = classes.iter().map(|class| ClassShare {
        guarantee_bps: ceiling.bps() * u64::from(class.guarantee_percent) / 100,
        weight: class.weight,
    });
    std::iter::once(of_none).chain(of_classes).collect()
}

/// The arithmetic's refusal for a person, with the sum.
fn explain(
    refusal: Refusal,
    uplink: &ValidatedUplink,
    assured: Assured,
    shares: &[ClassShare],
    classes: &[TrafficClassRule],
) -> QosProblem {
    let available_bps = assured.rate().bps();
    let set_aside_bps = assured.set_aside_bps();
    let guarantees_bps: u64 = shares.iter().map(|it| it.guarantee_bps).sum();
    match refusal {
        Refusal::Starved { class } => {
            let own = shares[class];
            let weights: u64 = shares.iter().map(|it| u64::from(it.weight)).sum();
            let spare_bps = available_bps.saturating_sub(guarantees_bps + set_aside_bps);
            let excess_bps = spare_bps * u64::from(own.weight) / weights.max(1);
            let gets_bps = own.guarantee_bps + excess_bps;
            let sum = format!(
                "{} + {}/{weights} of the {} that nobody is guaranteed = {}{}",
                shown(own.guarantee_bps),
                own.weight,
                shown(spare_bps),
                shown(gets_bps),
                match uplink.nodes {
                    1 => String::new(),
                    nodes => format!(" on each of {nodes} nodes"),
                }
            );
            QosProblem::Starved {
                class: class_name(class, classes),
                uplink: uplink.name.clone(),
                sum,
                least: shown(CLASS_MIN_BPS),
                remedy: match spare_bps {
                    0 => "lower a `guaranteePercent`, so that something is left",
                    _ => {
                        "lower a `guaranteePercent` or the `weight` of others, or raise the ceiling (`sliceGuarantee`, \
                         where there is one)"
                    }
                },
            }
        }
        // The uplink's own sum is checked with all its slices; here are its classes'.
        Refusal::TooMuch { .. } | Refusal::Oversold { .. } => {
            let named = classes.iter().zip(&shares[1..]);
            let sum = named
                .filter(|(class, _)| class.guarantee_percent > 0)
                .map(|(class, share)| format!("{} {}", class.name, shown(share.guarantee_bps)))
                .chain([match set_aside_bps > available_bps / LANE_PARTS {
                    true => format!("the least for thin flows {}", shown(set_aside_bps)),
                    false => format!("1/{LANE_PARTS} for thin flows {}", shown(set_aside_bps)),
                }]);
            let total_bps = guarantees_bps + set_aside_bps;
            QosProblem::GuaranteesAboveSliceGuarantee {
                sum: sum.collect::<Vec<_>>().join(" + "),
                total: shown(total_bps),
                available: shown(available_bps),
                uplink: uplink.name.clone(),
                excess: shown(total_bps.saturating_sub(available_bps)),
            }
        }
    }
}

fn class_name(number: usize, classes: &[TrafficClassRule]) -> String {
    match number.checked_sub(1).and_then(|at| classes.get(at)) {
        Some(class) => format!("class `{}`", class.name),
        None => "what is of no class".to_owned(),
    }
}
