//! What the kernel must allow, asked before the first executor needs it: glommio itself panics or hangs where it is
//! refused.

use std::io;

/// The kernel refuses io_uring.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A system setting or a container's filter forbids it.
    #[error(
        "the kernel forbids io_uring to this process (EPERM): set sysctl kernel.io_uring_disabled=0, or allow io_uring \
         in the container's seccomp profile"
    )]
    Forbidden,
    /// The kernel has none.
    #[error("this kernel has no io_uring (ENOSYS): sloop needs Linux 5.8 or newer")]
    Missing,
    /// The user may not lock enough memory.
    #[error(
        "the locked memory of this user is used up (ENOMEM at {limit}): raise it with `ulimit -l` or LimitMEMLOCK=, or \
         run fewer cores (--cores); each core locks some 200 KiB, counted over all processes of the user"
    )]
    Memlock {
        /// The limit in force.
        limit: String,
    },
    /// The limit is below what an executor asks for at all, whatever is in use.
    #[error(
        "this user may lock {limit} of memory, and a core needs 512 KiB or more: raise it with `ulimit -l` or \
         LimitMEMLOCK="
    )]
    MemlockLeast {
        /// The limit in force.
        limit: String,
    },
    /// Anything else.
    #[error("io_uring cannot be used: {0}")]
    Other(io::Error),
}

impl Refused {
    /// What an error of `io_uring_setup` means.
    pub fn from_io(error: io::Error) -> Refused {
        use rustix::io::Errno;
        match Errno::from_io_error(&error) {
            Some(Errno::PERM | Errno::ACCESS) => Refused::Forbidden,
            Some(Errno::NOSYS) => Refused::Missing,
            Some(Errno::NOMEM) => Refused::Memlock { limit: memlock() },
            _ => Refused::Other(error),
        }
    }
}

/// Sets up and drops a small ring.
///
/// # Errors
/// [`Refused`].
pub fn io_uring() -> Result<(), Refused> {
    lockable(memlock_bytes())?;
    match io_uring::IoUring::new(8) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refused::from_io(error)),
    }
}

/// Below this glommio makes no executor.
const MEMLOCK_LEAST: u64 = 512 * 1024;

fn lockable(limit: Option<u64>) -> Result<(), Refused> {
    match limit {
        Some(bytes) if bytes < MEMLOCK_LEAST => Err(Refused::MemlockLeast { limit: readable(limit) }),
        _ => Ok(()),
    }
}

fn memlock_bytes() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

/// The memlock limit as a person reads it.
pub fn memlock() -> String {
    readable(memlock_bytes())
}

fn readable(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memlock_limit_that_no_executor_runs_under_says_what_to_raise() {
        let refused = lockable(Some(64 * 1024)).unwrap_err().to_string();
        assert!(refused.contains("64 KiB") && refused.contains("ulimit -l"), "{refused}");
        assert!(lockable(Some(8 * 1024 * 1024)).is_ok());
        assert!(lockable(None).is_ok());
    }
}
