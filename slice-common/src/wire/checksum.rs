//! The Internet checksum (RFC 1071) of headers that we build. Live packets get theirs by the
//! kernel's helpers, which know what the network card still has to do.

/// Sums 16-bit words in memory order; fold it with [`finish`].
#[inline(always)]
pub const fn add_word(sum: u32, word: u16) -> u32 {
    sum + word as u32
}

/// Folds the carries in and complements. Good for sums of up to 65,537 words.
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The checksum of an IPv4 header of ten words whose checksum field is 0, in memory order.
#[inline(always)]
pub const fn of_header(words: [u16; 10]) -> u16 {
    let mut sum = 0;
    let mut i = 0;
    while i < 10 {
        sum = add_word(sum, words[i]);
        i += 1;
    }
    finish(sum)
}

/// The checksum of a header in which one 32-bit word changes (RFC 1624, equation 3), all in memory
/// order. For IPv4 headers only: no network card completes those of packets on their way.
#[inline(always)]
pub const fn replaced(checksum: u16, from: u32, to: u32) -> u16 {
    let sum = (!checksum) as u32 + (!from & 0xffff) + (!from >> 16) + (to & 0xffff) + (to >> 16);
    finish(sum)
}
