//! Where a node's log lines go, and how they look: to standard error, for people or one JSON object a line.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;

use super::config::{Config, LogFormat};

/// Begins to log as the configuration says, and logs its warnings.
///
/// # Panics
/// When it is called a second time in one process.
pub fn start(config: &Config) {
    let filter = EnvFilter::try_new(&config.log_level).expect("the configuration has tried it");
    let lines = SubscriberBuilder::default().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match config.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}
