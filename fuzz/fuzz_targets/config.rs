//! A configuration file of any text. Nothing panics; what is taken is shown as a file that says the same.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use sloop::cli::config::{Config, Layers, Machine};

fn resolve(text: &str) -> Option<Config> {
    let machine = Machine { host: "vm".to_owned(), cores: 4, memory: 8 << 30 };
    let mut layers = Layers::default();
    layers.toml(Path::new("sloop.toml"), text).ok()?;
    Config::resolve(&layers, &machine).ok()
}

/// Settings with their values, as a file spells them.
fn shown(config: &Config) -> Vec<(&'static str, String)> {
    config.shown().into_iter().filter_map(|(setting, value, _)| Some((setting, value?))).collect()
}

fuzz_target!(|text: &str| {
    // A token's file would be read, whatever it is.
    if text.contains("token") || text.contains('\\') {
        return;
    }
    let Some(config) = resolve(text) else { return };
    let first = shown(&config);
    let file: String = first.iter().map(|(setting, value)| format!("{setting} = {value}\n")).collect();
    let again = resolve(&file).expect("what is shown can be used as a file");
    assert_eq!(shown(&again), first, "{file}");
});
