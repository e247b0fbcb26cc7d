//! The exporter: one recorder a node, read by `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::protocol::ring::{Liveness, Step, View};
use crate::protocol::types::CoreId;
use crate::runtime::metrics::{CoreMetrics, RECORDS_BUCKETS, RECORDS_HISTOGRAMS, SECONDS_BUCKETS, describe};
use crate::wire::gossip::Dropped;

/// Histograms hold raw samples until upkeep sorts them into buckets: every second, or memory grows with the load.
const UPKEEP_PERIOD: Duration = Duration::from_secs(1);

/// The node's metrics.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    uptime_seconds: Gauge,
    hellos_welcomed: Counter,
    hellos_refused: Counter,
    view_epoch: Gauge,
    layout_number: Gauge,
    layout_nodes: Gauge,
    change_step: Gauge,
    members: [Gauge; 3],
    packets_taken: Counter,
    packets_dropped: [Counter; 4],
}

/// Why packets of gossip are dropped, as the label says it.
const DROPPED: [(Dropped, &str); 4] = [
    (Dropped::Malformed, "malformed"),
    (Dropped::Format, "format"),
    (Dropped::Foreign, "foreign"),
    (Dropped::Unproven, "unproven"),
];

impl Metrics {
    /// A recorder with every bucket set and every name explained.
    pub fn recording() -> Metrics {
        let mut builder = PrometheusBuilder::new().set_buckets(&SECONDS_BUCKETS).expect("there are buckets");
        for name in RECORDS_HISTOGRAMS {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), &RECORDS_BUCKETS)
                .expect("there are buckets");
        }
        let recorder = Arc::new(builder.build_recorder());
        describe(&*recorder);
        with_local_recorder(&*recorder, || {
            metrics::describe_gauge!("sloop_build_info", "Always 1; the labels say what runs.");
            metrics::describe_gauge!("sloop_uptime_seconds", "Time since the node started.");
            metrics::describe_counter!("sloop_hellos_total", "Binary connections that said hello, or failed to.");
            gauge!("sloop_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1);
        });
        with_local_recorder(&*recorder, || {
            metrics::describe_gauge!("sloop_view_epoch", "Views of the cluster that this node had, counted.");
            metrics::describe_gauge!("sloop_layout_number", "The number of the layout in force here.");
            metrics::describe_gauge!("sloop_layout_nodes", "Nodes in that layout.");
            metrics::describe_gauge!("sloop_change_step", "The step of the change under way: 0 for none, then 1 to 3.");
            metrics::describe_gauge!("sloop_members", "Members of the cluster, by whether they answer.");
            metrics::describe_counter!("sloop_gossip_packets_total", "Packets of gossip that came, by what was done.");
        });
        let hellos = |outcome| counter!("sloop_hellos_total", "outcome" => outcome);
        let (uptime_seconds, hellos_welcomed, hellos_refused) =
            with_local_recorder(&*recorder, || (gauge!("sloop_uptime_seconds"), hellos("welcomed"), hellos("refused")));
        let packets = |outcome| counter!("sloop_gossip_packets_total", "outcome" => outcome);
        let members = |liveness| gauge!("sloop_members", "liveness" => liveness);
        with_local_recorder(&*Arc::clone(&recorder), || Metrics {
            recorder,
            uptime_seconds,
            hellos_welcomed,
            hellos_refused,
            view_epoch: gauge!("sloop_view_epoch"),
            layout_number: gauge!("sloop_layout_number"),
            layout_nodes: gauge!("sloop_layout_nodes"),
            change_step: gauge!("sloop_change_step"),
            members: ["up", "suspect", "down"].map(members),
            packets_taken: packets("taken"),
            packets_dropped: DROPPED.map(|(_, outcome)| packets(outcome)),
        })
    }

    /// Counts a stranger at the binary port who was welcomed, or was not.
    pub fn hello(&self, welcomed: bool) {
        let outcome = if welcomed { &self.hellos_welcomed } else { &self.hellos_refused };
        outcome.increment(1);
    }

    /// Counts a packet of gossip.
    pub fn gossip(&self, outcome: Result<(), Dropped>) {
        match outcome {
            Ok(()) => self.packets_taken.increment(1),
            Err(dropped) => {
                let at = DROPPED.iter().position(|(reason, _)| *reason == dropped).expect("every reason has a label");
                self.packets_dropped[at].increment(1);
            }
        }
    }

    /// Shows the cluster as it is seen now.
    #[expect(clippy::cast_precision_loss, reason = "gauges; exact up to 2^53")]
    pub fn view(&self, view: &View) {
        self.view_epoch.set(view.epoch as f64);
        self.layout_number.set(view.layout.stamp().number as f64);
        self.layout_nodes.set(view.layout.rows().len() as f64);
        self.change_step.set(view.change.as_deref().map_or(0.0, |change| match change.step {
            Step::Write => 1.0,
            Step::Hold => 2.0,
            Step::Read => 3.0,
        }));
        for (gauge, liveness) in self.members.iter().zip([Liveness::Up, Liveness::Suspect, Liveness::Down]) {
            gauge.set(view.members.iter().filter(|member| member.liveness == liveness).count() as f64);
        }
    }

    /// The handles of one core, to be handed to it.
    pub fn core(&self, core: CoreId) -> CoreMetrics {
        CoreMetrics::new(Arc::clone(&self.recorder) as _, core)
    }

    /// The text that Prometheus reads.
    pub fn render(&self, uptime_ms: u64) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a gauge; exact for 285,000 years")]
        self.uptime_seconds.set(uptime_ms as f64 / 1_000.0);
        self.recorder.handle().render()
    }

    /// Keeps the recorder's memory bounded until the runtime ends. Polled on the control thread.
    pub fn upkeep(&self) -> impl Future<Output = ()> + use<> {
        upkeep(self.recorder.handle())
    }
}

async fn upkeep(handle: PrometheusHandle) {
    let mut period = tokio::time::interval(UPKEEP_PERIOD);
    loop {
        period.tick().await;
        handle.run_upkeep();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::message::{Failure, Request};
    use crate::protocol::types::Key;
    use crate::runtime::metrics::OperationKind;

    #[test]
    fn every_metric_stands_in_the_text_with_its_help_and_bounded_labels() {
        let metrics = Metrics::recording();
        let core = metrics.core(CoreId(3));
        let siblings = OperationKind::of(&Request::Siblings(Key::new("a").unwrap()));
        core.operation(siblings, &Err(Failure::DiskFull), Duration::from_millis(1));
        core.wal_batch_records.record(5.0);
        core.wal_sync_seconds.record(Duration::from_micros(100));
        core.peer("node-b").asks_not_sent.increment(2);
        core.peer("node-b").asks_not_sent.increment(1);

        let text = metrics.render(1_500);

        let has = |line: &str| assert!(text.contains(line), "{line} is missing in\n{text}");
        has(r#"sloop_operations_total{core="3",kind="siblings",outcome="error"} 1"#);
        has(r#"sloop_operations_total{core="3",kind="put",outcome="ok"} 0"#);
        has(r#"sloop_wal_batch_records_bucket{core="3",le="8"} 1"#);
        has(r#"sloop_wal_sync_duration_seconds_bucket{core="3",le="0.00016"} 1"#);
        has(r#"sloop_peer_asks_not_sent_total{core="3",peer="node-b"} 3"#);
        has("sloop_uptime_seconds 1.5");
        has(concat!(r#"sloop_build_info{version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#));
        for sample in text.lines().filter(|line| line.starts_with("# TYPE")) {
            let name = sample.split(' ').nth(2).unwrap();
            has(&format!("# HELP {name} "));
        }
    }

    #[test]
    fn the_table_of_the_documents_names_every_metric() {
        let documented = include_str!("../../docs/METRICS.md");
        let metrics = Metrics::recording();
        let _peer = metrics.core(CoreId(0)).peer("node-b");
        for line in metrics.render(0).lines().filter(|line| line.starts_with("# TYPE")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/METRICS.md");
        }
    }
}
