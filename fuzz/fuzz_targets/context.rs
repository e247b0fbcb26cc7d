//! The token that a client hands back. Nothing panics; what opens under one key opens under no other.
//!
//! The last four bytes are made to be the checksum that the token needs, or nothing would ever get past it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sloop::protocol::causality::Context;
use sloop::protocol::types::{ClusterId, Key};

fuzz_target!(|bytes: &[u8]| {
    let key = Key::new("cart:17").expect("seven bytes are a key");
    let other = Key::new("cart:18").expect("seven bytes are a key");
    let cluster = ClusterId(7);
    let _ = Context::open(bytes, cluster, &key);

    let token = [bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat();
    let Ok(context) = Context::open(&token, cluster, &key) else { return };
    assert!(Context::open(&token, cluster, &other).is_err());
    assert!(Context::open(&token, ClusterId(8), &key).is_err());
    assert_eq!(Context::open(&context.seal(cluster, &key), cluster, &key), Ok(context));
});
