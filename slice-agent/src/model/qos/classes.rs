//! The checks of a slice's `qos`, as far as they need nothing else.

use std::collections::BTreeMap;

use slice_common::id::TrafficClass;
use slice_common::shaper::LANE_PARTS;

use super::pods::{self, PodMatch};
use super::problem::QosProblem;
use super::rate::BitRate;
use crate::model::error::{Place, Problem};
use crate::model::scalar;
use crate::model::unchecked::{
    ClassFields, MatchFields, PercentText, QosFields, RatesFields, TrafficFields,
};
use crate::model::validate::{Findings, Unique};
use crate::model::validated::{QosProfile, Rates, Traffic, TrafficClassRule};

const CLASSES_MAX: usize = TrafficClass::COUNT - 1;
/// Two classes of one name would be one in metrics.
const NAME_OF_NO_CLASS: &str = "default";
const LANE_PERCENT: u64 = 100 / LANE_PARTS;

pub(in crate::model) fn check(
    place: &Place,
    fields: Option<&QosFields>,
    found: &mut Findings,
) -> (Option<QosProfile>, Vec<TrafficClassRule>) {
    let Some(fields) = fields else {
        return (None, Vec::new());
    };
    let rates = |name: &str, fields: Option<&RatesFields>, found: &mut Findings| {
        check_rates(&place.field(name), fields?, found)
    };
    let ceiling = rates("ceiling", fields.ceiling.as_ref(), found);
    let guarantee = rates("sliceGuarantee", fields.slice_guarantee.as_ref(), found);
    let classes = check_classes(place, &fields.classes, found);
    match &ceiling {
        Some(ceiling) => check_percentages(place, ceiling, &classes, found),
        None if fields.ceiling.is_none() => check_no_parts(place, fields, found),
        None => {}
    }
    let profile = ceiling.map(|ceiling| QosProfile { ceiling, guarantee });
    (profile, classes)
}

fn check_rates(place: &Place, fields: &RatesFields, found: &mut Findings) -> Option<Rates> {
    let read = |text| BitRate::read(text).map_err(Problem::from);
    let default = found.take(&place.field("default"), read(&fields.default));
    let mut overrides = BTreeMap::new();
    for (name, text) in &fields.overrides {
        let place = place.field("overrides").field(name);
        if let Some(rate) = found.take(&place, read(text)) {
            overrides.insert(name.clone(), rate);
        }
    }
    Some(Rates {
        default: default?,
        overrides,
    })
}

fn check_classes(
    place: &Place,
    fields: &[ClassFields],
    found: &mut Findings,
) -> Vec<TrafficClassRule> {
    let count = fields.len();
    if count > CLASSES_MAX {
        found.add(&place.field("classes"), Problem::TooManyClasses { count });
    }
    let mut names = Unique::new("class name");
    let mut matched = Matched::default();
    let mut classes = Vec::new();
    for (index, class) in fields.iter().enumerate() {
        let place = place.item("classes", index);
        names.check(&place.field("name"), &class.name, found);
        classes.extend(check_class(&place, class, &mut matched, found));
    }
    classes
}

fn check_class(
    place: &Place,
    fields: &ClassFields,
    matched: &mut Matched,
    found: &mut Findings,
) -> Option<TrafficClassRule> {
    let name = found.take(&place.field("name"), class_name(&fields.name));
    let dscp = scalar::number("a DSCP", fields.dscp.unwrap_or(0), 0, 63);
    let dscp = found.take(&place.field("dscp"), dscp);
    let percent = found.take(&place.field("guaranteePercent"), percentage(fields));
    let weight = fields.weight.unwrap_or(TrafficClassRule::WEIGHT.into());
    let weight = scalar::number("a weight", weight, 1, u16::MAX.into());
    let weight = found.take(&place.field("weight"), weight);
    if fields.matches.is_empty() {
        let remedy =
            "list the ports or pods of the class, or remove the class from the end of the list";
        found.add(&place.field("match"), Problem::EmptyList(remedy));
    }
    let (traffic, pods) = check_matches(place, fields, matched, found);
    Some(TrafficClassRule {
        name: name?,
        traffic,
        pods,
        dscp: u8::try_from(dscp?).ok()?,
        guarantee_percent: u8::try_from(percent?).ok()?,
        weight: u16::try_from(weight?).ok()?,
        favour_interactive: fields.favour_interactive.unwrap_or(true),
    })
}

fn class_name(text: &str) -> Result<String, Problem> {
    match text == NAME_OF_NO_CLASS {
        true => Err(QosProblem::NameOfNoClass.into()),
        false => scalar::label(text),
    }
}

fn percentage(fields: &ClassFields) -> Result<u64, Problem> {
    let value = match &fields.guarantee_percent {
        None => return Ok(0),
        Some(PercentText::Number(percent)) => {
            return scalar::number("a percentage", *percent, 0, 100);
        }
        Some(PercentText::Other(number)) => number.to_string(),
        Some(PercentText::Text(text)) => text.clone(),
    };
    let meant = value.trim_end_matches('%').trim().parse::<u8>().ok();
    let problem = QosProblem::NotAPercentage {
        class: fields.name.clone(),
        remedy: match meant.filter(|percent| *percent <= 100) {
            Some(percent) => format!("{percent}, without a sign or quotes"),
            None => "a whole number from 0 to 100, as in 40".to_owned(),
        },
        value,
    };
    Err(problem.into())
}

/// What matches before this one took.
#[derive(Default)]
struct Matched {
    traffic: Vec<(Place, Traffic)>,
    pods: Vec<PodMatch>,
}

impl Matched {
    fn take_traffic(&mut self, at: Place, traffic: Traffic, found: &mut Findings) {
        let first = self.traffic.iter().find(|(_, it)| traffic.overlaps(*it));
        if let Some((first, _)) = first {
            let (what, first) = (traffic.to_string(), first.to_string());
            found.add(&at, Problem::ClassOverlap { what, first });
        }
        self.traffic.push((at, traffic));
    }

    /// Labels may overlap, as long as no pod has those of two classes.
    fn take_pods(&mut self, pods: &PodMatch, found: &mut Findings) {
        for (index, namespace) in pods.namespaces.iter().enumerate() {
            let is_same =
                |it: &&PodMatch| it.labels.is_empty() && it.namespaces.contains(namespace);
            let first = self.pods.iter().find(is_same);
            if let Some(first) = first.filter(|_| pods.labels.is_empty()) {
                let (what, first) = (format!("namespace {namespace}"), first.place.to_string());
                let at = pods.place.item("namespaces", index);
                found.add(&at, Problem::ClassOverlap { what, first });
            }
        }
        self.pods.push(pods.clone());
    }
}

fn check_matches(
    place: &Place,
    fields: &ClassFields,
    matched: &mut Matched,
    found: &mut Findings,
) -> (Vec<Traffic>, Vec<PodMatch>) {
    let (mut traffic, mut pods) = (Vec::new(), Vec::new());
    for (index, fields) in fields.matches.iter().enumerate() {
        let at = place.item("match", index);
        let names_ports = fields.protocol.is_some() || fields.port.is_some();
        let names_pods = fields.namespaces.is_some() || fields.pod_labels.is_some();
        match (names_ports, names_pods) {
            (false, false) => found.add(&at, QosProblem::EmptyMatch.into()),
            (true, true) => found.add(&at, QosProblem::PortsAndPods.into()),
            (true, false) => match of_ports(fields) {
                Ok(one) => {
                    matched.take_traffic(at, one, found);
                    traffic.push(one);
                }
                Err((inner, problem)) => found.add(&at.field(inner), problem),
            },
            (false, true) => {
                let one = pods::check_match(&at, fields, found);
                matched.take_pods(&one, found);
                pods.push(one);
            }
        }
    }
    (traffic, pods)
}

fn of_ports(fields: &MatchFields) -> Result<Traffic, (&'static str, Problem)> {
    let port = fields.port.clone();
    match (&fields.protocol, port) {
        (Some(protocol), port) => scalar::traffic(&TrafficFields {
            protocol: protocol.clone(),
            port,
        }),
        (None, port) => {
            let port = port.as_ref().map(scalar::port_text).unwrap_or_default();
            Err(("port", QosProblem::PortOfNoProtocol { port }.into()))
        }
    }
}

/// What the lane of thin flows takes is promised as well.
fn check_percentages(
    place: &Place,
    ceiling: &Rates,
    classes: &[TrafficClassRule],
    found: &mut Findings,
) {
    let guaranteed = || classes.iter().filter(|class| class.guarantee_percent > 0);
    let of_classes = guaranteed().map(|class| u64::from(class.guarantee_percent));
    let total = of_classes.sum::<u64>() + LANE_PERCENT;
    if total > 100 {
        let of_classes = guaranteed().map(|it| format!("{} {} %", it.name, it.guarantee_percent));
        let lane = format!("lane of thin flows {LANE_PERCENT} %");
        let parts: Vec<_> = of_classes.chain([lane]).collect();
        let problem = QosProblem::GuaranteesAboveCeiling {
            sum: parts.join(" + "),
            total,
            ceiling: ceiling.default.to_string(),
            excess: total - 100,
        };
        found.add(&place.field("classes"), problem.into());
    }
}

/// Parts of a ceiling that is not there would mean nothing.
fn check_no_parts(place: &Place, fields: &QosFields, found: &mut Findings) {
    let mut refuse = |place: Place| found.add(&place, QosProblem::NoCeiling.into());
    if fields.slice_guarantee.is_some() {
        refuse(place.field("sliceGuarantee"));
    }
    for (index, class) in fields.classes.iter().enumerate() {
        let parts = [
            ("guaranteePercent", class.guarantee_percent.is_some()),
            ("weight", class.weight.is_some()),
            ("favourInteractive", class.favour_interactive.is_some()),
        ];
        for (name, _) in parts.into_iter().filter(|(_, is_given)| *is_given) {
            refuse(place.item("classes", index).field(name));
        }
    }
}
