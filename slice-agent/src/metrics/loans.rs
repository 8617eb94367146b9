//! What nodes lend each other, for people and for Prometheus.

use std::net::Ipv4Addr;

use slice_common::layout::ShaperKey;
use slice_common::shaper::Loan;

use super::names::{self, Metric};
use super::snapshot::{Labels, named, slice_label};
use super::status_page::percent;
use super::usage::PARTS;
use crate::agent::status::State;
use crate::lending::standing::{PartnerStanding, Standing};
use crate::plan::rates::shown;

/// The line of a slice on an uplink whose nodes lend.
pub(super) fn line(state: &State, key: &ShaperKey) -> Option<String> {
    let standing = state.loans.get(key)?;
    Some(format!(
        "  lending: own part {} bit/s; lends {}; {}",
        shown(standing.own_bps),
        sum(standing, standing.lent_parts(), ("to", |it| it.lent_parts)),
        match standing.only_lends {
            true => "borrows nothing, because classes of htb keep their rates".to_owned(),
            false => format!(
                "borrows {}",
                sum(
                    standing,
                    standing.borrowed_parts(),
                    ("from", |it| it.borrowed_parts)
                )
            ),
        }
    ))
}

/// As in `5M bit/s (25.0 %) to 192.0.2.12`.
fn sum(
    standing: &Standing,
    parts: u32,
    (direction, of): (&str, fn(&PartnerStanding) -> u32),
) -> String {
    if parts == 0 {
        return "nothing".to_owned();
    }
    let partners = standing.partners.iter().filter(|(_, it)| of(it) > 0);
    let partners = partners.map(|(address, it)| match of(it) == parts {
        true => address.to_string(),
        false => format!("{address} {}", shown(standing.bps(of(it)))),
    });
    let ratio = u64::from(parts) * PARTS / u64::from(Loan::WHOLE);
    format!(
        "{} bit/s ({}) {direction} {}",
        shown(standing.bps(parts)),
        percent(ratio),
        partners.collect::<Vec<_>>().join(", ")
    )
}

/// Where an uplink's nodes do not lend as they should.
pub(super) fn of_uplinks(state: &State) -> Vec<String> {
    let mut lines = Vec::new();
    for (uplink, lending) in &state.lending {
        if let Some(why) = &lending.obstacle {
            lines.push(format!(
                "uplink {uplink}: nothing is lent or borrowed: {why}"
            ));
        }
        for (partner, why) in &lending.silent {
            lines.push(format!(
                "uplink {uplink}: partner {partner} lends nothing: {why}"
            ));
        }
    }
    lines
}

pub(super) fn series(state: &State) -> Vec<(Metric, Labels, u64)> {
    let mut series = Vec::new();
    for (key, standing) in &state.loans {
        let uplink = named(&state.names.uplinks, key.ifindex);
        let slice = slice_label(&state.names, key.slice);
        for (partner, it) in &standing.partners {
            let labels = || vec![uplink.clone(), slice.clone(), partner.to_string()];
            series.push((names::LENT, labels(), standing.bps(it.lent_parts) / 8));
            series.push((
                names::BORROWED,
                labels(),
                standing.bps(it.borrowed_parts) / 8,
            ));
            series.push((
                names::PARTNER_ANSWERS,
                vec![uplink.clone(), partner.to_string()],
                u64::from(!is_silent(state, &uplink, partner)),
            ));
        }
    }
    series
}

fn is_silent(state: &State, uplink: &str, partner: &Ipv4Addr) -> bool {
    let lending = state.lending.get(uplink);
    lending.is_some_and(|it| it.silent.contains_key(partner))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;
    use crate::agent::status::Status;
    use crate::lending::standing::UplinkLending;
    use crate::metrics::rates::tests::terms;
    use crate::metrics::usage::tests::KEY;

    const WHOLE: u32 = Loan::WHOLE;

    fn state(partners: &[(&str, u32, u32)], only_lends: bool) -> State {
        let partners = partners
            .iter()
            .map(|(address, lent_parts, borrowed_parts)| {
                let standing = PartnerStanding {
                    lent_parts: *lent_parts,
                    borrowed_parts: *borrowed_parts,
                };
                (address.parse().unwrap(), standing)
            });
        let standing = Standing {
            own_bps: 80_000_000,
            partners: partners.collect(),
            only_lends,
        };
        let status = Status::new(Instant::now());
        status.update(|state| {
            state.rates = BTreeMap::from([(KEY, terms())]);
            state.loans = BTreeMap::from([(KEY, standing)]);
            state.names.uplinks = BTreeMap::from([(2, "wan".into())]);
            state.names.slices = BTreeMap::from([(7, "kafka".into())]);
            let silent = [("192.0.2.13".parse().unwrap(), "no answer".to_owned())];
            let lending = UplinkLending {
                obstacle: None,
                silent: BTreeMap::from(silent),
            };
            state.lending = BTreeMap::from([("wan".into(), lending)]);
        });
        status.read()
    }

    #[test]
    fn people_read_who_lends_what_to_whom() {
        let line = |partners: &[_], only_lends| line(&state(partners, only_lends), &KEY).unwrap();
        assert_eq!(
            line(&[("192.0.2.12", 0, 0)], false),
            "  lending: own part 80M bit/s; lends nothing; borrows nothing"
        );
        assert_eq!(
            line(
                &[
                    ("192.0.2.12", 0, WHOLE * 3 / 4),
                    ("192.0.2.13", 0, WHOLE / 2)
                ],
                false
            ),
            "  lending: own part 80M bit/s; lends nothing; borrows 100M bit/s (125.0 %) from 192.0.2.12 60M, \
             192.0.2.13 40M"
        );
        assert_eq!(
            line(&[("192.0.2.12", WHOLE / 4, 0)], true),
            "  lending: own part 80M bit/s; lends 20M bit/s (25.0 %) to 192.0.2.12; borrows nothing, because classes \
             of htb keep their rates"
        );
    }

    #[test]
    fn a_partner_that_is_silent_and_a_token_that_cannot_be_read_are_told() {
        let mut state = state(&[("192.0.2.13", 0, 0)], false);
        let silent = "uplink wan: partner 192.0.2.13 lends nothing: no answer";
        assert_eq!(of_uplinks(&state), [silent]);
        let wan = state.lending.get_mut("wan").unwrap();
        wan.obstacle = Some("no token".into());
        let obstacle = "uplink wan: nothing is lent or borrowed: no token";
        assert_eq!(of_uplinks(&state), [obstacle, silent]);
        let page = crate::metrics::status_page::page(&state);
        assert!(page.ends_with(&format!("{obstacle}\n{silent}\n")), "{page}");
    }

    #[test]
    fn prometheus_gets_bytes_by_partner() {
        let state = state(
            &[("192.0.2.12", WHOLE / 4, 0), ("192.0.2.13", 0, WHOLE / 2)],
            false,
        );
        let series = series(&state).into_iter();
        let series: Vec<_> = series
            .map(|(metric, labels, value)| (metric.name, labels, value))
            .collect();
        let labels = |partner: &str| vec!["wan".to_owned(), "kafka".into(), partner.into()];
        for expected in [
            (
                "sliceplane_ceiling_lent_bytes_per_second",
                labels("192.0.2.12"),
                2_500_000,
            ),
            (
                "sliceplane_ceiling_borrowed_bytes_per_second",
                labels("192.0.2.12"),
                0,
            ),
            (
                "sliceplane_ceiling_borrowed_bytes_per_second",
                labels("192.0.2.13"),
                5_000_000,
            ),
            (
                "sliceplane_lending_partner_up",
                vec!["wan".into(), "192.0.2.12".into()],
                1,
            ),
            (
                "sliceplane_lending_partner_up",
                vec!["wan".into(), "192.0.2.13".into()],
                0,
            ),
        ] {
            assert!(series.contains(&expected), "{expected:?} in {series:?}");
        }
    }
}
