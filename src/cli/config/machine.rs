//! What the machine offers, for the defaults that hang on it.

use std::fs::read_to_string;

use super::{NAME_BYTES_MAX, name};

/// What the machine offers this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its host name, as the kernel tells it.
    pub host: String,
    /// CPUs that this process may use.
    pub cores: u16,
    /// Bytes of memory that this process may use.
    pub memory: u64,
}

impl Machine {
    /// This machine, and the container or cgroup around this process.
    pub fn here() -> Machine {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(1_024));
        let limit = read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        let total = read_to_string("/proc/meminfo").ok().and_then(|text| memory_total(&text));
        Machine {
            host: read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
            cores: u16::try_from(cpus).expect("at most 1,024"),
            memory: total.unwrap_or(u64::MAX).min(limit.unwrap_or(u64::MAX)),
        }
    }

    /// A node's name where none is given: the host's, if it can serve as one.
    pub(super) fn name(&self) -> String {
        let host: String = self.host.chars().take(NAME_BYTES_MAX).collect();
        name(&host).unwrap_or_else(|_| "node".to_owned())
    }
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_meminfo_is_in_kib() {
        let meminfo = "MemTotal:       16316412 kB\nMemFree:         1024 kB\n";
        assert_eq!(memory_total(meminfo), Some(16_316_412 * 1_024));
        assert_eq!(memory_total("nothing"), None);
    }

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let here = Machine::here();
        assert!(here.cores > 0 && here.memory > 0, "{here:?}");
    }
}
