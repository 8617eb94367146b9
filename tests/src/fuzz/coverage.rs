//! What was reached, and what must be.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::testrun::Program;

/// How often each program came to each end, and took each turn.
#[derive(Clone, Debug, Default)]
pub struct Coverage(BTreeMap<(&'static str, &'static str), u64>);

impl Coverage {
    pub fn saw(&mut self, program: Program, what: &'static str) {
        *self.0.entry((program.name(), what)).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(*what).or_default() += count;
        }
    }

    pub fn times(&self, program: Program, what: &'static str) -> u64 {
        let counted = self.0.get(&(program.name(), what));
        counted.copied().unwrap_or(0)
    }

    /// What of [`turns`] was reached less than `times`.
    pub fn missed(&self, program: Program, times: u64) -> Vec<String> {
        let short = |what: &&&'static str| self.times(program, what) < times;
        let missed = turns(program).iter().filter(short);
        missed
            .map(|what| {
                let found = self.times(program, what);
                format!(
                    "{}: {what}: {found} times, at least {times} wanted",
                    program.name()
                )
            })
            .collect()
    }

    /// One line for each.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for ((program, what), count) in &self.0 {
            let _ = writeln!(text, "{program:<17} {what:<26} {count:>10}");
        }
        text
    }
}

/// Every end and turn of a program that packets can bring it to.
pub fn turns(program: Program) -> &'static [&'static str] {
    match program {
        Program::PodEgress => &[
            "untouched",
            "redirected",
            "dropped",
            "malformed",
            "fragment",
            "unsupported_protocol",
            "icmp_error",
            "unsupported_icmp",
            "gso_not_tcp",
            "too_big",
            "spoofed_source",
            "confined",
            "let out",
            "no_route",
            "other_slice",
            "no_endpoint",
            "policy_denied",
            "no_path",
            "helper_failed",
            "allowed",
            "answer awaited",
            "answer too late",
            "question noted before",
            "record written",
            "record renewed",
            "class by destination port",
            "class by source port",
            "class of the sender alone",
            "class of the receiver alone",
            "receiver's class before sender's",
            "sender's class first",
            "error told",
            "handed to a neighbour",
            "sent to the stack",
            "told that it is too big",
            "largest segment lowered",
            "first part noted",
            "later part",
            "part over a header",
        ],
        Program::UnderlayIngress => &[
            "untouched",
            "left to the host",
            "redirected",
            "dropped",
            "malformed",
            "fragment",
            "unsupported_protocol",
            "icmp_error",
            "unsupported_icmp",
            "gso_not_tcp",
            "no_route",
            "no_endpoint",
            "loop",
            "ttl",
            "too_big",
            "no_path",
            "passed on",
            "probe answered",
            "probe came back",
            "bad_probe",
            "told in the tunnel",
            "policy_denied",
            "unknown_peer",
            "bad_tunnel_header",
            "unknown_slice",
            "wrong_slice",
            "wrong_peer",
            "inner_not_ipv4",
            "ecn_not_capable",
            "helper_failed",
            "allowed",
            "answer awaited",
            "answer too late",
            "question noted before",
            "record written",
            "record renewed",
            "error heard",
            "congestion kept",
            "told of a narrow way",
            "largest segment lowered",
            "first part noted",
            "later part",
            "part over a header",
        ],
        Program::PodIngress => &[
            "untouched",
            "dropped",
            "malformed",
            "isolated",
            "tagged",
            "let in",
            "from the node",
            "of the slice",
            "answer awaited",
            "answer too late",
            "error heard",
        ],
        Program::UnderlayGuard => &[
            "untouched",
            "dropped",
            "forged_underlay",
            "bad_probe",
            "own probe",
            "bare_slice_address",
            "tagged",
            "ours",
            "ours and no tunnel packet",
            "shared by others",
            "shaped",
            "shaped in segments",
        ],
        Program::TunnelIngress => &[
            "redirected",
            "left to the host",
            "from a neighbour",
            "dropped",
            "slow_path",
            "ours",
            "malformed",
            "unknown_slice",
            "wrong_slice",
            "inner_not_ipv4",
            "no_endpoint",
            "not_local",
        ],
        Program::UnderlayFilter => &[
            "untouched",
            "dropped",
            "unknown_peer",
            "bad_tunnel_header",
            "unknown_slice",
            "probe",
            "of a slice here",
        ],
    }
}
