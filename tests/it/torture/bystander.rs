//! A client that does nothing wrong, while others do: it writes and reads its own keys, one call after the other, and
//! remembers how long each took.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use sloop::client::{Client, Error, Options};
use tokio::runtime::Builder;

/// No call may take longer: a core that is silent for this long counts as hung (docs/HTTP.md, health).
const STALL_MAX: Duration = Duration::from_secs(2);

/// 99 of 100 calls must be faster. A call is a few milliseconds of a node built without optimisation; beside it run the
/// noise, its makers and another test, on two cores.
const P99_MAX: Duration = Duration::from_millis(500);

/// A client at work on a thread of its own.
pub(crate) struct Bystander {
    enough: Arc<AtomicBool>,
    works: JoinHandle<Result<Vec<Duration>, Error>>,
}

impl Bystander {
    /// Connects, and begins once it has been served.
    #[expect(
        clippy::disallowed_methods,
        reason = "it works beside the test, on a runtime that the noise cannot hold up"
    )]
    pub(crate) fn begin(to: SocketAddr) -> Bystander {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let mut options = Options::new(to.to_string());
        // One connection, so that those of others can be counted beside it.
        options.routing = false;
        let client = runtime.block_on(options.connect()).unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&enough);
        let works = std::thread::spawn(move || runtime.block_on(work(client, &until)));
        Bystander { enough, works }
    }

    /// Ends it, and checks that it was served as if nothing else went on. `beside` is for the output.
    pub(crate) fn end(self, beside: &str) {
        self.enough.store(true, Ordering::Relaxed);
        let mut took = self.works.join().unwrap().unwrap_or_else(|error| panic!("beside {beside}: {error}"));
        took.sort_unstable();
        let (p99, slowest) = (took[took.len() * 99 / 100], *took.last().unwrap());
        println!("beside {beside}: {} calls, p99 {p99:.1?}, slowest {slowest:.1?}", took.len());
        assert!(p99 < P99_MAX && slowest < STALL_MAX, "beside {beside}: p99 {p99:?}, slowest {slowest:?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "what took how long is measured by a clock")]
async fn work(client: Client, enough: &AtomicBool) -> Result<Vec<Duration>, Error> {
    let mut took = vec![];
    while !enough.load(Ordering::Relaxed) {
        let (key, value) = (format!("bystander-{}", took.len() % 500), format!("{}", took.len()));
        let begun = Instant::now();
        client.put(&key, value.clone()).await?;
        took.push(begun.elapsed());
        let begun = Instant::now();
        let entry = client.get(&key).await?;
        took.push(begun.elapsed());
        let values: Vec<&[u8]> = entry.siblings().iter().map(|sibling| sibling.value.as_bytes()).collect();
        assert_eq!(values, [value.as_bytes()], "{key}");
    }
    Ok(took)
}
