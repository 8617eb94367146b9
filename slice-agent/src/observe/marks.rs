//! The mark of tunnel packets among the marks that the host routes by: it must be none of theirs, or our packets
//! go where the host sends those.

use std::collections::BTreeSet;

use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};

use crate::image::MarkRule;

/// Enough to find a mark that no rule notices, where one in eight is such a mark.
const DRAWS: usize = 200;

/// A rule's own look at marks, if it has one.
pub(super) fn mark_rule(rule: &RuleMessage) -> Option<MarkRule> {
    let (mut priority, mut mark, mut mask) = (0, 0, None);
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::FwMark(bits) => mark = *bits,
            RuleAttribute::FwMask(bits) => mask = Some(*bits),
            _ => {}
        }
    }
    let all_bits = if mark == 0 { 0 } else { u32::MAX };
    let mask = mask.unwrap_or(all_bits);
    (mask != 0).then_some(MarkRule {
        priority,
        mark,
        mask,
    })
}

/// Whether packets with this mark are routed as those without one, which probes are.
pub fn fits_no_rule(mark: u32, rules: &BTreeSet<MarkRule>) -> bool {
    rules.iter().all(|rule| rule.is_blind_to(mark))
}

/// Draws a mark that no rule notices: any but 0, which packets have that nobody marked. If rules look at every
/// bit there may be none; then it is one that some rule notices.
pub(super) fn draw<E>(
    mut random: impl FnMut() -> Result<u32, E>,
    rules: &BTreeSet<MarkRule>,
) -> Result<u32, E> {
    let looked_at = rules.iter().fold(0, |bits, rule| bits | rule.mask);
    let mut last = 1;
    for round in 0..2 * DRAWS {
        // First among all marks, which is harder to guess; then in bits that no rule looks at.
        let mask = if round < DRAWS { u32::MAX } else { !looked_at };
        let mark = random()? & mask;
        if mark != 0 && fits_no_rule(mark, rules) {
            return Ok(mark);
        }
        last = if mark == 0 { last } else { mark };
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(of: &[(u32, u32)]) -> BTreeSet<MarkRule> {
        let rules = of.iter().map(|(mark, mask)| MarkRule {
            priority: 100,
            mark: *mark,
            mask: *mask,
        });
        rules.collect()
    }

    /// Numbers that look random, from a seed.
    fn sequence(mut state: u64) -> impl FnMut() -> Result<u32, ()> {
        move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            Ok((state >> 32) as u32)
        }
    }

    /// As the kernel asks (`fib_rule_match`).
    fn takes(rule: &MarkRule, mark: u32) -> bool {
        (rule.mark ^ mark) & rule.mask == 0
    }

    #[test]
    fn a_mark_that_a_rule_takes_is_noticed() {
        let of_a_cni = rules(&[(0x200, 0xf00)]);
        assert!(!fits_no_rule(0x7a3c_12e5, &of_a_cni));
        assert!(fits_no_rule(0x7a3c_13e5, &of_a_cni));
        let unmarked_only = rules(&[(0, 0xff)]);
        assert!(
            !fits_no_rule(0x7a3c_12e5, &unmarked_only),
            "unlike the unmarked"
        );
        assert!(fits_no_rule(0x7a3c_1200, &unmarked_only));
    }

    #[test]
    fn rules_without_a_look_at_marks_are_none() {
        let rule = |attributes| {
            let mut message = RuleMessage::default();
            message.attributes = attributes;
            mark_rule(&message)
        };
        let expected = |mark, mask| {
            Some(MarkRule {
                priority: 7,
                mark,
                mask,
            })
        };
        let [mark, mask] = [RuleAttribute::FwMark, RuleAttribute::FwMask];
        let at = RuleAttribute::Priority(7);
        assert_eq!(rule(vec![at.clone()]), None);
        assert_eq!(rule(vec![at.clone(), mark(5), mask(0)]), None);
        assert_eq!(rule(vec![at.clone(), mark(5)]), expected(5, u32::MAX));
        assert_eq!(rule(vec![at.clone(), mark(5), mask(15)]), expected(5, 15));
        assert_eq!(rule(vec![at, mask(15)]), expected(0, 15));
    }

    proptest! {
        /// While rules leave a bit free there is always such a mark.
        #[test]
        fn a_drawn_mark_is_routed_as_none(
            masked in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..8),
            free in 0_u32..32,
            seed in any::<u64>(),
        ) {
            let masked: Vec<_> = masked.iter().map(|(mark, mask)| (*mark, mask & !(1 << free))).collect();
            let rules = rules(&masked);
            let mark = draw(sequence(seed), &rules).unwrap();
            prop_assert_ne!(mark, 0);
            for rule in &rules {
                prop_assert_eq!(takes(rule, mark), takes(rule, 0), "{} {:#x}", rule, mark);
            }
            prop_assert!(fits_no_rule(mark, &rules));
        }

        #[test]
        fn rules_for_every_mark_do_not_keep_a_node_without_one(seed in any::<u64>()) {
            let every = rules(&[(0, u32::MAX)]);
            let mark = draw(sequence(seed), &every).unwrap();
            prop_assert!(mark != 0 && !fits_no_rule(mark, &every));
        }
    }
}
