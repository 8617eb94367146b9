//! Whether the packets of TCP connections come in the order in which they were sent.
//!
//! Linux numbers what a connection sends, one more for each packet, whether it is sent for the first time or again
//! (`ip_select_ident_segs`). So what comes behind a higher number was overtaken; and what was lost leaves a gap, which
//! is something else.

use std::collections::HashMap;

use crate::live::tunnel_packet;

/// More connections are not followed.
const FLOWS_MAX: usize = 100_000;

/// One direction of a connection: addresses and ports.
type Flow = ([u8; 8], (u16, u16));

#[derive(Debug, Default)]
pub(super) struct OrderMeter {
    newest: HashMap<Flow, u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The first of its connection, or after all before it.
    Kept,
    Overtaken,
}

impl OrderMeter {
    /// Of a packet as it comes in, from the outer IPv4 header on; `None`: it says nothing about its place. What the
    /// kernel sends for a connection that is not there yet, or no more, has number 0.
    pub(super) fn judge(&mut self, packet: &[u8]) -> Option<Order> {
        let inner = tunnel_packet(packet)?.inner;
        let flow = (inner.addresses()?, inner.tcp_ports()?);
        if inner.is_syn() {
            // Ports are used again, and who agrees to a connection numbers that packet 0.
            self.newest.remove(&flow);
        }
        let number = inner.number().filter(|number| *number != 0)?;
        if let Some(newest) = self.newest.get_mut(&flow) {
            let is_ahead = number.wrapping_sub(*newest).cast_signed() > 0;
            if !is_ahead {
                return Some(Order::Overtaken);
            }
            *newest = number;
            return Some(Order::Kept);
        }
        if self.newest.len() == FLOWS_MAX {
            return None;
        }
        self.newest.insert(flow, number);
        Some(Order::Kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ipv4, Tcp, Vxlan};

    fn packet(from_port: u16, number: u16, change: fn(Tcp) -> Tcp) -> Vec<u8> {
        let inner = Ipv4::between([10, 77, 0, 2], [10, 77, 64, 2]).identification(number);
        let inner = inner.tcp(change(Tcp::new(from_port, 9091)));
        let frame = Vxlan::between([172, 20, 1, 11], [172, 20, 2, 11])
            .slice(7, 2)
            .carry(&inner)
            .frame([2; 6], [4; 6]);
        frame[14..].to_vec()
    }

    fn orders(packets: &[(u16, u16)]) -> Vec<Option<Order>> {
        let mut meter = OrderMeter::default();
        let all = packets.iter();
        all.map(|(port, number)| meter.judge(&packet(*port, *number, |tcp| tcp)))
            .collect()
    }

    const KEPT: Option<Order> = Some(Order::Kept);
    const OVERTAKEN: Option<Order> = Some(Order::Overtaken);

    #[test]
    fn what_comes_behind_a_higher_number_was_overtaken() {
        let seen = orders(&[(1, 7), (1, 9), (1, 8), (1, 10)]);
        assert_eq!(seen, [KEPT, KEPT, OVERTAKEN, KEPT]);
    }

    #[test]
    fn a_gap_is_no_overtaking_and_numbers_begin_anew() {
        let seen = orders(&[(1, 65_530), (1, 65_535), (1, 3), (1, 65_534)]);
        assert_eq!(seen, [KEPT, KEPT, KEPT, OVERTAKEN]);
    }

    #[test]
    fn connections_do_not_count_together() {
        assert_eq!(orders(&[(1, 9), (2, 7), (1, 10), (2, 8)]), [KEPT; 4]);
    }

    #[test]
    fn a_new_connection_has_numbers_of_its_own() {
        let mut meter = OrderMeter::default();
        assert_eq!(meter.judge(&packet(1, 900, |tcp| tcp)), KEPT);
        assert_eq!(meter.judge(&packet(1, 100, Tcp::syn)), KEPT);
        assert_eq!(meter.judge(&packet(1, 101, |tcp| tcp)), KEPT);
        let agreed = packet(1, 0, |tcp| tcp.syn().ack());
        assert_eq!(meter.judge(&agreed), None);
        assert_eq!(meter.judge(&packet(1, 50, |tcp| tcp)), KEPT);
    }

    #[test]
    fn what_has_no_number_and_what_is_no_tunnel_packet_is_not_judged() {
        assert_eq!(orders(&[(1, 9), (1, 0), (1, 10)]), [KEPT, None, KEPT]);
        assert_eq!(OrderMeter::default().judge(&[0x45; 60]), None);
        assert_eq!(OrderMeter::default().judge(&[]), None);
    }
}
