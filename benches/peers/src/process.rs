//! A server as a child process: where it may run, what it costs, and that nothing of it is left behind.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use rustix::thread::{CpuSet, sched_setaffinity};

/// CPUs that a server, or the generator, may use; none for all.
pub type Cpus = Option<Vec<usize>>;

/// A server that runs. When this is dropped, it and all its children are killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

/// CPU time and memory of a process and its descendants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// CPU time since its start, also of threads and children that have ended. In steps of 10 ms.
    pub cpu: Duration,
    /// Memory that is resident now.
    pub resident_bytes: u64,
}

impl Process {
    /// Starts a command on `cpus`. It becomes a process group of its own, so that Ctrl-C reaches it through us alone.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(mut command: Command, cpus: &Cpus) -> io::Result<Process> {
        command.process_group(0);
        // A child begins with the CPUs of the thread that starts it, in all its threads.
        let start = || {
            stay_on(cpus)?;
            command.spawn()
        };
        let child = thread::scope(|scope| scope.spawn(start).join().expect("starting a process does not panic"))?;
        Ok(Process { child })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// What it has cost so far.
    ///
    /// # Errors
    /// What the system says, above all that it has ended.
    pub fn cost(&self) -> io::Result<Cost> {
        let mut total = Cost { cpu: Duration::ZERO, resident_bytes: 0 };
        for process in family(self.child.id())? {
            // A child may end between two looks; its time is then its parent's.
            let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
            let cost = cost(&stat).ok_or_else(|| io::Error::other(format!("/proc/{process}/stat: {stat}")))?;
            total.cpu += cost.cpu;
            total.resident_bytes += cost.resident_bytes;
        }
        Ok(total)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Keeps the calling thread, and all that it starts, on these CPUs.
///
/// # Errors
/// What the system says when there is no such CPU.
pub fn stay_on(cpus: &Cpus) -> io::Result<()> {
    let Some(cpus) = cpus else { return Ok(()) };
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// Ports of this machine that nobody uses, no two alike.
///
/// # Errors
/// What the system says when there are not so many.
pub fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    let listeners: io::Result<Vec<_>> = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    listeners?.iter().map(TcpListener::local_addr).collect()
}

/// CPU time of this process without its children: what the generator costs.
///
/// # Errors
/// What the system says.
pub fn own_cpu() -> io::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let times = times(&stat).ok_or_else(|| io::Error::other(format!("/proc/self/stat: {stat}")))?;
    Ok(times.own)
}

/// A process and its descendants.
fn family(root: u32) -> io::Result<Vec<u32>> {
    let mut family = vec![root];
    let mut at = 0;
    while let Some(&process) = family.get(at) {
        at += 1;
        for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten() {
            // A thread may end between two looks.
            let Ok(children) = fs::read_to_string(thread?.path().join("children")) else { continue };
            family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    Ok(family)
}

/// From a line of /proc/PID/stat (proc_pid_stat(5)). The times of a process hold those of its threads that have ended,
/// which the finer ones of its threads (schedstat) do not; the kernel's workers for io_uring come and go.
fn cost(stat: &str) -> Option<Cost> {
    let Times { own, children } = times(stat)?;
    Some(Cost { cpu: own + children, resident_bytes: field(stat, 24)? * rustix::param::page_size() as u64 })
}

/// CPU time of a process, and of its children that have ended.
struct Times {
    own: Duration,
    children: Duration,
}

fn times(stat: &str) -> Option<Times> {
    let ticks_a_second = rustix::param::clock_ticks_per_second() as f64;
    let time = |user, system| {
        let ticks = field(stat, user)? + field(stat, system)?;
        Some(Duration::from_secs_f64(ticks as f64 / ticks_a_second))
    };
    Some(Times { own: time(14, 15)?, children: time(16, 17)? })
}

/// The second field is a name in parentheses, and may hold anything.
fn field(stat: &str, number: usize) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 1 2 3 4 150 50 10 40 20 0 3 0 99 1000 25 184 0";
        let cost = cost(stat).unwrap();
        let ticks = rustix::param::clock_ticks_per_second();
        assert_eq!(cost.cpu, Duration::from_secs_f64(250.0 / ticks as f64));
        assert_eq!(times(stat).unwrap().own, Duration::from_secs_f64(200.0 / ticks as f64));
        assert_eq!(cost.resident_bytes, 25 * rustix::param::page_size() as u64);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a limit needs a clock")]
    fn a_process_is_charged_for_its_children_and_leaves_nothing_behind() {
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done & while :; do :; done"]);
        let process = Process::start(command, &Some(vec![0])).unwrap();
        let begun = Instant::now();
        while process.cost().unwrap().cpu < Duration::from_millis(100) || family(process.child.id()).unwrap().len() < 2
        {
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", process.cost());
            thread::yield_now();
        }
        let family = family(process.child.id()).unwrap();
        let cpus = fs::read_to_string(format!("/proc/{}/status", family[1])).unwrap();
        assert!(cpus.contains("Cpus_allowed_list:\t0\n"), "{cpus}");

        drop(process);
        let is_gone = |process: &u32| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat"));
            stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
        };
        while !family.iter().all(is_gone) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{family:?} is left");
            thread::yield_now();
        }
    }
}
