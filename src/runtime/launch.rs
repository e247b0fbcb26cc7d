//! Starting one executor, and telling why it did not start.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures_lite::future::or;
use glommio::timer::sleep;
use glommio::{ExecutorJoinHandle, GlommioError, LocalExecutorBuilder, Placement};

use super::executor::{self, BEAT_BUSY, Setup};
use super::poller::{Poller, Watch};
use super::probe::Refused;
use super::start::{NodeConfig, StartError};
use crate::protocol::types::CoreId;
use crate::store::wal::writer::probe;

/// Memory that the kernel takes back late after another process of the user ended is waited for this long.
const RING_TRIES: u32 = 20;
const RING_WAIT: Duration = Duration::from_millis(100);
const UP_MAX: Duration = Duration::from_secs(10);

/// Starts the executor of a core, which lives on the setup. It says that it is up before it is given that, so that one
/// that fails can be tried again.
///
/// # Errors
/// [`StartError::Executor`].
pub fn start_executor(
    core: CoreId,
    config: &NodeConfig,
    wal: &Path,
    setup: Setup,
) -> Result<ExecutorJoinHandle<Result<(), String>>, StartError> {
    let mut failure = String::new();
    for _ in 0..RING_TRIES {
        let (up, is_up) = flume::bounded::<Result<(), String>>(1);
        let (hand, handed) = flume::bounded::<Setup>(1);
        let wal = wal.to_owned();
        let begin = move || async move {
            let (told, sockets) = match turning(prepare(&wal, core)).await {
                Ok(sockets) => (up.send(Ok(())), Some(sockets)),
                Err(reason) => (up.send(Err(reason)), None),
            };
            match (turning(handed.recv_async()).await, sockets) {
                (Ok(setup), Some((poller, watch))) if told.is_ok() => {
                    executor::live(setup, poller, watch).await;
                    Ok(())
                }
                _ => Err("it was not needed".to_owned()),
            }
        };
        let executor = builder(core, config)
            .spawn(begin)
            .map_err(|error| StartError::Executor { core, reason: error.to_string() })?;
        match is_up.recv_timeout(UP_MAX) {
            Ok(Ok(())) => {
                let handed = hand.send(setup);
                assert!(handed.is_ok(), "an executor that is up waits for its setup");
                return Ok(executor);
            }
            Ok(Err(reason)) => return Err(StartError::Executor { core, reason }),
            Err(flume::RecvTimeoutError::Disconnected) => failure = reason(executor.join()),
            // It may come up later, and ends then: what it waits for goes with this call.
            Err(flume::RecvTimeoutError::Timeout) => {
                let reason = format!("it is not up after {} s: is the disk stuck?", UP_MAX.as_secs());
                return Err(StartError::Executor { core, reason });
            }
        }
        #[expect(clippy::disallowed_methods, reason = "nothing tells when the kernel has taken the memory back")]
        std::thread::sleep(RING_WAIT);
    }
    Err(StartError::Executor { core, reason: failure })
}

/// Tries the disk as the log will use it, and makes ready for sockets.
async fn prepare(wal: &Path, core: CoreId) -> Result<(Poller, Watch), String> {
    probe(wal, core).await.map_err(|error| error.to_string())?;
    let sockets = Poller::new().and_then(|poller| poller.watch().map(|watch| (poller, watch)));
    sockets.map_err(|error| format!("no sockets can be polled: {error}"))
}

/// glommio 0.9 can park with work to do (docs/ARCHITECTURE.md, threads). Until a core's heart beats, this timer wakes
/// its executor.
async fn turning<T>(work: impl Future<Output = T>) -> T {
    let beat = async {
        loop {
            sleep(BEAT_BUSY).await;
        }
    };
    or(work, beat).await
}

fn reason(joined: Result<Result<(), String>, GlommioError<()>>) -> String {
    match joined {
        Ok(Ok(_)) => "it ended at once".to_owned(),
        Ok(Err(reason)) => reason,
        Err(error) => match error.raw_os_error() {
            Some(code) => Refused::from_io(io::Error::from_raw_os_error(code)).to_string(),
            None => error.to_string(),
        },
    }
}

fn builder(core: CoreId, config: &NodeConfig) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(placement(core, config.pin))
        .name(&format!("core-{core}"))
        .ring_depth(128)
        .io_memory(64 * 1024)
        .preempt_timer(Duration::from_millis(5))
}

/// Cores are bound to the processors that this process may use, in turn.
fn placement(core: CoreId, pin: bool) -> Placement {
    let Some(allowed) = pin.then(|| rustix::thread::sched_getaffinity(None).ok()).flatten() else {
        return Placement::Unbound;
    };
    let processors: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    match processors.get(core.index() % processors.len().max(1)) {
        Some(processor) => Placement::Fixed(*processor),
        None => Placement::Unbound,
    }
}
