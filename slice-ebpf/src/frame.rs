//! A frame as the network card wrote it, before the kernel makes a packet of it: its memory and the
//! fields of its `xdp_md`. Read only; inlined and volatile for the reasons that `packet` gives.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;

use crate::packet::load_within;

/// One frame.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    context: *mut xdp_md,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext) -> Self {
        Self {
            context: context.ctx,
        }
    }

    /// Length in bytes from the Ethernet header on, with the parts that lie in other buffers.
    #[inline(always)]
    pub(crate) fn len(self) -> u32 {
        // SAFETY: the kernel gives a valid context.
        unsafe { bpf_xdp_get_buff_len(self.context) as u32 }
    }

    /// The bytes of the first buffer, which are those that [`Frame::load`] finds.
    #[inline(always)]
    pub(crate) fn visible_bytes(self) -> u32 {
        (self.data_end() - self.data()) as u32
    }

    /// Loads `T` at `offset`, or nothing when the first buffer ends before.
    ///
    /// `T` is made of integers without padding. The verifier needs `offset` bounded: it comes from
    /// constants and a header length of four bits.
    #[inline(always)]
    pub(crate) fn load<T: Copy>(self, offset: u32) -> Option<T> {
        // SAFETY: the kernel gives the bounds of this buffer.
        unsafe { load_within(self.data(), self.data_end(), offset) }
    }

    #[inline(always)]
    fn data(self) -> usize {
        // SAFETY: the kernel gives a valid context; the verifier checks field and width.
        unsafe { (&raw const (*self.context).data).read_volatile() as usize }
    }

    #[inline(always)]
    fn data_end(self) -> usize {
        // SAFETY: as for `data`.
        unsafe { (&raw const (*self.context).data_end).read_volatile() as usize }
    }
}
