//! The internet checksum (RFC 1071).

/// What to write into a checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Checksum {
    /// The one that fits.
    #[default]
    Right,
    /// One that does not fit.
    Wrong,
    /// Zero: for UDP over IPv4, "not computed".
    Absent,
}

impl Checksum {
    /// The field's value, given the one that fits.
    pub(super) fn field(self, right: u16) -> [u8; 2] {
        match self {
            Self::Right => right.to_be_bytes(),
            // 0xffff and 0 mean the same sum, so neither may come out for the other.
            Self::Wrong => (right ^ 0x0101).to_be_bytes(),
            Self::Absent => [0, 0],
        }
    }
}

/// The one's complement of the one's complement sum of `parts` laid end to end; every part but the
/// last has an even length. Over data with a right checksum in it the result is 0.
pub fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u64::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What TCP and UDP sum besides themselves.
pub(super) fn pseudo_header(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    bytes: usize,
) -> [u8; 12] {
    let [high, low] = (bytes as u16).to_be_bytes();
    let ([a, b, c, d], [e, f, g, h]) = (source, destination);
    [a, b, c, d, e, f, g, h, 0, protocol, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071, section 3: the sum is ddf2.
    #[test]
    fn the_example_of_the_rfc_comes_out() {
        assert_eq!(
            internet_checksum(&[&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
    }

    #[test]
    fn an_odd_last_byte_counts_as_the_high_half() {
        assert_eq!(
            internet_checksum(&[&[0x12, 0x34], &[0x56]]),
            !(0x1234 + 0x5600)
        );
    }
}
