//! The object's shell: the licence and the panic handler. The programs live in the library, so that
//! `cargo check` and `cargo clippy` work on the host.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod bpf {
    use slice_ebpf as _;

    unsafe extern "C" {
        /// Never defined: a reachable panic leaves an undefined symbol, which the build refuses.
        fn slice_ebpf_panic_reached() -> !;
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo) -> ! {
        // SAFETY: the symbol does not exist, so an object with this call in it never leaves the build.
        unsafe { slice_ebpf_panic_reached() }
    }

    // The kernel hands GPL-only helpers (redirect_neigh, skb_set_tunnel_key, ...) to GPL programs.
    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 4] = *b"GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
