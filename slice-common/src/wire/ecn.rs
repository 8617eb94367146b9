//! Explicit congestion notification across a tunnel (RFC 6040): the low two bits of the TOS byte.

/// The four code points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ecn {
    NotCapable,
    Capable1,
    Capable0,
    Congested,
}

impl Ecn {
    pub const ALL: [Self; 4] = [
        Self::NotCapable,
        Self::Capable1,
        Self::Capable0,
        Self::Congested,
    ];

    #[inline(always)]
    pub const fn of_tos(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotCapable,
            1 => Self::Capable1,
            2 => Self::Capable0,
            _ => Self::Congested,
        }
    }

    #[inline(always)]
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotCapable => 0,
            Self::Capable1 => 1,
            Self::Capable0 => 2,
            Self::Congested => 3,
        }
    }
}

/// The congestion mark of a packet whose sender does not understand it: the packet must be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CongestedButNotCapable;

/// The outer TOS byte: the class's DSCP and the inner ECN (normal mode, section 4.1).
#[inline(always)]
pub const fn outer_tos(dscp: u8, inner_tos: u8) -> u8 {
    dscp << 2 | (inner_tos & 3)
}

/// The inner code point after decapsulation (figure 4).
#[inline(always)]
pub const fn decapsulate(inner: Ecn, outer: Ecn) -> Result<Ecn, CongestedButNotCapable> {
    match (inner, outer) {
        (Ecn::NotCapable, Ecn::Congested) => Err(CongestedButNotCapable),
        (Ecn::NotCapable, _) => Ok(Ecn::NotCapable),
        (_, Ecn::Congested) => Ok(Ecn::Congested),
        (Ecn::Capable0, Ecn::Capable1) => Ok(Ecn::Capable1),
        (inner, _) => Ok(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 4 of RFC 6040, row by row: inner, then outer Not-ECT, ECT(0), ECT(1), CE.
    #[test]
    fn all_sixteen_combinations_follow_the_rfc() {
        use Ecn::*;
        let table = [
            (
                NotCapable,
                [Some(NotCapable), Some(NotCapable), Some(NotCapable), None],
            ),
            (
                Capable0,
                [
                    Some(Capable0),
                    Some(Capable0),
                    Some(Capable1),
                    Some(Congested),
                ],
            ),
            (
                Capable1,
                [
                    Some(Capable1),
                    Some(Capable1),
                    Some(Capable1),
                    Some(Congested),
                ],
            ),
            (
                Congested,
                [
                    Some(Congested),
                    Some(Congested),
                    Some(Congested),
                    Some(Congested),
                ],
            ),
        ];
        let mut seen = 0;
        for (inner, row) in table {
            for (outer, expected) in [NotCapable, Capable0, Capable1, Congested].iter().zip(row) {
                assert_eq!(
                    decapsulate(inner, *outer).ok(),
                    expected,
                    "{inner:?} in {outer:?}"
                );
                seen += 1;
            }
        }
        assert_eq!(seen, 16);
    }

    #[test]
    fn the_outer_byte_has_the_class_and_the_inner_mark() {
        for dscp in 0..64 {
            for ecn in Ecn::ALL {
                let tos = outer_tos(dscp, 0b1010_1000 | ecn.bits());
                assert_eq!((tos >> 2, Ecn::of_tos(tos)), (dscp, ecn));
            }
        }
    }
}
