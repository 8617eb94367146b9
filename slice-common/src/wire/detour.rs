//! What stands in the inner Ethernet addresses while a packet takes the way through the kernel's tunnel
//! device: a secret of this node, and which network the packet was judged in. Never seen outside.

use crate::id::Vni;

/// The six half words of both addresses.
#[inline(always)]
pub const fn addresses(secret: [u16; 4], vni: Vni) -> [u16; 6] {
    let [_, a, b, c] = vni.number().to_be_bytes();
    let vni = [u16::from_ne_bytes([0, a]), u16::from_ne_bytes([b, c])];
    [secret[0], secret[1], secret[2], secret[3], vni[0], vni[1]]
}

/// The network, if the addresses have the secret. Nobody has drawn one of all zeros yet.
#[inline(always)]
pub const fn read(addresses: [u16; 6], secret: [u16; 4]) -> Option<Vni> {
    let [a, b, c, d, high, low] = addresses;
    let is_ours = a == secret[0] && b == secret[1] && c == secret[2] && d == secret[3];
    let is_drawn = secret[0] | secret[1] | secret[2] | secret[3] != 0;
    if !is_ours || !is_drawn {
        return None;
    }
    let ([_, first], [second, third]) = (high.to_ne_bytes(), low.to_ne_bytes());
    Some(Vni::from_bytes([first, second, third]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_a_secret_nobody_is_believed() {
        let vni = Vni::from_bytes([0, 0, 59]);
        assert_eq!(read(addresses([0; 4], vni), [0; 4]), None);
    }

    proptest! {
        #[test]
        fn who_knows_the_secret_is_believed_and_nobody_else(
            secret in any::<[u16; 4]>(),
            guess in any::<[u16; 4]>(),
            vni in any::<[u8; 3]>(),
        ) {
            prop_assume!(secret != [0; 4]);
            let vni = Vni::from_bytes(vni);
            prop_assert_eq!(read(addresses(secret, vni), secret), Some(vni));
            prop_assert_eq!(read(addresses(guess, vni), secret).is_some(), guess == secret);
        }
    }
}
