//! The one system call that has no safe wrapper: netlink socket options.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Acknowledgements without a copy of the request.
pub(crate) const CAP_ACK: i32 = 10;
/// Acknowledgements with the kernel's explanation.
pub(crate) const EXT_ACK: i32 = 11;
/// Dumps that reject malformed filters, and honour them.
pub(crate) const STRICT_CHECK: i32 = 12;

/// Switches a netlink option on.
pub(crate) fn enable(fd: BorrowedFd<'_>, option: i32) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: `on` outlives the call and its size is passed; the descriptor is borrowed for the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
