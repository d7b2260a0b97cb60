//! A program that a user named is started apart from this process: without its descriptors of a
//! service manager, and without its terminal.
//!
//! The one module of this crate with unsafe code: what runs between fork and exec.
#![allow(unsafe_code)]

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::libc;

/// Variables by which a service manager speaks with the process that it started, and with no other
/// (systemd.exec(5), sd_notify(3), sd_listen_fds(3)).
const SERVICE_VARIABLES: &[&str] = &[
    "CREDENTIALS_DIRECTORY",
    "FDSTORE",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "MANAGERPID",
    "NOTIFY_SOCKET",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// For a program that a user named: in a process group of its own, without what is between this
/// process and its service manager, and without a terminal. A program in the background that asks
/// for a password on the terminal would be stopped by the kernel, and what is typed would be shown;
/// without a terminal it finds that it cannot ask, and ends.
pub fn shut_off(command: &mut Command) -> &mut Command {
    for variable in SERVICE_VARIABLES {
        command.env_remove(variable);
    }
    command.process_group(0);
    // SAFETY: what it calls is async-signal-safe (signal-safety(7)), and it allocates nothing.
    unsafe { command.pre_exec(leave_terminal) }
}

/// Gives up the controlling terminal, if there is one, for this process and what it starts; its
/// session continues with it.
fn leave_terminal() -> io::Result<()> {
    // SAFETY: a descriptor that was opened here is used and closed here.
    unsafe {
        let terminal = libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        if terminal < 0 {
            return Ok(());
        }
        let left = libc::ioctl(terminal, libc::TIOCNOTTY);
        let error = io::Error::last_os_error();
        libc::close(terminal);
        if left == 0 { Ok(()) } else { Err(error) }
    }
}
