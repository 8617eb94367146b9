//! IPv4 packets: TCP, UDP, ICMP and others, sound or with faults in a field.

use super::{Flow, Generator};
use crate::packet::{Checksum, Icmp, Ipv4, Tcp, Udp};

impl Generator {
    /// A packet of a flow: its transport by chance, its fields mostly sound.
    pub(super) fn packet(&mut self, flow: Flow) -> Ipv4 {
        let ip = Ipv4::between(flow.from, flow.to);
        let ip = match self.random.below(100) {
            0..14 => self.complaint(ip, flow),
            14..97 => self.common(ip, flow),
            _ => {
                let count = self.random.below(60);
                let protocol = self.random.pick(&[0, 2, 4, 41, 47, 50, 132, 253]);
                ip.raw(protocol, self.random.bytes(count))
            }
        };
        self.twist(ip)
    }

    /// TCP, UDP and echo.
    fn common(&mut self, ip: Ipv4, flow: Flow) -> Ipv4 {
        match self.random.below(83) {
            0..40 => {
                let segment = self.segment(flow.ports);
                ip.tcp(segment)
            }
            40..66 => {
                let datagram = self.datagram(flow.ports);
                ip.udp(datagram)
            }
            _ => {
                let message = self.echo(flow.ports);
                ip.icmp(message)
            }
        }
    }

    fn segment(&mut self, [from, to]: [u16; 2]) -> Tcp {
        let segment = Tcp::new(from, to);
        let mut segment = match self.random.below(10) {
            0..3 => segment.syn(),
            3..5 => segment.syn().ack(),
            5..8 => segment.ack(),
            8 => segment.fin().syn(),
            _ => segment.rst(),
        };
        let count = self.random.below(5);
        for _ in 0..count {
            segment = match self.random.below(8) {
                0..3 => {
                    let bytes = self
                        .random
                        .pick(&[0, 400, 486, 487, 1360, 1361, 1460, 8960, 65_535]);
                    segment.mss(bytes)
                }
                3..5 => segment.no_operation(),
                5 => segment.timestamps(1, 2),
                6 => segment.option(&[3, 3, 7]),
                _ => {
                    let strange = [self.random.pick(&[0, 2, 5, 254]), self.random.byte()];
                    segment.option(&strange)
                }
            };
        }
        let payload = self.payload();
        let segment = segment.data(payload).checksum(self.checksum());
        if self.random.percent(3) {
            let words = self.random.below(16) as u8;
            return segment.header_words(words);
        }
        segment
    }

    fn datagram(&mut self, [from, to]: [u16; 2]) -> Udp {
        let payload = self.payload();
        let datagram = Udp::new(from, to).data(payload).checksum(self.checksum());
        if self.random.percent(3) {
            let length = self.random.half_word();
            return datagram.length(length);
        }
        datagram
    }

    fn echo(&mut self, [identifier, _]: [u16; 2]) -> Icmp {
        let message = match self.random.below(10) {
            0..5 => Icmp::echo_request(identifier, 1),
            5..9 => Icmp::echo_reply(identifier, 1),
            _ => {
                let kind = self.random.pick(&[0, 4, 5, 8, 13, 17, 30, 255]);
                let code = self.random.pick(&[0, 1, 255]);
                Icmp::message(kind, code)
            }
        };
        let payload = self.payload();
        message.data(payload).checksum(self.checksum())
    }

    /// An ICMP error about a packet that went the other way, mostly.
    fn complaint(&mut self, ip: Ipv4, flow: Flow) -> Ipv4 {
        let [own, other] = flow.ports;
        let mut about = Flow {
            from: flow.to,
            to: flow.from,
            ports: if self.random.percent(50) {
                [other, own]
            } else {
                flow.ports
            },
        };
        if self.random.percent(8) {
            about.from = self.any_address();
        }
        if self.random.percent(8) {
            about.to = self.any_address();
        }
        let quoted = Ipv4::between(about.from, about.to);
        let quoted = if self.random.percent(6) {
            quoted.icmp(Icmp::message(3, 1).data([0; 28]))
        } else {
            self.common(quoted, about)
        };
        let quoted = self.twist(quoted);
        let mut bytes = quoted.build();
        let most = match self.random.below(8) {
            0 => self.random.below(40),
            1 => 548,
            2 => 40,
            3 => 68,
            _ => 28,
        };
        bytes.truncate(most);
        let kind = self.random.pick(&[3, 3, 3, 11, 11, 12]);
        let code = self.random.pick(&[0, 1, 3, 4, 13, 255]);
        ip.icmp(
            Icmp::message(kind, code)
                .data(bytes)
                .checksum(self.checksum()),
        )
    }

    /// Faults and rarities of the IPv4 header.
    fn twist(&mut self, ip: Ipv4) -> Ipv4 {
        let ip = match self.random.below(4) {
            0 => {
                let (dscp, ecn) = (self.random.byte() & 63, self.random.byte());
                ip.dscp(dscp).ecn(ecn)
            }
            _ => ip,
        };
        if self.random.percent(70) {
            return ip;
        }
        match self.random.below(12) {
            0 => ip.ttl(self.random.pick(&[0, 1, 2, 255])),
            1..4 => {
                let more = self.random.percent(50);
                let offset = self.random.pick(&[0, 0, 8, 16, 24, 64, 1480, 65_528]);
                ip.identification(self.random.below(3) as u16)
                    .fragment(offset, more)
            }
            4..6 => {
                let count = 1 + self.random.below(40);
                let mut options = self.random.bytes(count);
                if self.random.percent(60) {
                    options.fill(1);
                }
                ip.options(&options)
            }
            6 => ip.version(self.random.byte() & 15),
            7 => ip.header_words(self.random.byte() & 15),
            8 => {
                let total = self
                    .random
                    .pick(&[0, 19, 20, 21, 27, 28, 39, 40, 41, 60, 1500, 65_535]);
                ip.total_bytes(total)
            }
            9 => ip.checksum(Checksum::Wrong),
            10 => ip.identification(self.random.half_word()),
            _ => ip.dont_fragment(false),
        }
    }

    /// Mostly short; else around what fits the paths.
    fn payload(&mut self) -> Vec<u8> {
        let bytes = match self.random.below(30) {
            0 => 1400 + self.random.below(110),
            1 => 880 + self.random.below(80),
            2 => 450 + self.random.below(90),
            3 => 2860 + self.random.below(120),
            4 => self.random.below(3400),
            5 => 1,
            _ => self.random.below(24),
        };
        let mut payload = self.random.bytes(bytes.min(64));
        payload.resize(bytes, 0x5c);
        payload
    }

    fn checksum(&mut self) -> Checksum {
        match self.random.below(12) {
            0 => Checksum::Wrong,
            1 => Checksum::Absent,
            _ => Checksum::Right,
        }
    }
}
